"""Store the values that a stage computed for photographs, and find them by the photographs' content.

The values are on the volume, in `.cache/known`. Each combination of stage, model and settings has its own SQLite file.
A later run with more photographs computes only the values of new photographs. The store is only a cache. If it is
damaged, or if the disk is full, the stage computes the values again. There are at most `KEPT` of these files, and the
values in one file take at most `LARGEST` bytes. The files and the values that were used longest ago are removed first.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.artifacts.contents import RECORD
from vasevqa.artifacts.digests import DigestCache, mark_of

FOLDER = ".cache/known"
KEPT = 12  # files; the file that was used longest ago is removed first
LARGEST = 1 << 30  # bytes: the CLIP embeddings of about 300,000 photographs
ROW = 80  # bytes of a stored value besides the value itself
SECONDS = 10.0  # how long a stage waits for another stage that writes the same file


def content_digests(volume: Path, folder: Path, names: Sequence[str], reading: bool = True) -> dict[str, str]:
    """Return the SHA-256 of files by name (relative to `folder`). A file that can't be read is left out.

    An artifact's record holds the digests of its files. The digests of other files are cached on the volume. With
    `reading=False`, no file is read: only recorded and cached digests are returned.
    """
    artifact = files.immutable_root(folder / RECORD)
    if artifact is None:
        return DigestCache(volume / ".cache", volume).of_files(folder, names, reading)
    try:
        listed = recorded_digests(artifact)
        inside = folder.resolve().relative_to(artifact)
        paths = {name: (inside / name).as_posix() for name in names}
        return {name: listed[path] for name, path in paths.items() if path in listed}
    except (OSError, ValueError):
        return {}


def recorded_digests(artifact: Path) -> dict[str, str]:
    """Return the SHA-256 of an artifact's files by name, from its record. Return {} if the record is damaged."""
    try:
        listed: dict[str, Any] = json.loads((artifact / RECORD).read_text(encoding="utf-8"))["files"]
        return {name: row["sha256"] for name, row in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class KnownValues:
    """A store of values, which are found by the content digests of the photographs.

    `made_for` holds everything that the values depend on besides the photographs. It must have the key `stage`.
    """

    def __init__(self, volume: Path, made_for: Mapping[str, object]) -> None:
        self._made_for = files.digest_json(made_for)
        self._path = volume / FOLDER / f"{made_for['stage']}-{self._made_for[:16]}.sqlite"

    def find(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return the stored values by digest. Missing and damaged values are left out."""
        found: dict[str, bytes] = {}
        with self._tolerant():
            if not self._path.is_file():
                return found
            with contextlib.suppress(OSError):  # a read-only volume
                os.utime(self._path)
            with contextlib.closing(sqlite3.connect(self._path, timeout=SECONDS)) as connection:
                rows = connection.execute(
                    "SELECT digest, sum, value FROM known WHERE digest IN (SELECT value FROM json_each(?))",
                    [json.dumps(list(digests))],
                )
                for digest, check, value in rows:
                    if check == self._check(digest, value):
                        found[digest] = value
        return found

    def add(self, values: Mapping[str, bytes], used: Iterable[str] = ()) -> None:
        """Store `values` by digest, all in one transaction.

        `used` holds the digests of stored values that the stage used again.
        """
        with self._tolerant():
            self._make_room()
            with contextlib.closing(sqlite3.connect(self._path, timeout=SECONDS)) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS known (digest TEXT PRIMARY KEY, sum INTEGER, value BLOB) WITHOUT ROWID"
                )
                # The times are in their own table, so that a new time doesn't rewrite the value.
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS uses (digest TEXT PRIMARY KEY, time INTEGER) WITHOUT ROWID"
                )
                connection.executemany(
                    "INSERT OR REPLACE INTO known VALUES (?, ?, ?)",
                    [(digest, self._check(digest, value), value) for digest, value in values.items()],
                )
                connection.execute(
                    "INSERT OR REPLACE INTO uses SELECT DISTINCT value, ? FROM json_each(?)",
                    [time.time_ns(), json.dumps([*values, *used])],
                )
                _trim(connection)

    def _check(self, digest: str, value: object) -> int | None:
        """Return the checksum of a value, or None if the value isn't bytes.

        The checksum detects damaged values, and values that were made for another model.
        """
        return zlib.crc32(f"{self._made_for}{digest}".encode() + value) if isinstance(value, bytes) else None

    def _make_room(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        others = [path for path in self._path.parent.glob("*.sqlite") if path != self._path]
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
            _remove(path)

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Suppress all errors of the store, so that the stage continues without it. Remove a damaged file."""
        try:
            yield
        except (sqlite3.OperationalError, OSError):  # a full disk, a read-only volume, or a lock of another stage
            return
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                _remove(self._path)


def _trim(connection: sqlite3.Connection) -> None:
    """Remove the values that were used longest ago, until the rest takes at most `LARGEST` bytes.

    SQLite reuses the free space for new values.
    """
    pages, size = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    if pages * size <= LARGEST:
        return
    connection.execute(
        """
        DELETE FROM known WHERE digest IN (
            SELECT digest FROM (
                SELECT known.digest AS digest,
                    SUM(COALESCE(LENGTH(value), 0) + ?) OVER (ORDER BY COALESCE(time, 0) DESC, known.digest) AS kept
                FROM known LEFT JOIN uses ON uses.digest = known.digest
            ) WHERE kept > ?
        )
        """,
        [ROW, LARGEST],
    )
    connection.execute("DELETE FROM uses WHERE digest NOT IN (SELECT digest FROM known)")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # SQLite would apply the journal to a new file


class KnownPhotographs:
    """The stored values of a folder's photographs, by name. Without a volume, nothing is stored or found."""

    def __init__(self, volume: Path | None, folder: Path, names: Sequence[str], made_for: Mapping[str, object]) -> None:
        self._folder = folder
        self.values: dict[str, bytes] = {}
        self._marks: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._store = None if volume is None else KnownValues(volume, made_for)
        if volume is None or self._store is None:
            return
        self._marks = {name: self._mark(name) for name in names}
        self._digests = content_digests(volume, folder, names)
        found = self._store.find(set(self._digests.values()))
        self.values = {name: found[digest] for name, digest in self._digests.items() if digest in found}

    def _mark(self, name: str) -> str:
        try:
            return mark_of((self._folder / name).stat())
        except OSError:
            return ""

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Return the names of the photographs that have a content digest but no stored value."""
        return [name for name in names if name in self._digests and name not in self.values]

    def keep(self, values: Mapping[str, bytes]) -> None:
        """Store the new values of photographs, by name.

        If a photograph has changed since this object was made, its value is not stored.
        """
        fresh = {
            self._digests[name]: values[name] for name in self.lacking(values) if self._mark(name) == self._marks[name]
        }
        used = {self._digests[name] for name in self.values}
        if self._store is not None and (fresh or used):
            self._store.add(fresh, used)
