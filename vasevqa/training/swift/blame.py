"""Find the cause of an error in ms-swift from the frames of its traceback.

The cause may be the user's rows, plugin or model. The cause may also be the machine (disk, device, memory), or a bug.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import vasevqa
from vasevqa.errors import (
    ConfigError,
    DataError,
    DeviceError,
    GpuMemoryError,
    HostMemoryError,
    VaseError,
    out_of_gpu_memory,
    out_of_host_memory,
    storage_error,
)
from vasevqa.text import first_line
from vasevqa.training.swift.messages import WorkerResult

# A process that prepares rows sends its traceback as text.
_FRAME = re.compile(r'File "([^"]+)", line ([0-9]+), in (\S+)')
_RAISED = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Warning|Interrupt)\b.*)$", re.MULTILINE)
_NO_DEVICE = re.compile(
    r"no kernel image is available|driver version is insufficient|No CUDA GPUs are available|invalid device ordinal"
    r"|Found no NVIDIA driver|all CUDA-capable devices are busy"
)
_LOADING = {"from_pretrained", "get_model", "get_processor", "get_model_processor", "get_model_info_meta"}


@dataclass(frozen=True)
class Frame:
    """One frame of an error's traceback: file, line and function."""

    file: str
    line: int
    function: str


def frames_of(error: BaseException) -> list[Frame]:
    """Return the frames of an error's traceback, the innermost last.

    The list also contains the frames of the errors that caused this error. If an error was raised in a child process,
    the list contains the frames of the child process.
    """
    found: list[Frame] = []
    for link in _chain(error):
        found = [
            *(Frame(file, line or 0, function) for file, line, function, _ in traceback.extract_tb(link.__traceback__)),
            *(Frame(file, int(line), function) for file, line, function in _FRAME.findall(_told(link))),
            *found,
        ]
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _told(error: BaseException) -> str:
    return f"{error}\n{getattr(error, 'tb', '')}"


def failure_of(error: BaseException) -> str:
    """Return the class name and the first line of a library's error, as a part of a sentence."""
    kind, said = type(error).__name__, first_line(error)
    if "Original Traceback" in str(error):  # the error in a process that prepares rows
        raised = _RAISED.findall(str(error))
        return first_line(raised[-1]) if raised else said
    return kind if said == kind else f"{kind}: {said}"


def blame(error: BaseException, model: Path | str, rows: Path | str | None = None) -> WorkerResult:
    """Return the exit code and the message for an error in a process that runs ms-swift.

    `model` and `rows` are the inputs of the process. The message may name them. Exit code 1 means a bug in this
    project.
    """
    failure = failure_of(error)
    links = list(_chain(error))
    for link in links:
        if isinstance(link, VaseError):
            return WorkerResult.of(link)
    if any(out_of_gpu_memory(link) for link in links):
        return WorkerResult(GpuMemoryError.exit_code, failure)
    if any(out_of_host_memory(link) for link in links):
        return WorkerResult(
            HostMemoryError.exit_code,
            f"The machine's memory does not suffice ({failure}); lower dataloader workers, or give the step more"
            " memory.",
        )
    for link in links:
        ours = full(link) or not _in_plugin(link)
        place = storage_error(link, "use") if isinstance(link, OSError) and ours else None
        if place is not None:
            return WorkerResult.of(place)
    if (passing := storage_error(error, "use")) is not None:
        return WorkerResult.of(passing)
    if any(_NO_DEVICE.search(str(link)) for link in links):
        return WorkerResult(
            DeviceError.exit_code,
            f"The device can't be used ({failure}); check the driver and the GPU with nvidia-smi, or choose another"
            " --device.",
        )
    return _by_frames(error, failure, model, rows)


@contextlib.contextmanager
def blaming(model: Path) -> Iterator[None]:
    """Inside a `with` block, replace errors of ms-swift by the VaseErrors from `blame`. Bugs are raised unchanged."""
    try:
        yield
    except Exception as error:
        known = blame(error, model).raised()
        if known is None or isinstance(error, VaseError):
            raise
        traceback.print_exc()
        raise known from error


def is_ours(error: BaseException) -> bool:
    """Return True if the error was raised in this project's own code. Such an error is a bug."""
    frames = frames_of(error)
    return bool(frames) and Path(vasevqa.__file__).parent in Path(frames[-1].file).parents


def full(error: BaseException) -> bool:
    """Return True if `error` says that the GPU's memory, the machine's memory or the disk is full."""
    full_disk = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
    return full_disk or out_of_gpu_memory(error) or out_of_host_memory(error)


def _by_frames(error: BaseException, failure: str, model: Path | str, rows: Path | str | None) -> WorkerResult:
    for frame in reversed(frames_of(error)):
        if frame.file == _plugin():
            return WorkerResult(
                ConfigError.exit_code,
                f"{frame.file}, line {frame.line} raised {failure}; correct the file of rewards.",
            )
        if _of_rewards(frame):
            return WorkerResult(
                ConfigError.exit_code,
                f"A reward of ms-swift can't be used ({failure}); install its requirements, or remove it from"
                " reward_funcs.",
            )
        if _of_rows(frame):
            return WorkerResult(
                DataError.exit_code,
                f"ms-swift can't prepare the rows of {rows or 'the dataset'} ({failure}); correct or remove these"
                " rows (the log lists them).",
            )
        if _of_model(frame):
            return WorkerResult(
                DataError.exit_code,
                f"The model {model} can't be loaded ({failure}); copy the whole folder again, or give a"
                " vision-language model that transformers and ms-swift know.",
            )
    return WorkerResult(1, failure)


def _plugin() -> str:
    return os.environ.get("VASEVQA_REWARD_PLUGIN") or "no plugin"


def _in_plugin(error: BaseException) -> bool:
    return any(frame.file == _plugin() for frame in frames_of(error))


def _of_rewards(frame: Frame) -> bool:
    return "/swift/rewards/" in frame.file


def _of_rows(frame: Frame) -> bool:
    # A template's functions are also called in the forward pass. Only the functions that encode read a row.
    encodes = "encode" in frame.function and "post" not in frame.function
    return "/swift/dataset/" in frame.file or ("/swift/template/" in frame.file and encodes)


def _of_model(frame: Frame) -> bool:
    # swift/model also holds patches that run in every forward pass.
    return frame.file.endswith("/swift/model/register.py") or frame.function in _LOADING
