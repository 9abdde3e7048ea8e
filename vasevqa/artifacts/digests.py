"""Content digests of a user's files and folders, cached by their stat results.

A second digest of unchanged files needs only stat calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vasevqa import files, folders
from vasevqa.errors import ConfigError
from vasevqa.folders import OUTSIDE

T = TypeVar("T")

RACY = 2_000_000_000  # ns; a file that changed more recently could change again with the same mtime


def mark_of(status: os.stat_result | None) -> str:
    """Return a text that changes when a file changes. None stands for a link that leads out of the volume."""
    if status is None:
        return OUTSIDE
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def _key(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _readable(path: Path) -> os.stat_result | None:
    """Return the stat result of a regular file that this process may read, and otherwise None."""
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

    The fingerprint depends on sizes, times and names, and not on the content. It covers the same files as a digest.
    Links may lead anywhere within `volume` (folders.boundary_of).
    """
    if not path.is_dir():
        return mark_of(path.stat())
    hasher = hashlib.sha256()
    for name, status in folders.listed(path, folders.boundary_of(path, volume)):
        hasher.update(f"{name}\0{mark_of(status)}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


class DigestCache:
    """Content digests by path, cached in `folder`. Several processes can use the cache at the same time (SQLite).

    A digest covers the files that stages read. It leaves out hidden files, files of other programs, and links that lead
    out of `volume`.
    """

    def __init__(self, folder: Path, volume: Path | None = None) -> None:
        self._path, self._volume = folder / "digests.sqlite", volume

    def _cached(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` with the cache. With a damaged cache or a read-only volume, the cache is in memory."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as connection:
                return work(_with_tables(connection))
        except (sqlite3.DatabaseError, OSError):
            with contextlib.closing(sqlite3.connect(":memory:")) as connection:
                return work(_with_tables(connection))

    def digest(self, path: Path) -> str:
        """Return the digest of a file's content, or of a folder's names and contents.

        Raises ConfigError if `path` doesn't exist.
        """
        if not path.exists():
            raise ConfigError(f"{path} does not exist; check the recipe's inputs.")
        return self._cached(lambda connection: self._digest(path.resolve(), connection))

    def of_files(self, folder: Path, names: Sequence[str], reading: bool = True) -> dict[str, str]:
        """Return the content digests of files by name (relative to `folder`).

        A file that can't be read is left out. With `reading=False` no file is read: only cached digests are returned.
        """
        root, now = folder.resolve(), time.time_ns()
        listed = [(name, status) for name in names if (status := _readable(root / name)) is not None]

        def work(connection: sqlite3.Connection) -> dict[str, str]:
            digests = self._file_digests(root, _key(root), listed, connection, now, reading)
            connection.commit()
            return digests

        try:
            return self._cached(work)
        except OSError:  # a file vanished
            return {}

    def _digest(self, path: Path, connection: sqlite3.Connection) -> str:
        now = time.time_ns()
        signature, key = fingerprint(path, self._volume), _key(path)
        row = connection.execute("SELECT stamp, digest FROM trees WHERE path = ?", (key,)).fetchone()
        if row is not None and row[0] == signature:
            return str(row[1])
        if path.is_dir():
            listed = list(folders.listed(path, folders.boundary_of(path, self._volume)))
            digests = self._file_digests(path, key, listed, connection, now)
            digest = files.digest_json(
                [[name.encode("utf-8", "backslashreplace").decode(), digests[name]] for name in sorted(digests)]
            )
            newest = max((max(status.st_mtime_ns, status.st_ctime_ns) for _, status in listed if status), default=0)
        else:
            digest, status = files.digest_file(path), path.stat()
            newest = max(status.st_mtime_ns, status.st_ctime_ns)
        if newest < now - RACY:
            connection.execute("INSERT OR REPLACE INTO trees VALUES (?, ?, ?)", (key, signature, digest))
        connection.commit()
        return digest

    def _file_digests(
        self,
        root: Path,
        key: str,
        listed: Sequence[tuple[str, os.stat_result | None]],
        connection: sqlite3.Connection,
        now: int,
        reading: bool = True,
    ) -> dict[str, str]:
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
        with ThreadPoolExecutor(4) as pool:
            fresh = list(pool.map(lambda item: files.digest_file(root / item[0]), missing))
        for (name, printable, status), digest in zip(missing, fresh, strict=True):
            digests[name] = digest
            if max(status.st_mtime_ns, status.st_ctime_ns) < now - RACY:
                connection.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (key, printable, mark_of(status), digest)
                )
        return digests
