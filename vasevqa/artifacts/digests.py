"""Content digests of a user's files and folders, cached by their stat results.

For unchanged files, a second digest costs stat calls only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vasevqa import files
from vasevqa.errors import ConfigError

RACY = 2_000_000_000  # ns: a file changed this recently could change again with the same mtime


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield relative names and stat results of all files below `root` in a fixed order.

    Links are followed, and each folder is visited once.
    """
    seen: set[tuple[int, int]] = set()
    pending = [(os.fspath(root), "")]
    while pending:
        folder, prefix = pending.pop()
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            try:
                is_folder, status = entry.is_dir(), entry.stat()
            except OSError:  # a broken link or a loop of links has no content
                continue
            if is_folder:
                pending.append((entry.path, f"{prefix}{entry.name}/"))
            elif entry.is_file():
                yield prefix + entry.name, status


def _mark(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def fingerprint(path: Path) -> str:
    """Return a cheap signature of a file or folder (sizes, times and names, no content) to detect changes."""
    if not path.is_dir():
        return _mark(path.stat())
    hasher = hashlib.sha256()
    for name, status in _walk(path):
        hasher.update(f"{name}\0{_mark(status)}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


class DigestCache:
    """Content digests by path, cached on the volume. Safe for several processes (SQLite)."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "digests.sqlite"

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=60)
        connection.execute("CREATE TABLE IF NOT EXISTS trees (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS files (path TEXT, name TEXT, mark TEXT, digest TEXT, PRIMARY KEY (path, name))"
            " WITHOUT ROWID"
        )
        return connection

    def digest(self, path: Path) -> str:
        """Return the digest of a file's content, or of a folder's names and contents.

        Raises ConfigError if `path` doesn't exist.
        """
        if not path.exists():
            raise ConfigError(f"{path} does not exist; check the recipe's inputs.")
        try:
            with contextlib.closing(self._connect()) as connection:
                return self._digest(path.resolve(), connection)
        except (sqlite3.DatabaseError, OSError):
            # With a damaged cache or a read-only volume, planning is slower but still works.
            with contextlib.closing(sqlite3.connect(":memory:")) as connection:
                connection.execute("CREATE TABLE trees (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
                connection.execute(
                    "CREATE TABLE files (path TEXT, name TEXT, mark TEXT, digest TEXT, PRIMARY KEY (path, name))"
                )
                return self._digest(path.resolve(), connection)

    def _digest(self, path: Path, connection: sqlite3.Connection) -> str:
        now = time.time_ns()
        signature, key = fingerprint(path), os.fsencode(path).decode("utf-8", "backslashreplace")
        row = connection.execute("SELECT stamp, digest FROM trees WHERE path = ?", (key,)).fetchone()
        if row is not None and row[0] == signature:
            return str(row[1])
        if path.is_dir():
            listed = list(_walk(path))
            digests = self._file_digests(path, key, listed, connection, now)
            digest = files.digest_json(
                [[name.encode("utf-8", "backslashreplace").decode(), digests[name]] for name in sorted(digests)]
            )
            newest = max((max(status.st_mtime_ns, status.st_ctime_ns) for _, status in listed), default=0)
        else:
            digest, status = files.digest_file(path), path.stat()
            newest = max(status.st_mtime_ns, status.st_ctime_ns)
        if newest < now - RACY:
            connection.execute("INSERT OR REPLACE INTO trees VALUES (?, ?, ?)", (key, signature, digest))
        connection.commit()
        return digest

    def _file_digests(
        self, root: Path, key: str, listed: list[tuple[str, os.stat_result]], connection: sqlite3.Connection, now: int
    ) -> dict[str, str]:
        known = {
            name: (mark, digest)
            for name, mark, digest in connection.execute("SELECT name, mark, digest FROM files WHERE path = ?", (key,))
        }
        digests: dict[str, str] = {}
        missing = []
        for name, status in listed:
            printable = name.encode("utf-8", "backslashreplace").decode()
            if printable in known and known[printable][0] == _mark(status):
                digests[name] = known[printable][1]
            else:
                missing.append((name, printable, status))
        with ThreadPoolExecutor(4) as pool:
            fresh = list(pool.map(lambda item: files.digest_file(root / item[0]), missing))
        for (name, printable, status), digest in zip(missing, fresh, strict=True):
            digests[name] = digest
            if max(status.st_mtime_ns, status.st_ctime_ns) < now - RACY:
                connection.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (key, printable, _mark(status), digest)
                )
        return digests
