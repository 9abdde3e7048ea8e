"""What a run held while its steps ran, by its event log:

GPUs, cores and memory times the hours of every attempt, failed ones too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vasevqa.errors import ConfigError
from vasevqa.spec import quantity_bytes

ENDS = ("attempt-failed", "step-done", "step-failed", "step-cancelled", "step-requeued")


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


def costs(events: Iterable[dict[str, Any]]) -> dict[str, Cost]:
    """Step -> its cost.

    Time counts from when an attempt runs: in the queue it holds nothing. A step that was up to date costs nothing.
    """
    found: dict[str, Cost] = {}
    asked: dict[str, dict[str, Any]] = {}
    since: dict[str, float] = {}
    for event in events:
        kind, step = event["event"], event.get("step", "")
        if kind == "step-started":
            asked[step] = event.get("resources") or {}
            since.pop(step, None)
        elif kind == "step-running":
            since.setdefault(step, event["time"])
        elif kind in ENDS and step in since and step in asked:
            _add(found.setdefault(step, Cost()), asked[step], (event["time"] - since.pop(step)) / 3600)
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
