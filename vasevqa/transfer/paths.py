"""Rules for both ends of a transfer: where to write a file, and how to complete a file."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from vasevqa import files
from vasevqa.errors import ClusterError, ConfigError
from vasevqa.text import plain

CHUNK = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


def inside(root: Path, name: str) -> Path:
    """Return the path of `name` below `root`.

    Raise ConfigError if `name` is absolute, or if `..` or a link in `name` leads out of `root`.
    """
    pure = PurePosixPath(name)
    path = root.joinpath(*pure.parts) if not pure.is_absolute() else root
    if pure.is_absolute() or ".." in pure.parts or not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"'{name}' leads outside the volume; give a path inside it.")
    return path


def checked_digest(digest: object) -> str:
    """Return `digest` if it is a SHA-256 in hexadecimal.

    Raise ClusterError for any other value. The other end is not trusted, and the digest becomes a part of a file name.
    """
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ClusterError(
            f"The other end of the transfer sent '{plain(str(digest))[:80]}' as the digest of a file, which is not 64"
            " hexadecimal digits; check that the image has this version of vasevqa."
        )
    return digest


def part_of(path: Path, digest: str) -> Path:
    """Return the temporary path where the content of `path` is stored until it is complete and verified.

    Raise ClusterError unless `digest` is a SHA-256.
    """
    return path.parent / f".{files.cut_name(path.name)}.{checked_digest(digest)[:16]}.part"


def standing(path: Path, size: int, digest: str) -> int | None:
    """Return how many bytes an earlier transfer has received; None if the file is complete and has this digest."""
    if path.is_file() and path.stat().st_size == size and files.digest_file(path) == digest:
        return None
    part = part_of(path, digest)
    have = part.stat().st_size if part.is_file() else 0
    return have if have < size else 0


def write(path: Path, offset: int, block: bytes, digest: str, last: bool) -> bool:
    """Write one block of a file; after the last block, check the digest and give the file its final name.

    Return False if the digest is wrong; the file is then deleted. Raise ConfigError if `path` is a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path, digest)
    with open(part, "r+b" if offset and part.is_file() else "wb") as stream:
        stream.seek(offset)
        stream.truncate()
        stream.write(block)
        # Files of one block are not synced, for speed. If the machine crashes, the next transfer sends them again.
        if last and offset:
            stream.flush()
            os.fsync(stream.fileno())
    if not last:
        return True
    if files.digest_file(part) != digest:
        part.unlink()
        return False
    if path.is_dir():
        part.unlink()
        raise ConfigError(
            f"{path} is a folder, and a file of the same name must be written there; rename one of the two."
        )
    os.replace(part, path)
    return True
