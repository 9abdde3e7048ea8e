"""Set the environment of a process that runs ms-swift.

The environment decides which GPUs and caches the process uses, and how large images may be. It also forbids downloads.
Variables that would change the training are not passed on from the stage's own environment.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError, DeviceError
from vasevqa.training.params import TrainingOptions

# These variables change how ms-swift's templates process an image. Only parameters may decide this.
STRAY = {
    "MAX_PIXELS",
    "MIN_PIXELS",
    "IMAGE_FACTOR",
    "MAX_RATIO",
    "IMAGE_MAX_TOKEN_NUM",
    "IMAGE_MIN_TOKEN_NUM",
    "VIDEO_MAX_PIXELS",
    "VIDEO_MIN_PIXELS",
    "VIDEO_TOTAL_PIXELS",
    "VIDEO_MAX_TOKEN_NUM",
    "VIDEO_MIN_TOKEN_NUM",
    "FPS",
    "FPS_MIN_FRAMES",
    "FPS_MAX_FRAMES",
    "FRAME_FACTOR",
    "ROOT_IMAGE_DIR",
    "NPROC_PER_NODE",
    "NNODES",
    "NODE_RANK",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "USE_HF",
    "VASEVQA_REWARD_PLUGIN",
    "VASEVQA_REWARD_FUNCS",
    "VASEVQA_VOCABULARY",
    "VASEVQA_REWARD_ROWS",
}


@dataclass(frozen=True)
class ChildSettings:
    """The settings that decide the environment of a process that runs ms-swift."""

    image_root: Path  # the rows' image paths are relative to this folder
    device: str = "auto"
    hub: str = "huggingface"
    max_pixels: int = 1003520
    cuda_visible_devices: str | None = None
    gpus: int = 0  # how many GPUs the process sees; 0: all
    volume: Path | None = None
    reward_plugin: Path | None = None
    reward_funcs: tuple[str, ...] = ()
    vocabulary: Path | None = None
    reward_rows: Path | None = None  # the file of rows, in which the row of a reward's error is searched


def child(settings: ChildSettings) -> dict[str, str]:
    """Return the environment variables of the process.

    The variables hide the GPUs that the process must not use. Otherwise ms-swift would spread one model over all GPUs.
    """
    environ = {name: value for name, value in os.environ.items() if name not in STRAY}
    environ |= {
        "MAX_PIXELS": str(settings.max_pixels),  # ms-swift's Qwen templates limit an image's size by this variable
        "ROOT_IMAGE_DIR": str(settings.image_root),
        "USE_HF": "1" if settings.hub == "huggingface" else "0",
        "HF_HUB_OFFLINE": "1",  # the model is already on disk
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
    if settings.volume is not None:
        environ.setdefault("HF_HOME", str(settings.volume / ".cache/huggingface"))
        environ.setdefault("MODELSCOPE_CACHE", str(settings.volume / ".cache/modelscope"))
    if settings.device == "cpu":
        environ["CUDA_VISIBLE_DEVICES"] = ""
    elif settings.device.startswith("cuda:"):
        environ["CUDA_VISIBLE_DEVICES"] = settings.device.removeprefix("cuda:")
    elif settings.cuda_visible_devices is not None:
        environ["CUDA_VISIBLE_DEVICES"] = settings.cuda_visible_devices
    elif settings.gpus:
        named = environ.get("CUDA_VISIBLE_DEVICES")
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(
            named.split(",")[: settings.gpus] if named else map(str, range(settings.gpus))
        )
    if settings.vocabulary is not None:
        environ["VASEVQA_VOCABULARY"] = str(settings.vocabulary)
    if settings.reward_funcs:
        environ |= {
            "VASEVQA_REWARD_PLUGIN": str(settings.reward_plugin or ""),
            "VASEVQA_REWARD_FUNCS": json.dumps(settings.reward_funcs),
            "VASEVQA_REWARD_ROWS": str(settings.reward_rows or ""),
        }
    return environ


def refuse_model_code() -> None:
    """Make this process refuse to run code that is part of a model.

    By default ms-swift loads models with trust_remote_code.
    """
    from swift.model.register import ModelLoader
    from transformers import dynamic_module_utils

    def refuse(class_name: str, module_path: object, *args: object, **kwargs: object) -> Any:
        raise ConfigError(
            f"The model contains code ({class_name} in {Path(str(module_path)).name}), and code from a model is"
            " never run; give a model that transformers supports."
        )

    ModelLoader.default_trust_remote_code = False
    dynamic_module_utils.get_class_in_module = refuse


def processes(options: TrainingOptions) -> int:
    """Return the number of processes that train: nproc_per_node, or by default one process for each GPU of the step.

    Raise DeviceError if the machine has too few GPUs.
    """
    from vasevqa.curation.devices import resolve_device

    device = resolve_device(options.device)
    wanted: int | None = options.nproc_per_node
    if device.type == "cpu":
        return wanted or 1
    import torch

    named = options.cuda_visible_devices
    there = len(named.split(",")) if named else torch.cuda.device_count()
    if options.device.startswith("cuda:"):
        there = 1
    if named and torch.cuda.device_count() < there:
        raise DeviceError(
            f"cuda_visible_devices names {there} GPUs, but this machine has {torch.cuda.device_count()}; name only"
            " GPUs that exist."
        )
    asked = int(os.environ.get("VASEVQA_GPUS") or 0)  # the step's GPUs, which may be fewer than the machine's
    if (wanted or asked) > there:
        what = f"nproc_per_node is {wanted}" if wanted else f"The step asks for {asked} GPUs"
        raise DeviceError(f"{what}, but there are {there}; request more GPUs for the step, or lower the number.")
    return wanted or asked or there
