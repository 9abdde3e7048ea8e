"""Errors for users.

Each has one sentence (what, where, what to do), an exit code, and says whether a retry can help.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import ClassVar


class VaseError(Exception):
    """Base of all expected errors: shown as one sentence, never as a stack trace.

    `exit_code` is the exit code of the process. `retry` says whether the same command can succeed later without a
    change by the user. Launchers decide by both.
    """

    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False


class ConfigError(VaseError):
    """Wrong usage, recipe or parameter."""

    exit_code = 2


class DataError(VaseError):
    """Input data that can't be used."""

    exit_code = 3


class GpuMemoryError(VaseError):
    """The GPU's memory doesn't suffice, even after the stage's own remedies."""

    exit_code = 4


class DeviceError(VaseError):
    """The requested device doesn't exist here. There is no silent fallback to another."""

    exit_code = 5


class GateError(VaseError):
    """A quality gate failed: a result was computed but isn't good enough to continue with."""

    exit_code = 6


class ClusterError(VaseError):
    """The cluster or the container engine can't do what was asked (sysexits' EX_UNAVAILABLE).

    It is unreachable, refuses, or has no place.
    """

    exit_code = 69


class ClusterUnreachable(ClusterError):
    """The cluster doesn't answer now. The launcher asks again; running jobs are unaffected."""

    retry = True


class ConnectionLost(ClusterError):
    """A connection to a pod was lost; a new one may continue. `moved`: some data was transferred on it."""

    retry = True
    moved = False


class StorageError(VaseError):
    """The volume is full, read-only or not permitted (sysexits' EX_IOERR)."""

    exit_code = 74


class Interrupted(VaseError):
    """Stopped from outside; the same step resumes where it was (EX_TEMPFAIL)."""

    exit_code = 75
    retry = True


class Terminated(KeyboardInterrupt):
    """SIGTERM reached a stage. It is no Exception, so that no `except Exception` catches it."""


class LeaseLost(Interrupted):
    """Another attempt owns this artifact now; this one must stop writing."""


STORAGE_ERRNOS = {
    errno.ENOSPC: "the disk is full; free some space (`vasevqa clean` lists what can go)",
    errno.EDQUOT: "the disk quota is exhausted; free some space or ask for more",
    errno.EROFS: "the file system is read-only; mount it writable or choose another folder",
    errno.EACCES: "permission is missing; check the owner and mode of the folder",
    errno.EPERM: "permission is missing; check the owner and mode of the folder",
}


def storage_error(error: OSError, doing: str, path: Path | str | None = None) -> StorageError | None:
    """Return the StorageError that explains `error` met while `doing` something, or None for another kind."""
    why = STORAGE_ERRNOS.get(error.errno or 0)
    if why is None:
        return None
    where = path or error.filename or "the volume"
    return StorageError(f"Could not {doing} {where}: {why}.")


# Messages of CUDA and its libraries for allocations outside torch's allocator, which raise no OutOfMemoryError.
_NO_GPU_MEMORY = re.compile(
    r"CUDA (error: )?out of memory|CU(BLAS|DNN|SPARSE|SOLVER|FFT)\w*_ALLOC(ATION)?_FAILED|Cuda failure .*out of memory"
)


def out_of_gpu_memory(error: BaseException) -> bool:
    """True if `error` says that a GPU's memory ran out. Doesn't import torch."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and _NO_GPU_MEMORY.search(str(error)) is not None
    )


def invalid_yaml(where: object, error: Exception, hint: str = "correct it") -> ConfigError:
    """Return the ConfigError for a file that isn't YAML or isn't UTF-8; `error` is what reading it raised."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    line = f", line {mark.line + 1}" if mark else ""
    return ConfigError(f"{where}{line}: this is not valid YAML ({problem or 'not a text in UTF-8'}); {hint}.")
