"""Compare what each step used with what it asked for: processors, memory and GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vasevqa.errors import ConfigError
from vasevqa.pipeline.history import StepHistory
from vasevqa.report.costs import Cost
from vasevqa.report.provenance import Record
from vasevqa.spec import quantity_bytes
from vasevqa.text import amount, byte_size, duration


@dataclass(frozen=True)
class Cell:
    """A cell of the table: its text, and the number by which the rows can be sorted (None if it is unknown)."""

    text: str
    order: float | None = None


NOTHING = Cell("")


@dataclass(frozen=True)
class StepUse:
    """What one step used and asked for. A cell is empty if nothing recorded the value."""

    step: str
    took: Cell
    cores: Cell
    cores_asked: Cell
    memory: Cell
    memory_asked: Cell
    gpu_memory: Cell
    gpus_asked: Cell
    gpu_hours: Cell


def uses(
    history: Mapping[str, StepHistory], records: Mapping[str, Record], spent: Mapping[str, Cost]
) -> tuple[StepUse, ...]:
    """Return the usage of each step. A step without recorded usage is included if it asked for resources."""
    rows = (_use(name, step, records.get(name, Record()), spent.get(name)) for name, step in history.items())
    return tuple(row for row in rows if row is not None)


def _use(name: str, step: StepHistory, record: Record, cost: Cost | None) -> StepUse | None:
    usage, asked = record.usage, step.resources
    if usage is None and not asked:
        return None
    cores = None if usage is None or not usage.seconds else usage.cpu_seconds / usage.seconds
    gpu_memory = usage.gpu_memory if usage else None
    gpus, cpus = int(str(asked.get("gpus") or 0)), asked.get("cpus")
    return StepUse(
        step=name,
        took=Cell(duration(usage.seconds), usage.seconds) if usage else NOTHING,
        cores=NOTHING if cores is None else Cell(amount(cores), cores),
        cores_asked=NOTHING if cpus is None else Cell(amount(float(str(cpus))), float(str(cpus))),
        memory=Cell(byte_size(usage.memory), usage.memory) if usage else NOTHING,
        memory_asked=_asked_memory(asked.get("memory")),
        gpu_memory=Cell(byte_size(gpu_memory), gpu_memory) if gpu_memory else NOTHING,
        gpus_asked=Cell(str(gpus), gpus) if asked else NOTHING,
        gpu_hours=Cell(amount(cost.gpu_hours), cost.gpu_hours) if cost and cost.gpu_hours else NOTHING,
    )


def _asked_memory(asked: object) -> Cell:
    if asked is None:
        return NOTHING
    try:
        return Cell(str(asked), quantity_bytes(str(asked)))
    except ConfigError:
        return Cell(str(asked))
