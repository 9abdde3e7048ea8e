"""Content digests of a user's files and folders, cached with the stat results of the files.

For unchanged files, the digest comes from the cache, and only stat calls are needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vasevqa import files, folders
from vasevqa.errors import ConfigError, DataError, StorageError, TransientStorageError, VaseError
from vasevqa.folders import OUTSIDE
from vasevqa.storage import patiently

T = TypeVar("T")

FAILURES = 3  # after the storage has failed for this many files, no further file is read
RACY = 2_000_000_000  # ns; a file that changed more recently could change again with the same mtime


def mark_of(status: os.stat_result | None) -> str:
    """Return a text that changes when a file changes.

    `status` is the stat result of the file, or None for a link that leads out of the volume.
    """
    if status is None:
        return OUTSIDE
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def _key(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _readable(path: Path) -> os.stat_result | None:
    """Return the stat result of `path` if it is a regular file that this process may read; otherwise None."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK) else None
    return None


def _with_tables(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("CREATE TABLE IF NOT EXISTS trees (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS files (path TEXT, name TEXT, mark TEXT, digest TEXT, PRIMARY KEY (path, name))"
        " WITHOUT ROWID"
    )
    return connection


def fingerprint(path: Path, volume: Path | None = None) -> str:
    """Return a fingerprint of a file or folder, to detect changes.

    The fingerprint depends on sizes, times and names, and not on the content. It covers the same files as the digest in
    a DigestCache. `volume` decides which links are followed (folders.boundary_of).
    """
    if not path.is_dir():
        return mark_of(path.stat())
    hasher = hashlib.sha256()
    for name, status in folders.listed(path, folders.boundary_of(path, volume)):
        hasher.update(f"{name}\0{mark_of(status)}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


class DigestCache:
    """Content digests by path, cached in `folder`. Several processes can use the cache at the same time (SQLite).

    A digest covers the files that stages read. It leaves out hidden files and files of other programs. If a link to a
    folder or to an image leads out of `volume`, the digest covers only the name of the link.
    """

    def __init__(self, folder: Path, volume: Path | None = None) -> None:
        self._path, self._volume = folder / "digests.sqlite", volume

    def _cached(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` with a connection to the cache, and return the result.

        If the cache is damaged or can't be written to, `work` gets an empty cache in memory.
        """
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as connection:
                return work(_with_tables(connection))
        except sqlite3.DatabaseError:
            with contextlib.closing(sqlite3.connect(":memory:")) as connection:
                return work(_with_tables(connection))

    def digest(self, path: Path) -> str:
        """Return the digest of a file's content, or of a folder's names and contents.

        Raise ConfigError if `path` doesn't exist, DataError if a file vanishes, and StorageError or
        TransientStorageError if the storage fails. Even after such an error, the digests of the files that could be
        read are cached.
        """
        if not path.exists():
            raise ConfigError(f"{path} does not exist; check the recipe's inputs.")
        return self._cached(lambda connection: self._digest(path.resolve(), connection))

    def of_files(self, folder: Path, names: Sequence[str], reading: bool = True) -> dict[str, str]:
        """Return the content digests of files by name (relative to `folder`). A file that can't be read is left out.

        With `reading=False`, no file is read: only cached digests are returned.
        """
        root, now = folder.resolve(), time.time_ns()
        listed = [(name, status) for name in names if (status := _readable(root / name)) is not None]

        def work(connection: sqlite3.Connection) -> dict[str, str]:
            return self._file_digests(root, _key(root), listed, connection, now, reading)[0]

        return self._cached(work)

    def _digest(self, path: Path, connection: sqlite3.Connection) -> str:
        now = time.time_ns()
        signature, key = fingerprint(path, self._volume), _key(path)
        row = connection.execute("SELECT stamp, digest FROM trees WHERE path = ?", (key,)).fetchone()
        if row is not None and row[0] == signature:
            return str(row[1])
        if path.is_dir():
            listed = list(folders.listed(path, folders.boundary_of(path, self._volume)))
            digests, errors = self._file_digests(path, key, listed, connection, now)
            _raise_first(errors)
            digest = files.digest_json(
                [[name.encode("utf-8", "backslashreplace").decode(), digests[name]] for name in sorted(digests)]
            )
            newest = max((max(status.st_mtime_ns, status.st_ctime_ns) for _, status in listed if status), default=0)
        else:
            status = path.stat()
            read, errors = _read(path.parent, [path.name])
            _raise_first(errors)
            digest, newest = read[path.name], max(status.st_mtime_ns, status.st_ctime_ns)
        if newest < now - RACY:
            _remember(connection, "INSERT OR REPLACE INTO trees VALUES (?, ?, ?)", [(key, signature, digest)])
        return digest

    def _file_digests(
        self,
        root: Path,
        key: str,
        listed: Sequence[tuple[str, os.stat_result | None]],
        connection: sqlite3.Connection,
        now: int,
        reading: bool = True,
    ) -> tuple[dict[str, str], dict[str, Exception]]:
        """Return two mappings by file name: the digests, and the errors of the files that couldn't be read.

        Read only the files without a cached digest, and cache their digests. With `reading=False`, no file is read.
        """
        known = {
            name: (mark, digest)
            for name, mark, digest in connection.execute("SELECT name, mark, digest FROM files WHERE path = ?", (key,))
        }
        digests: dict[str, str] = {}
        missing = []
        for name, status in listed:
            printable = name.encode("utf-8", "backslashreplace").decode()
            if status is None:
                digests[name] = OUTSIDE
            elif printable in known and known[printable][0] == mark_of(status):
                digests[name] = known[printable][1]
            elif reading:
                missing.append((name, printable, status))
        fresh, errors = _read(root, [name for name, _, _ in missing])
        rows = [
            (key, printable, mark_of(status), fresh[name])
            for name, printable, status in missing
            if name in fresh and max(status.st_mtime_ns, status.st_ctime_ns) < now - RACY
        ]
        _remember(connection, "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
        return {**digests, **fresh}, errors


def _read(root: Path, names: Sequence[str]) -> tuple[dict[str, str], dict[str, Exception]]:
    """Return two mappings by file name: the digests, and the errors of the files that couldn't be read.

    After the storage has failed for `FAILURES` files, no further file is read. The unread files are in neither mapping.
    """
    digests: dict[str, str] = {}
    errors: dict[str, Exception] = {}

    def read(name: str) -> None:
        path = root / name
        if sum(isinstance(error, StorageError | TransientStorageError) for error in list(errors.values())) >= FAILURES:
            return
        try:
            digests[name] = patiently(lambda: files.digest_file(path), path)
        except FileNotFoundError:
            errors[name] = DataError(
                f"{path} was removed while its content was read; start again, and don't change the folder meanwhile."
            )
        except (VaseError, OSError) as error:
            errors[name] = error

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, names))
    return digests, errors


def _raise_first(errors: Mapping[str, Exception]) -> None:
    for name in sorted(errors):
        raise errors[name]


def _remember(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Write rows to the cache. If the write fails, for example because the disk is full, do nothing."""
    with contextlib.suppress(sqlite3.DatabaseError):
        connection.executemany(statement, rows)
        connection.commit()
