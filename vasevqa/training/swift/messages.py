"""The two small JSON files that a stage and the process that runs ms-swift exchange.

The stage writes a task, and the process writes a result.
"""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vasevqa import files
from vasevqa.errors import (
    ConfigError,
    DataError,
    DeviceError,
    GateError,
    GpuMemoryError,
    HostMemoryError,
    Interrupted,
    StorageError,
    TransientStorageError,
    VaseError,
)

_KINDS: tuple[type[VaseError], ...] = (
    ConfigError,
    DataError,
    DeviceError,
    GateError,
    GpuMemoryError,
    HostMemoryError,
    StorageError,
    TransientStorageError,
    Interrupted,  # the last of its exit code
)
_BY_NAME = {kind.__name__: kind for kind in _KINDS}
_BY_CODE = {kind.exit_code: kind for kind in _KINDS}


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
    """A task to count the tokens of rows.

    `kind` is the kind of training (sft or grpo). `argv` holds ms-swift's arguments. `files` maps each file to its
    number of rows. `images` holds the paths of all pictures in the rows, relative to `image_root`.
    """

    kind: str
    argv: list[str]
    files: dict[str, int]
    images: list[str]
    image_root: str
    model: str


@dataclass(frozen=True)
class ConversionTask(_Message):
    """A conversion of a model to Megatron, or back to Hugging Face.

    `image` is the path of a picture. The precision check asks the models a question about this picture.
    """

    argv: list[str]
    image: str


@dataclass(frozen=True)
class WorkerResult(_Message):
    """The result of the process: an exit code (see errors.py), a sentence, and the measured figures.

    `error` is the name of the error's class, because several classes share an exit code. The name is empty after a
    success or a bug.
    """

    exit_code: int
    message: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @classmethod
    def of(cls, error: VaseError, message: str = "") -> Self:
        """Return the result of a process that ended with `error`. `message` replaces the error's own sentence."""
        return cls(error.exit_code, message or str(error), error=type(error).__name__)

    def raised(self) -> VaseError | None:
        """Return the error that ended the process. Return None after a success or a bug."""
        kind = _BY_NAME.get(self.error) or _BY_CODE.get(self.exit_code)
        return None if kind is None else kind(self.message)


def result_of(task_file: Path) -> Path:
    """Return the path where the process writes its WorkerResult, next to the task's file."""
    return task_file.with_suffix(".result")


def ended(task_file: Path, code: int, what: str) -> WorkerResult:
    """Return the result that the process wrote.

    If the process wrote no result, return a result that describes its exit code `code`. If a signal killed the process,
    `code` is the negative number of the signal. `what` is the subject of the result's sentence, such as "The training".
    """
    result = result_of(task_file)
    if result.is_file():
        return WorkerResult.read(result)
    again = "run the same command again to resume"
    if code < 0:
        said = f"{what} was killed by {signal.Signals(-code).name}; {again}."
        return WorkerResult(code, said, error=Interrupted.__name__)
    if code == Interrupted.exit_code:
        return WorkerResult.of(Interrupted(f"{what} was stopped before it had anything to save; {again}."))
    return WorkerResult(code, f"{what} ended with exit code {code}; see the log." if code else "")
