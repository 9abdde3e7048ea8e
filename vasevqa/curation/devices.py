"""Find the device that the user named. If it isn't available, raise an error: no other device is used instead."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import torch

from vasevqa.errors import ConfigError, DeviceError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device with the name auto, cpu, cuda or cuda:N.

    `auto` is the first CUDA device, or the CPU if the machine has no CUDA device. Raise DeviceError if the named device
    doesn't exist. For `auto`, raise DeviceError also if the step requested GPUs (VASEVQA_GPUS) and CUDA finds none.
    Raise ConfigError for an unknown name.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        if int(os.environ.get("VASEVQA_GPUS") or 0) > 0:
            raise DeviceError(
                "The step requested a GPU, but CUDA finds none on this node; check the driver, or set `device: cpu` to"
                " run without a GPU."
            )
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise ConfigError(f"There is no device called '{name}'; use auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        have = (
            f"this machine has {count} ({', '.join(f'cuda:{number}' for number in range(count))})"
            if count
            else "this machine has no CUDA device"
        )
        raise DeviceError(f"Device {name} is not available: {have}; set --device cpu, or run on a machine with a GPU.")
    return torch.device("cuda", int(index or 0))


@lru_cache
def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def fast_bf16(device: torch.device) -> bool:
    """Return whether the hardware has instructions for bfloat16. Without them, autocast saves no time."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
