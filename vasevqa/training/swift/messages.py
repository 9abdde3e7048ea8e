"""What a stage hands to the process that runs ms-swift, and what it gets back: two small JSON files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vasevqa import files


class _Message:
    def write(self, path: Path) -> None:
        """Write it atomically."""
        files.write_json(path, asdict(self))  # type: ignore[call-overload]

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class TrainingTask(_Message):
    """A training: `kind` is sft or grpo, `argv` ms-swift's arguments."""

    kind: str
    argv: list[str]
    gpu_bytes: int | None = None  # what it needs by the estimate; None: not checked


@dataclass(frozen=True)
class ConversionTask(_Message):
    """A conversion to Megatron or back; `image` is the picture that the precision check asks about."""

    argv: list[str]
    image: str


@dataclass(frozen=True)
class WorkerResult(_Message):
    """How the process ended: an exit code (errors.py), a sentence, and what was measured."""

    exit_code: int
    message: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def result_of(task_file: Path) -> Path:
    """Where the process writes its WorkerResult: beside its task."""
    return task_file.with_suffix(".result")
