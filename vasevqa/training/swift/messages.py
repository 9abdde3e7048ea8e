"""The two small JSON files that a stage and the process that runs ms-swift exchange.

The stage writes a task, and the process writes a result.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vasevqa import files


class _Message:
    def write(self, path: Path) -> None:
        """Write the message to `path` atomically."""
        files.write_json(path, asdict(self))  # type: ignore[call-overload]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the message that `write` wrote to `path`."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class TrainingTask(_Message):
    """A training to run. `kind` is sft or grpo, and `argv` holds ms-swift's arguments."""

    kind: str
    argv: list[str]
    gpu_bytes: int | None = None  # estimated need of memory; None: not checked
    rows: int | None = None  # expected number of rows; None: not checked
    validation_rows: int | None = None


@dataclass(frozen=True)
class LengthsTask(_Message):
    """A task to count the tokens of rows, for a training of this kind with these arguments of ms-swift.

    `files` maps each file to its number of rows. `images` holds every picture that the rows name, relative to
    `image_root`.
    """

    kind: str
    argv: list[str]
    files: dict[str, int]
    images: list[str]
    image_root: str
    model: str


@dataclass(frozen=True)
class ConversionTask(_Message):
    """A conversion to Megatron or back.

    `image` is the picture for the question of the precision check.
    """

    argv: list[str]
    image: str


@dataclass(frozen=True)
class WorkerResult(_Message):
    """The result of the process: an exit code (see errors.py), a sentence, and the measured figures."""

    exit_code: int
    message: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def result_of(task_file: Path) -> Path:
    """Return the path where the process writes its WorkerResult, next to the task's file."""
    return task_file.with_suffix(".result")
