"""Read checkpoints of ms-swift.

The module finds the complete checkpoints, the newest checkpoint and the best checkpoint. The module also computes the
norm of an adapter's weights.
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
from vasevqa.models import INDEX, safetensors_header, shards_of
from vasevqa.storage import refuse_failed

ADAPTER, STATE = "adapter_model.safetensors", "trainer_state.json"
ASIDE = ".set-aside"
_NAME = re.compile(r"checkpoint-([0-9]+)")


@dataclass(frozen=True)
class Checkpoint:
    """A folder `checkpoint-<step>`.

    `problem` says why a training can't continue from the checkpoint. If a training can continue, `problem` is None.
    `usable` is True if the weights can be read.
    """

    path: Path
    step: int
    problem: str | None
    usable: bool


def _weights(path: Path) -> list[Path]:
    return [path / ADAPTER] if (path / ADAPTER).is_file() else sorted(path.glob("model*.safetensors"))


def _unreadable(path: Path) -> str | None:
    """Return why the weights of a checkpoint can't be read. Return None if the weights can be read."""
    if not _weights(path):
        return "it holds no weights"
    try:
        for shard in _weights(path):
            safetensors_header(shard)
    except (DataError, OSError) as error:
        refuse_failed(error, path)
        return str(error)
    return None


def _unfinished(path: Path) -> str | None:
    """Return why a training can't continue from a checkpoint. Return None if a training can continue.

    The weights of the checkpoint must be readable.
    """
    try:
        if (path / INDEX).is_file():
            missing = set(shards_of(path)) - {shard.name for shard in _weights(path)}
            if missing:
                return f"{min(missing)} is missing"
        _state(path)
    except (DataError, OSError) as error:
        refuse_failed(error, path)
        return str(error)
    if (path / "latest").is_file():  # DeepSpeed keeps the optimizer in a separate folder, and writes this file last
        return None
    needed = [
        path / "optimizer.pt",
        path / "scheduler.pt",
        *(path.glob("rng_state*.pth") if any(path.glob("rng_state*.pth")) else [path / "rng_state.pth"]),
    ]
    return next((f"{file.name} is missing or cut short" for file in needed if not zipfile.is_zipfile(file)), None)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the trainer's state at this checkpoint. Return {} if there is no state file.

    Raise DataError if the state file is damaged.
    """
    path = checkpoint / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DataError(
            f"{path} is not valid JSON ({error}); copy the whole checkpoint, or choose `last` or a step."
        ) from None
    if not isinstance(state, dict):
        raise DataError(f"{path} holds no JSON object; copy the whole checkpoint, or choose `last` or a step.")
    return state


def _state(checkpoint: Path) -> dict[str, Any]:
    """Return the trainer's state as `read_state` does. Raise DataError if there is no state file."""
    if not (checkpoint / STATE).is_file():
        raise DataError(f"{checkpoint} holds no {STATE}; copy the whole checkpoint, or choose `last` or a step.")
    return read_state(checkpoint)


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a training's folder, sorted by step.

    The list also contains incomplete checkpoints, each with its `problem`.
    """
    if not folder.is_dir():
        return []
    folders = [
        (int(match[1]), entry)
        for entry in folder.iterdir()
        if entry.is_dir() and (match := _NAME.fullmatch(entry.name))
    ]
    return [_checkpoint(entry, step) for step, entry in sorted(folders)]


def _checkpoint(path: Path, step: int) -> Checkpoint:
    unreadable = _unreadable(path)
    return Checkpoint(path, step, unreadable or _unfinished(path), unreadable is None)


def newest(folder: Path) -> tuple[Checkpoint | None, list[Checkpoint]]:
    """Return the newest complete checkpoint, and all incomplete checkpoints.

    The function moves the incomplete checkpoints to a folder in which ms-swift doesn't look for checkpoints.
    """
    all_checkpoints = checkpoints(folder)
    broken = [checkpoint for checkpoint in all_checkpoints if checkpoint.problem]
    for checkpoint in broken:
        aside = folder / ASIDE / checkpoint.path.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        checkpoint.path.rename(aside)
    whole = [checkpoint for checkpoint in all_checkpoints if not checkpoint.problem]
    return (whole[-1] if whole else None), broken


def choose(folder: Path, which: str) -> Path:
    """Return the checkpoint `which` (last, best, or a step) below `folder`.

    If `folder` itself is a checkpoint or a model, return `folder`. If `which` is best, return the checkpoint that the
    training recorded as the best (by validation loss or reward). If the training recorded none, return the checkpoint
    of the step with the highest logged reward.

    Raise ConfigError if `which` is best, but the training recorded neither a best checkpoint nor the rewards of at
    least two steps. Raise ConfigError if no checkpoint of the chosen step has readable weights. Raise DataError if the
    folder holds no checkpoint with readable weights at all.
    """
    if (folder / ADAPTER).is_file() or ((folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))):
        return folder
    all_checkpoints = checkpoints(folder / "training" if (folder / "training").is_dir() else folder)
    usable = [checkpoint for checkpoint in all_checkpoints if checkpoint.usable]
    if not usable:
        raise DataError(f"{folder} holds no checkpoint of a training; give the folder that sft or grpo wrote.")
    if which == "last":
        return usable[-1].path
    steps = ", ".join(str(checkpoint.step) for checkpoint in usable)
    if which == "best":
        state = _state(usable[-1].path)
        name = Path(str(state.get("best_model_checkpoint") or "")).name
        step = name.removeprefix("checkpoint-") or _best_logged(state)
        if step is None:
            raise ConfigError(
                f"{folder} has no record of a best checkpoint, which needs validation rows or logged rewards; choose"
                f" `last` or one of the steps {steps}."
            )
        which = step
    for checkpoint in usable:
        if str(checkpoint.step) == which:
            return checkpoint.path
    raise ConfigError(f"{folder} holds no checkpoint of step {which}; choose one of {steps}.")


def _best_logged(state: dict[str, Any]) -> str | None:
    history = state.get("log_history")
    logged = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    rewards = {row["step"]: row["reward"] for row in logged if "reward" in row and "step" in row}
    return str(max(rewards, key=lambda step: (rewards[step], step))) if rewards and len(rewards) > 1 else None


def adapter_norm(checkpoint: Path) -> float:
    """Return the Frobenius norm of all B matrices of an adapter together.

    LoRA starts with B = 0, so a norm of 0 means that the adapter does not change the model.
    """
    from safetensors import safe_open

    total = 0.0
    with safe_open(checkpoint / ADAPTER, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            if "lora_B" in name:
                total += float(tensors.get_tensor(name).float().pow(2).sum())
    return total**0.5


def tidy(folder: Path) -> None:
    """Clean the folder after the training is complete.

    The function removes incomplete checkpoints, and the links to checkpoints that ms-swift made.
    """
    shutil.rmtree(folder / ASIDE, ignore_errors=True)
    for entry in folder.iterdir():
        if entry.is_symlink():
            entry.unlink()
    share(folder, (folder / "logging.jsonl").stat().st_mode & 0o777)


def share(folder: Path, mode: int) -> None:
    """Give the permissions `mode` to every file below `folder` that only its owner can read.

    safetensors writes such files and ignores the user's umask.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600:
            path.chmod(mode)
