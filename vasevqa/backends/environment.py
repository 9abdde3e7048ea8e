"""The environment variables that all backends set for a stage."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from vasevqa.backends.base import Task


def stage_defaults(task: Task, cores: int) -> dict[str, str]:
    """Return default variables for a stage; the launcher's environment may override them."""
    return {
        "OMP_NUM_THREADS": str(max(1, min(math.ceil(task.resources.cpus), cores))),
        "HF_HOME": str(task.volume / ".cache/huggingface"),
        "TORCH_HOME": str(task.volume / ".cache/torch"),
        **({"HF_HUB_OFFLINE": "1"} if task.offline else {}),
    }


def stage_environment(task: Task) -> dict[str, str]:
    """Return the variables that the launcher sets for every stage and that nothing overrides."""
    return {
        "VASEVQA_VOLUME": str(task.volume),
        "VASEVQA_GPUS": str(task.resources.gpus),
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin on busy cores are ten times slower
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **({"VASEVQA_IMAGE": task.image} if task.image else {}),
        **task.environment,
    }


# Variables that a container inherits from the launcher, if they are set: proxies, cache folders and hub settings.
PASSED_ON = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HF_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TORCH_HOME",
)


def container_environment(task: Task, cores: int, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables of a stage in a container.

    From the launcher's environment, the container inherits only the variables that `PASSED_ON` lists.
    """
    given = os.environ if environ is None else environ
    passed = {name: given[name] for name in PASSED_ON if given.get(name)}
    return {**stage_defaults(task, cores), **passed, **stage_environment(task)}


def reaches_hub(environment: Mapping[str, str]) -> bool:
    """Return True if a stage with this environment may download from a hub. Only such a stage gets the hub's token."""
    return environment.get("HF_HUB_OFFLINE", "").upper() not in ("1", "ON", "YES", "TRUE")
