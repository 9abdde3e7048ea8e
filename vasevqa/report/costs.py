"""Compute the cost of a run from the event log.

The cost of an attempt is its GPUs, cores and memory, each multiplied by the hours of the attempt. Failed attempts count
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vasevqa.errors import ConfigError
from vasevqa.pipeline.history import StepHistory
from vasevqa.report.provenance import Record
from vasevqa.spec import quantity_bytes
from vasevqa.text import amount


@dataclass
class Cost:
    """Cost of all attempts of one step: hours, GPU-hours, core-hours and GiB-hours of memory."""

    hours: float = 0.0
    gpu_hours: float = 0.0
    core_hours: float = 0.0
    memory_hours: float = 0.0
    gpus: int = 0

    def text(self) -> str:
        """Return the cost as text, such as '0.51 GPU-hours (2 GPUs), 1.0 core-hours, 4.1 GiB-hours'."""
        gpus = (
            f"{amount(self.gpu_hours)} GPU-hours ({self.gpus} GPU{'s' if self.gpus > 1 else ''}), " if self.gpus else ""
        )
        return f"{gpus}{amount(self.core_hours)} core-hours, {amount(self.memory_hours)} GiB-hours"


def costs(history: Mapping[str, StepHistory], records: Mapping[str, Record] | None = None) -> dict[str, Cost]:
    """Return the cost of each step.

    Time in the queue costs nothing. A step that was up to date costs nothing. If a step's record says that the
    machine showed no GPU, the step costs no GPU-hours, even if its recipe requests GPUs.
    """
    by_step: dict[str, Cost] = {}
    for name, step in history.items():
        usage = records[name].usage if records and name in records else None
        without = usage is not None and usage.gpu is False
        for held in step.used:
            resources = {**held.resources, "gpus": 0} if without else held.resources
            _add(by_step.setdefault(name, Cost()), resources, held.seconds / 3600)
    return by_step


def _add(cost: Cost, asked: dict[str, Any], hours: float) -> None:
    try:
        memory = quantity_bytes(str(asked.get("memory", "0"))) / 2**30
    except ConfigError:
        memory = 0.0
    cost.gpus = max(cost.gpus, int(asked.get("gpus", 0)))
    cost.hours += hours
    cost.gpu_hours += hours * int(asked.get("gpus", 0))
    cost.core_hours += hours * float(asked.get("cpus", 0))
    cost.memory_hours += hours * memory
