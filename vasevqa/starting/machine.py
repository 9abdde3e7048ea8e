"""The resources of this machine. GPUs are counted by their device files, so no large library is loaded."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from vasevqa.cores import available_cores

DEV = Path("/dev")
GPU_BATCH = 256  # photographs that CLIP scores at once on a GPU


@dataclass(frozen=True)
class Machine:
    """A machine's cores, memory in GiB and GPUs. `torch` is True if torch is installed, so that steps can run here."""

    cores: int
    memory: float
    gpus: int
    torch: bool

    @property
    def batch_size(self) -> int:
        """The number of photographs that CLIP scores in one batch on this machine."""
        return GPU_BATCH if self.gpus else 32 if self.memory >= 8 else 8

    def said(self) -> str:
        """Return one line about the machine."""
        gpus = "no GPU" if not self.gpus else f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}"
        steps = "" if self.torch else "; torch isn't installed here, so steps run in containers or in a cluster"
        return f"this machine has {self.cores} cores, {self.memory:.0f} GiB of memory and {gpus}{steps}"


def this_machine() -> Machine:
    """Return the resources of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = len(list(DEV.glob("nvidia[0-9]*")))
    return Machine(available_cores(), memory, gpus, importlib.util.find_spec("torch") is not None)
