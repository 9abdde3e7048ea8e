"""List the files of an artifact with their digests, and verify the files against artifact.json."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.artifacts.lease import Lease
from vasevqa.errors import DataError
from vasevqa.storage import patiently

RECORD = "artifact.json"


def tree(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the relative name and the entry of every file below `root`, except artifact.json."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif name != RECORD:
                    yield name, entry


def is_temporary(name: str) -> bool:
    """Return True if `name` is a temporary file of `files.writing`. A killed process leaves such files."""
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(".tmp")


def list_files(root: Path) -> dict[str, dict[str, object]]:
    """Return the size in bytes and the SHA-256 of every file below `root` (except artifact.json), by relative name."""
    sizes = {name: entry.stat(follow_symlinks=False).st_size for name, entry in tree(root)}
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = dict(zip(sizes, pool.map(lambda name: files.digest_file(root / name), sizes), strict=True))
    return {name: {"size": size, "sha256": digests[name]} for name, size in sorted(sizes.items())}


def read_record(root: Path) -> dict[str, Any] | None:
    """Return the content of artifact.json in `root`. Return None if the file is missing, empty or damaged.

    Raise StorageError or TransientStorageError if the storage fails.
    """
    path = root / RECORD
    try:
        record = json.loads(patiently(lambda: path.read_text(encoding="utf-8"), path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else None


def has_record(root: Path) -> bool:
    """Return True if `root` holds an artifact.json that is not damaged. An unchanged file is read only once."""
    path = root / RECORD
    try:
        status = patiently(path.stat, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return _has_record(root, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _has_record(root: Path, inode: int, size: int, changed: int) -> bool:
    return size > 0 and read_record(root) is not None


def differences(root: Path, known: dict[tuple[int, int], str] | None = None) -> list[str]:
    """Read all files of an artifact again, and return a text for each file that differs from artifact.json.

    `known` maps (device, inode) to the digest of each file that was read. So a file with several hard links is read
    only once. Raise StorageError or TransientStorageError if the storage fails; this doesn't mean that a file differs.
    """
    record, known = read_record(root), {} if known is None else known
    if record is None:
        return [f"{RECORD} is missing or damaged"]
    listed, found = dict(record["files"]), []
    for name, entry in sorted(tree(root)):
        if is_temporary(name):
            continue
        expected = listed.pop(name, None)
        if expected is None:
            found.append(f"{name} was added")
        elif _digest(root / name, entry, known) != expected.get("sha256"):
            found.append(f"{name} has other content")
    return found + [f"{name} is missing" for name in sorted(listed)]


def _digest(path: Path, entry: os.DirEntry[str], known: dict[tuple[int, int], str]) -> str:
    status = entry.stat(follow_symlinks=False)
    key = (status.st_dev, status.st_ino)
    if key not in known:
        known[key] = patiently(lambda: files.digest_file(path), path)
    return known[key]


def protect(root: Path) -> None:
    """Make all files of an artifact read-only. Folders stay writable, so that their owner can remove the artifact."""
    for name, entry in tree(root):
        if entry.is_file(follow_symlinks=False):
            files.protect(root / name)
    files.protect(root / RECORD)


def verify(root: Path, lease: Lease | None = None) -> dict[str, object]:
    """Compare the folder with its artifact.json, and return the record.

    For a hard link to a file of another artifact, only the size is compared, because the other artifact was verified
    before. Raise DataError with the name of the first file that differs. Raise LeaseLost if `lease` is lost meanwhile.
    """
    record = read_record(root)
    if record is None:
        if not root.is_dir():
            raise FileNotFoundError(root)
        raise DataError(f"{root / RECORD} is missing or damaged; remove {root} and run the step again.")
    listed: dict[str, dict[str, Any]] = dict(record["files"])
    for name, entry in tree(root):
        stat = entry.stat(follow_symlinks=False)
        if is_temporary(name):
            continue
        expected = listed.pop(name, None)
        if expected is None:
            raise DataError(
                f"{root / name} was added after its step had finished; remove {root} and run the step again."
            )
        if stat.st_size != expected["size"] or (
            stat.st_nlink == 1 and files.digest_file(root / name) != expected["sha256"]
        ):
            raise DataError(f"{root / name} differs from what its step wrote; remove {root} and run the step again.")
        if lease is not None:
            lease.check()
    if listed:
        raise DataError(
            f"{root / next(iter(listed))} is missing, although its step wrote it; remove {root} and run the step again."
        )
    return record
