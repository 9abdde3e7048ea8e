"""Checkpoints as ms-swift writes them.

This module finds out which checkpoints are complete, which one is the newest or the best, and how large the weights of
an adapter are.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError, DataError
from vasevqa.models import INDEX, safetensors_header

ADAPTER, STATE = "adapter_model.safetensors", "trainer_state.json"
ASIDE = ".set-aside"
_NAME = re.compile(r"checkpoint-([0-9]+)")


@dataclass(frozen=True)
class Checkpoint:
    """A folder `checkpoint-<step>`.

    `problem` says why a training can't continue from the checkpoint. It is None if the training can.
    """

    path: Path
    step: int
    problem: str | None


def _problem(path: Path) -> str | None:
    weights = [path / ADAPTER] if (path / ADAPTER).is_file() else sorted(path.glob("model*.safetensors"))
    if not weights:
        return "it holds no weights"
    try:
        for shard in weights:
            safetensors_header(shard)
        if (path / INDEX).is_file():
            missing = set(json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values()) - {
                shard.name for shard in weights
            }
            if missing:
                return f"{min(missing)} is missing"
        json.loads((path / STATE).read_text(encoding="utf-8"))
    except DataError as error:
        return str(error)
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    if (path / "latest").is_file():  # DeepSpeed keeps the optimizer in a folder of its own, and writes this file last
        return None
    needed = [
        path / "optimizer.pt",
        path / "scheduler.pt",
        *(path.glob("rng_state*.pth") if any(path.glob("rng_state*.pth")) else [path / "rng_state.pth"]),
    ]
    return next((f"{file.name} is missing or cut short" for file in needed if not zipfile.is_zipfile(file)), None)


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a training's folder, the oldest first.

    Incomplete checkpoints are included, together with their problem.
    """
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), entry)
        for entry in folder.iterdir()
        if entry.is_dir() and (match := _NAME.fullmatch(entry.name))
    ]
    return [Checkpoint(entry, step, _problem(entry)) for step, entry in sorted(found)]


def newest(folder: Path) -> tuple[Checkpoint | None, list[Checkpoint]]:
    """Return the newest complete checkpoint, and all incomplete ones.

    The incomplete checkpoints are moved to a place where ms-swift doesn't find them.
    """
    found = checkpoints(folder)
    broken = [checkpoint for checkpoint in found if checkpoint.problem]
    for checkpoint in broken:
        aside = folder / ASIDE / checkpoint.path.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        checkpoint.path.rename(aside)
    whole = [checkpoint for checkpoint in found if not checkpoint.problem]
    return (whole[-1] if whole else None), broken


def choose(folder: Path, which: str) -> Path:
    """Return the checkpoint `which` (last, best, or a step) below `folder`.

    `folder` may itself be a checkpoint or a model, and is then returned. The best checkpoint is the one that the
    training noted as best by its validation loss or reward. Raise ConfigError if there is no such note, or no
    checkpoint of that step. Raise DataError if the folder holds no checkpoint.
    """
    if (folder / ADAPTER).is_file() or ((folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))):
        return folder
    found = checkpoints(folder / "training" if (folder / "training").is_dir() else folder)
    usable = [
        checkpoint
        for checkpoint in found
        if not (checkpoint.problem or "").startswith(("it holds no weights", str(checkpoint.path)))
    ]
    if not usable:
        raise DataError(f"{folder} holds no checkpoint of a training; give the folder that sft or grpo wrote.")
    if which == "last":
        return usable[-1].path
    steps = ", ".join(str(checkpoint.step) for checkpoint in usable)
    if which == "best":
        state = json.loads((usable[-1].path / STATE).read_text(encoding="utf-8"))
        name = Path(state.get("best_model_checkpoint") or "").name
        step = name.removeprefix("checkpoint-") or _best_logged(state)
        if step is None:
            raise ConfigError(
                f"{folder} has no record of a best checkpoint (there were no validation rows); choose last or a step of"
                f" {steps}."
            )
        which = step
    for checkpoint in usable:
        if str(checkpoint.step) == which:
            return checkpoint.path
    raise ConfigError(f"{folder} holds no checkpoint of step {which}; there are {steps}.")


def _best_logged(state: dict[str, Any]) -> str | None:
    rewards = {row["step"]: row["reward"] for row in state.get("log_history", []) if "reward" in row and "step" in row}
    return str(max(rewards, key=lambda step: (rewards[step], step))) if rewards and len(rewards) > 1 else None


def adapter_norm(checkpoint: Path) -> float:
    """Return the Frobenius norm of an adapter's B matrices.

    The norm is 0 for an adapter that changes nothing, because LoRA starts with B = 0.
    """
    from safetensors import safe_open

    total = 0.0
    with safe_open(checkpoint / ADAPTER, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - no mapping
            if "lora_B" in name:
                total += float(tensors.get_tensor(name).float().pow(2).sum())
    return total**0.5


def tidy(folder: Path) -> None:
    """Clean the folder after the training is complete.

    Remove what was set aside, and ms-swift's links to checkpoints.
    """
    shutil.rmtree(folder / ASIDE, ignore_errors=True)
    for entry in folder.iterdir():
        if entry.is_symlink():
            entry.unlink()
    share(folder, (folder / "logging.jsonl").stat().st_mode & 0o777)


def share(folder: Path, mode: int) -> None:
    """Give every file below `folder` the mode that the user's umask gives.

    This is needed because safetensors writes files that only their owner can read.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600:
            path.chmod(mode)
