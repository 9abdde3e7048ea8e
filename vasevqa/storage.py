"""Read files from storage that may fail for a moment.

The functions tell errors of the storage from errors in the content of a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from vasevqa.errors import HostMemoryError, TransientStorageError, VaseError, machine_error, storage_error

T = TypeVar("T")

PAUSES = (0.1, 0.4, 1.2)  # seconds between the tries of one call
_HEAD = 1 << 20  # bytes at a file's start that are read to see whether the storage works
_FILES = 100  # maximum number of a folder's files that are read


def patiently(
    work: Callable[[], T], path: Path | str | None, doing: str = "read", sleep: Callable[[float], None] | None = None
) -> T:
    """Return the result of `work()`; if the storage fails, try again for about two seconds.

    Raise TransientStorageError if the storage still fails, and HostMemoryError if the system still has no memory for
    the call. Raise StorageError at once if the storage is full or read-only, or if access is not permitted. Other
    errors of `work` are raised unchanged.
    """
    pause = sleep or time.sleep
    for seconds in PAUSES:
        try:
            return work()
        except Exception as error:
            known = storage_error(error, doing, path)
            if known is None:
                raise
            if not isinstance(known, (TransientStorageError, HostMemoryError)):
                raise known from error
        pause(seconds)
    try:
        return work()
    except Exception as error:
        raise storage_error(error, doing, path) or error from error


def refuse_failed(error: BaseException, path: Path) -> None:
    """Raise a storage or memory error if such an error is the cause of `error`; otherwise return.

    A library raised `error` while it read the file or folder `path`. Libraries often hide the cause, so the function
    reads the beginning of each file again. If this works, the cause of `error` is the content, not the storage.
    """
    known: VaseError | None = machine_error(error, "read", path)
    if known is not None:
        raise known from error
    try:
        for file in islice(_files(path), _FILES):
            with file.open("rb") as stream:
                stream.read(_HEAD)
    except OSError as again:
        known = storage_error(again, "read")
        if known is not None:
            raise known from error


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in sorted(path.iterdir()) if file.is_file())
