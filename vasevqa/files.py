"""Writes files atomically, and places images without copying where that is safe."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

FICLONE = 0x40049409  # linux/fs.h: make `dst` share the extents of `src` (btrfs, xfs)
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def writing(
    path: Path, mode: str = "wb", before_commit: Callable[[], None] | None = None, sync: bool = True
) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; it is renamed to `path` only when the block ends without an error.

    `before_commit` is called just before the rename and may raise (a lost lease). `sync=False` skips fsync: the many
    images of an artifact are synced once at its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:80]}.{os.getpid()}.{os.urandom(3).hex()}.tmp"
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(temporary, mode, encoding=encoding) as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        if before_commit is not None:
            before_commit()
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8)."""
    with writing(path, "w") as stream:
        stream.write(text)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, default=str) + "\n")


def copy(source: Path, target: Path) -> str:
    """Copy one file's content and times atomically, as a reflink where the file system can.

    Returns 'reflink' or 'copy'.
    """
    how = "copy"
    with writing(target, sync=False) as out, open(source, "rb") as stream:
        try:
            fcntl.ioctl(out.fileno(), FICLONE, stream.fileno())
            how = "reflink"
        except OSError:
            shutil.copyfileobj(stream, out, 1 << 20)
        stat = os.fstat(stream.fileno())
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return how


def immutable_root(path: Path) -> Path | None:
    """Return the complete artifact directory (with artifact.json) that holds `path`, or None."""
    for parent in path.resolve().parents:
        if (parent / "artifact.json").is_file() and parent.parent.parent.name == "artifacts":
            return parent
    return None


def place(source: Path, target: Path, immutable: bool | None = None) -> str:
    """Put `source` at `target`: a hard link if it belongs to a complete artifact, else a copy or reflink.

    A user's own file is never hard-linked, because editing it later would change our copy as well. `immutable` saves
    the lookup per file: pass `immutable_root(folder) is not None`. Returns 'link', 'reflink' or 'copy'. An existing
    target is replaced atomically.
    """
    if immutable is None:
        immutable = immutable_root(source) is not None
    if immutable:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name[:80]}.{os.getpid()}.{os.urandom(3).hex()}.tmp"
        try:
            os.link(source, temporary, follow_symlinks=True)
            os.replace(temporary, target)
            temporary.unlink(missing_ok=True)  # rename(2) does nothing when both are links to one inode
            return "link"
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in _NO_LINK:
                raise
    return copy(source, target)


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as stream:
        hasher = hashlib.sha256()
        while block := stream.read(1 << 20):
            hasher.update(block)
        return hasher.hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def free_bytes(path: Path) -> int:
    """Return the bytes free for the current user on the file system of `path` (or its nearest existing parent)."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
