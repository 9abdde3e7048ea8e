"""What a run held while its steps ran, by its event log:

GPUs, cores and memory times the hours of every attempt, failed ones too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vasevqa.errors import ConfigError
from vasevqa.pipeline.history import StepHistory
from vasevqa.spec import quantity_bytes


@dataclass
class Cost:
    """Hours of one step's attempts, and what they held: GPU-hours, core-hours, GiB-hours of memory."""

    hours: float = 0.0
    gpu_hours: float = 0.0
    core_hours: float = 0.0
    memory_hours: float = 0.0
    gpus: int = 0

    def text(self) -> str:
        """'0.51 GPU-hours (2 GPUs), 1.0 core-hours, 4.1 GiB-hours'."""
        gpus = f"{self.gpu_hours:.2g} GPU-hours ({self.gpus} GPU{'s' if self.gpus > 1 else ''}), " if self.gpus else ""
        return f"{gpus}{self.core_hours:.2g} core-hours, {self.memory_hours:.2g} GiB-hours"


def costs(history: Mapping[str, StepHistory]) -> dict[str, Cost]:
    """Step -> its cost. In the queue a step holds nothing, and a step that was up to date costs nothing."""
    found: dict[str, Cost] = {}
    for name, step in history.items():
        for held in step.held:
            _add(found.setdefault(name, Cost()), held.resources, held.seconds / 3600)
    return found


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
