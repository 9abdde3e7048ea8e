"""List the files of an artifact with their digests, and verify the files against artifact.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.artifacts.lease import Lease
from vasevqa.errors import DataError

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


def list_files(root: Path, known: Mapping[str, str] | None = None) -> dict[str, dict[str, object]]:
    """Return the size in bytes and the SHA-256 of every file below `root` (except artifact.json), by relative name.

    `known` maps the names of hard links to the digests of the linked files. These digests are not computed again.
    """
    known = known or {}
    sizes = {name: entry.stat(follow_symlinks=False).st_size for name, entry in tree(root)}
    unknown = [name for name in sizes if name not in known]
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = dict(zip(unknown, pool.map(lambda name: files.digest_file(root / name), unknown), strict=True))
    return {name: {"size": size, "sha256": known.get(name) or digests[name]} for name, size in sorted(sizes.items())}


def verify(root: Path, lease: Lease | None = None) -> dict[str, object]:
    """Compare the folder with its artifact.json, and return the record.

    For a hard link to a file of another artifact, only the size is compared, because the other artifact was verified
    before. Raise DataError with the name of the first file that differs. Raise LeaseLost if `lease` is lost meanwhile.
    """
    record: dict[str, Any] = json.loads((root / RECORD).read_text(encoding="utf-8"))
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
