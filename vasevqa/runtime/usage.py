"""Measure what a stage used: processor time, memory, and memory of the GPU."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # a machine without these files gives a process no GPU


class Usage(BaseModel):
    """What a stage used. artifact.json holds it as `usage`; it is not part of the key.

    `memory` is the largest amount of memory, in bytes, that a single process used. The memory of several processes is
    not added up. `gpu_memory` is the largest amount of memory, in bytes, that the stage's own process held on one GPU.
    It is None if this process used no GPU. `gpu` is False if the machine showed no GPU to the stage.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    seconds: float
    cpu_seconds: float
    memory: int
    gpu_memory: int | None = None
    gpu: bool | None = None


class UsageMeter:
    """Measures the usage of this process and of those child processes that have ended.

    `Usage.seconds` is the time since the meter was created.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def read(self) -> Usage:
        """Return the usage so far."""
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
        return Usage(
            seconds=round(time.monotonic() - self._begun, 3),
            cpu_seconds=round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
            memory=max(own.ru_maxrss, children.ru_maxrss) * unit,
            gpu_memory=_gpu_memory(),
            gpu=any(Path(name).exists() for name in GPU_FILES) if sys.platform == "linux" else None,
        )


def _gpu_memory() -> int | None:
    """Return the largest amount of memory, in bytes, that torch held on one GPU; None if torch used no GPU."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    return max(int(cuda.max_memory_reserved(number)) for number in range(cuda.device_count()))
