"""Rules for both ends of a transfer: which files to transfer, where to write a file, and how to complete a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vasevqa import files
from vasevqa.errors import ConfigError

CHUNK = 1 << 20


def inside(root: Path, name: str) -> Path:
    """Return the path of `name` below `root`.

    Raise ConfigError if `name` is absolute, or if `..` or a link in `name` leads out of `root`.
    """
    pure = PurePosixPath(name)
    path = root.joinpath(*pure.parts) if not pure.is_absolute() else root
    if pure.is_absolute() or ".." in pure.parts or not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"'{name}' leads outside the volume; give a path inside it.")
    return path


def walk(top: Path) -> Iterator[tuple[str, Path]]:
    """Yield the relative name and the path of each file below `top`. If `top` itself is a file, the name is empty.

    Links to files are treated as files. Links to folders and unfinished files are skipped. Raise OSError if a folder
    can't be read.
    """
    if top.is_file():
        yield "", top
        return
    for folder, inner, names in os.walk(top, onerror=_fail):
        inner.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if not unfinished(name) and path.is_file():
                yield path.relative_to(top).as_posix(), path


def linked(top: Path) -> list[Path]:
    """Return the links to folders below `top`, which `walk` skips."""
    return [
        Path(folder) / name
        for folder, inner, _ in os.walk(top)
        for name in sorted(inner)
        if (Path(folder) / name).is_symlink()
    ]


def _fail(error: OSError) -> None:
    raise error


def unfinished(name: str) -> bool:
    """Return True if `name` is the temporary name of a file that is not complete yet."""
    return name.startswith(".") and name.endswith((".part", ".tmp"))


def part_of(path: Path, digest: str) -> Path:
    """Return the temporary path of the file `path`. It is used until the file is complete and has this digest."""
    return path.parent / f".{path.name[:80]}.{digest[:16]}.part"


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
