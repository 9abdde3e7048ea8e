"""The two small JSON files that a stage and the process that runs ms-swift exchange.

The stage hands over a task, and gets a result back.
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
    """A training to run: `kind` is sft or grpo, and `argv` holds ms-swift's arguments."""

    kind: str
    argv: list[str]
    gpu_bytes: int | None = None  # what it needs by the estimate; None: not checked


@dataclass(frozen=True)
class ConversionTask(_Message):
    """A conversion to Megatron or back.

    `image` is the picture that the precision check asks about.
    """

    argv: list[str]
    image: str


@dataclass(frozen=True)
class WorkerResult(_Message):
    """How the process ended: an exit code (see errors.py), a sentence, and what was measured."""

    exit_code: int
    message: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def result_of(task_file: Path) -> Path:
    """Return the path where the process writes its WorkerResult, which is beside its task."""
    return task_file.with_suffix(".result")
