"""The environment variables of a stage, wherever it runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from vasevqa.backends.base import Task


def stage_defaults(task: Task, cores: int) -> dict[str, str]:
    """Environment of a stage that the launcher's own environment may say otherwise."""
    return {
        "OMP_NUM_THREADS": str(max(1, min(math.ceil(task.resources.cpus), cores))),
        "HF_HOME": str(task.volume / ".cache/huggingface"),
        "TORCH_HOME": str(task.volume / ".cache/torch"),
        **({"HF_HUB_OFFLINE": "1"} if task.offline else {}),
    }


def stage_environment(task: Task) -> dict[str, str]:
    """Environment of a stage that is the launcher's to say, wherever it runs."""
    return {
        "VASEVQA_VOLUME": str(task.volume),
        "VASEVQA_GPUS": str(task.resources.gpus),
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads on busy cores are ten times slower
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **({"VASEVQA_IMAGE": task.image} if task.image else {}),
        **task.environment,
    }


# What passes from the launcher's environment to a container's, if it is set there: proxies, where caches lie and how
# hubs are asked.
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

SECRETS = ("HF_TOKEN", "MODELSCOPE_API_TOKEN")  # likewise, but their values are never shown


def container_environment(task: Task, cores: int, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a stage in a container: nothing of the launcher's but PASSED_ON and SECRETS."""
    given = os.environ if environ is None else environ
    passed = {name: given[name] for name in (*PASSED_ON, *SECRETS) if given.get(name)}
    return {**stage_defaults(task, cores), **passed, **stage_environment(task)}
