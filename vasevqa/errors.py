"""The errors that a user can cause or see.

Each error has an exit code and a message of one sentence (what, where, what to do). `retry` says whether a retry can
help.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar


class VaseError(Exception):
    """Base class of all expected errors. An expected error is shown as one sentence, never as a stack trace.

    `exit_code` is the exit code of the process. `retry` says whether the same command can succeed later without a
    change by the user. Launchers use both values to decide about a retry.
    """

    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False


class ConfigError(VaseError):
    """A wrong command line, recipe or parameter."""

    exit_code = 2


class DataError(VaseError):
    """Input data that can't be used."""

    exit_code = 3


class GpuMemoryError(VaseError):
    """The GPU's memory is too small, even after the stage lowered its own memory use."""

    exit_code = 4


class DeviceError(VaseError):
    """The requested device doesn't exist here. No other device is used instead."""

    exit_code = 5


class GateError(VaseError):
    """A quality gate failed. The result exists, but it isn't good enough to continue with."""

    exit_code = 6


class ClusterError(VaseError):
    """The cluster or the container engine can't do what was asked (sysexits' EX_UNAVAILABLE).

    For example, the cluster can't be reached, refuses the request, or has no free resources.
    """

    exit_code = 69


class ClusterUnreachable(ClusterError):
    """The cluster doesn't answer now. The launcher asks again, and running jobs continue."""

    retry = True


class ConnectionLost(ClusterError):
    """A connection to a pod was lost. A new connection may work.

    `moved` is True if data had already been transferred.
    """

    retry = True
    moved = False


class HostMemoryError(VaseError):
    """The machine's memory, or the memory that the step may use, is too small (sysexits' EX_OSERR)."""

    exit_code = 71


class StorageError(VaseError):
    """The volume is full or read-only, or access is not permitted (sysexits' EX_IOERR)."""

    exit_code = 74


class Interrupted(VaseError):
    """The process was stopped from outside. If the step runs again, it resumes its work (sysexits' EX_TEMPFAIL)."""

    exit_code = 75
    retry = True


class TransientStorageError(Interrupted):
    """The storage failed, but another attempt may succeed.

    The error doesn't mean that files are damaged.
    """


class Terminated(KeyboardInterrupt):
    """A stage received SIGTERM.

    The class derives from BaseException, so that no `except Exception` catches the error.
    """


class LeaseLost(Interrupted):
    """This attempt no longer holds the lease of its artifact, and must stop writing.

    `taken_over` is True if another attempt holds the lease now. It is False if the storage failed for so long that
    another attempt may take over the lease.
    """

    def __init__(self, message: str, taken_over: bool = True) -> None:
        super().__init__(message)
        self.taken_over = taken_over


# Errors that a restart can't mend.
STORAGE_ERRNOS = {
    errno.ENOSPC: "the disk is full; free some space (`vasevqa clean` lists what can be removed)",
    errno.EDQUOT: "the disk quota is exhausted; free some space or ask for more",
    errno.EROFS: "the file system is read-only; mount it writable or choose another folder",
    errno.EACCES: "permission is missing; check the owner and mode of the file and its folder",
    errno.EPERM: "permission is missing; check the owner and mode of the file and its folder",
}

_SERVER = "check the volume or its server"
# Transient errors: what happened, and what to check if the error persists. They are no sign of a damaged file.
TRANSIENT_ERRNOS = {
    errno.EIO: ("the storage gave an input/output error (EIO)", _SERVER),
    errno.ESTALE: ("the storage no longer knows the open file (ESTALE)", _SERVER),
    errno.ENOLCK: ("the storage can't lock files now (ENOLCK)", _SERVER),
    errno.ETIMEDOUT: ("the storage did not answer in time (ETIMEDOUT)", _SERVER),
    errno.ENOTCONN: ("the storage is not connected (ENOTCONN)", _SERVER),
    errno.EREMOTEIO: ("the storage's server gave an input/output error (EREMOTEIO)", _SERVER),
    errno.EMFILE: ("this process has too many open files (EMFILE)", "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: ("this machine has too many open files (ENFILE)", "raise the machine's limit of open files"),
}
_LESS_MEMORY = "lower the batch size or the workers, or raise the step's memory in the recipe"
_OF_BOTH = (errno.ETIMEDOUT, errno.ENOTCONN)  # a mounted folder and a network connection give these errors
# Packages whose errors come from network connections. The packages in _SOCKETS use sockets, not files.
_SOCKETS = {"anyio", "asyncio", "http", "httpcore", "socket", "ssl", "urllib3", "websocket"}
_NETWORK = _SOCKETS | {"aiohttp", "hf_xet", "httpx", "huggingface_hub", "modelscope", "requests", "urllib"}
_TOLD = re.compile(r"(?:\(os error |\[Errno )([0-9]+)[)\]]")  # how Rust's and Arrow's readers write an errno


def storage_error(
    error: BaseException, doing: str, path: Path | str | None = None
) -> StorageError | TransientStorageError | HostMemoryError | None:
    """Return a VaseError for `error` if the storage failed or the system had no memory; otherwise None.

    The result is a HostMemoryError if the system had no memory for a call (ENOMEM). An error of a network connection
    gives None. Libraries wrap storage errors in errors of their own. So the function also searches the causes of
    `error` for a transient error and for ENOMEM. `doing` is the verb in the message of the result, such as `write`.
    """
    if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS and not _of_network(error):
        where = path or error.filename or "the volume"
        return StorageError(f"Could not {doing} {where}: {STORAGE_ERRNOS[error.errno]}.")
    links = list(_links(error))
    network = any(_of_network(link) for link in links)
    for link in links:
        if isinstance(link, TransientStorageError):
            return link
        number, file = _errno(link), getattr(link, "filename", None)
        told = file or (not network and (path or link is error))
        if number == errno.ENOMEM and not _of_network(link):
            return HostMemoryError(
                f"Could not {doing} {path or file or 'a file of the volume'}: the system had no memory for it (ENOMEM);"
                f" {_LESS_MEMORY}."
            )
        if number in TRANSIENT_ERRNOS and not _of_network(link) and (told or number not in _OF_BOTH):
            what, check = TRANSIENT_ERRNOS[number]
            return TransientStorageError(
                f"Could not {doing} {path or file or 'a file of the volume'}: {what}; another attempt may succeed, and"
                f" if it persists {check}."
            )
    return None


def _of_network(error: BaseException) -> bool:
    """Return True if `error` comes from a network connection.

    The function looks at the class of the error, and at the module that raised it. The errno can mislead: an SSLError
    may have errno 1, which is the number of EPERM, although no permission is missing.
    """
    if isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in _NETWORK:
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] in _SOCKETS


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and all errors that led to it, each error once.

    An error's `__cause__` and `__context__` are the errors that led to it.
    """
    seen: list[BaseException] = []
    pending = [error]
    while pending:
        link = pending.pop(0)
        if link not in seen:
            seen.append(link)
            yield link
            pending += [before for before in (link.__cause__, link.__context__) if before is not None]


def _errno(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = _TOLD.search(str(error))
    return int(told[1]) if told else 0


# Messages of CUDA and its libraries when an allocation fails outside torch's allocator (no OutOfMemoryError).
_NO_GPU_MEMORY = re.compile(
    r"CUDA (error: )?out of memory|CU(BLAS|DNN|SPARSE|SOLVER|FFT)\w*_ALLOC(ATION)?_FAILED|Cuda failure .*out of memory"
)


def out_of_gpu_memory(error: BaseException) -> bool:
    """Return whether `error` shows that a GPU has no memory left. torch is not imported."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and _NO_GPU_MEMORY.search(str(error)) is not None
    )


# Messages of torch when an allocation or a mapping of a file fails on the host.
_NO_HOST_MEMORY = re.compile(r"DefaultCPUAllocator: can't allocate memory|Cannot allocate memory")


def out_of_host_memory(error: BaseException) -> bool:
    """Return whether `error` shows that the machine's memory doesn't suffice. torch is not imported."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NO_HOST_MEMORY.search(str(error)) is not None
    )


def machine_error(error: BaseException, doing: str, path: Path | str | None = None) -> VaseError | None:
    """Return the storage or memory error that describes `error`, or None for any other error.

    The result is an error of the storage, of the host's memory or of the GPU's memory. The function also searches the
    causes of `error`. `doing` is the verb in the message of the result, such as `read`.
    """
    known = storage_error(error, doing, path)
    if known is not None:
        return known
    what = f"{doing} {path}" if path else doing
    for link in _links(error):
        if isinstance(link, (HostMemoryError, GpuMemoryError)):
            return link
        if out_of_gpu_memory(link):
            return GpuMemoryError(
                f"The GPU's memory does not suffice to {what}; lower the batch size, or use a larger GPU."
            )
        if out_of_host_memory(link):
            return HostMemoryError(f"The machine's memory does not suffice to {what}; {_LESS_MEMORY}.")
    return None


def invalid_yaml(where: object, error: Exception, hint: str = "correct it") -> ConfigError:
    """Return the ConfigError for a file that isn't YAML or isn't UTF-8.

    `error` is the exception from reading the file.
    """
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    line = f", line {mark.line + 1}" if mark else ""
    return ConfigError(f"{where}{line}: this is not valid YAML ({problem or 'not a text in UTF-8'}); {hint}.")
