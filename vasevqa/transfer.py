"""Moves files to and from a volume over one connection. `python -m vasevqa.transfer ROOT` is the far end, which runs in a pod.

Requests are JSON lines on stdin, `put` followed by bytes; answers are JSON lines on stdout, `data` followed by bytes. A
file is written under a temporary name that its content's digest is part of, so that a broken transfer goes on where it was,
and takes its own name once the digest is right. No path leads out of ROOT.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vasevqa import files
from vasevqa.errors import ConfigError, VaseError, storage_error

CHUNK = 1 << 20
OURS = ("artifacts", "runs")  # written by launchers and stages alone
ALIVE = Path("/tmp/vasevqa-transfer")  # noqa: S108 - inside the pod: touched while somebody moves files


def inside(root: Path, name: str) -> Path:
    """The path that `name` means below `root`; ConfigError if it leads out of it, by dots or by links."""
    pure = PurePosixPath(name)
    path = root.joinpath(*pure.parts) if not pure.is_absolute() else root
    if pure.is_absolute() or ".." in pure.parts or not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"'{name}' leads out of the volume; give a path in it.")
    return path


def walk(top: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `top`, by its name relative to it; links to files count as files, links to folders are left out.

    OSError for a folder that can't be read.
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
    """The links to folders below `top`, which `walk` leaves out."""
    return [Path(folder) / name for folder, inner, _ in os.walk(top) for name in sorted(inner) if (Path(folder) / name).is_symlink()]


def _fail(error: OSError) -> None:
    raise error


def unfinished(name: str) -> bool:
    """True for the temporary name of a file on its way."""
    return name.startswith(".") and name.endswith((".part", ".tmp"))


def part_of(path: Path, digest: str) -> Path:
    """The temporary name of `path` while the content with this digest arrives."""
    return path.parent / f".{path.name[:80]}.{digest[:16]}.part"


def standing(path: Path, size: int, digest: str) -> int | None:
    """How many bytes of the file arrived earlier; None if it is here, with the right digest."""
    if path.is_file() and path.stat().st_size == size and files.digest_file(path) == digest:
        return None
    part = part_of(path, digest)
    have = part.stat().st_size if part.is_file() else 0
    return have if have < size else 0


def write(path: Path, offset: int, block: bytes, digest: str, last: bool) -> bool:
    """Write a block of the file that arrives; with the last one it takes its name. False if its digest is wrong: it is thrown away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path, digest)
    with open(part, "r+b" if offset and part.is_file() else "wb") as stream:
        stream.seek(offset)
        stream.truncate()
        stream.write(block)
        if last and offset:  # of thousands of small ones a crash of the machine may cost some: the next transfer sees it by their digests
            stream.flush()
            os.fsync(stream.fileno())
    if not last:
        return True
    if files.digest_file(part) != digest:
        part.unlink()
        return False
    if path.is_dir():
        part.unlink()
        raise ConfigError(f"{path} is a folder, and a file of that name was to be written; remove one of the two.")
    os.replace(part, path)
    return True


class _Far:
    """Answers the requests that arrive on one connection."""

    def __init__(self, root: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
        self.root, self.requests, self.answers = root, requests, answers

    def serve(self) -> None:
        while line := self.requests.readline():
            alive()
            request = json.loads(line)
            getattr(self, f"do_{request.pop('do')}")(**request)

    def say(self, payload: bytes = b"", **answer: Any) -> None:
        self.answers.write(json.dumps(answer).encode() + b"\n" + payload)
        self.answers.flush()

    def do_check(self, path: str, size: int, sha256: str) -> None:
        self.say(path=path, have=standing(self._target(path), size, sha256))

    def do_put(self, path: str, offset: int, length: int, sha256: str, last: bool) -> None:
        block = self.requests.read(length)
        if len(block) < length:
            raise EOFError
        good = write(self._target(path), offset, block, sha256, last)
        if last:
            self.say(path=path, written=good)

    def do_list(self, path: str) -> None:
        top = inside(self.root, path)
        if not top.exists():
            raise ConfigError(f"There is no {path} on the volume.")
        for name, found in walk(top.resolve()):
            alive()
            if not found.resolve().is_relative_to(self.root.resolve()):  # a link out of the volume
                continue
            self.say(name=name, size=found.stat().st_size, sha256=files.digest_file(found))
        self.say(listed=path)

    def do_get(self, path: str, name: str, offset: int, length: int) -> None:
        found = inside(self.root, path).resolve()
        found = found / name if name else found
        with open(inside(self.root, found.relative_to(self.root.resolve()).as_posix()), "rb") as stream:
            stream.seek(offset)
            block = stream.read(length)
        self.say(block, name=name, offset=offset, data=len(block))

    def _target(self, path: str) -> Path:
        pure = PurePosixPath(path)
        if not pure.parts or pure.parts[0] in OURS or pure.parts[0].startswith("."):
            raise ConfigError(f"'{path}' can't be written: {', '.join(OURS)} and hidden folders of the volume belong to the launcher; choose another folder.")
        return inside(self.root, path)


def alive() -> None:
    """Keep the pod for another while."""
    ALIVE.touch()


def wait(idle: float) -> None:
    """Return when nobody has moved anything for `idle` seconds: a pod that was left behind ends by itself."""
    alive()
    while time.time() - ALIVE.stat().st_mtime < idle:
        time.sleep(min(idle, 5.0))


def main(arguments: list[str]) -> int:
    """`ROOT` serves one connection, `--wait SECONDS` keeps a pod."""
    if arguments[0] == "--wait":
        wait(float(arguments[1]))
        return 0
    far = _Far(Path(arguments[0]), sys.stdin.buffer, sys.stdout.buffer)
    try:
        far.serve()
    except (EOFError, BrokenPipeError):  # the other side is gone; what has arrived is kept
        return 0
    except VaseError as error:
        far.say(error=str(error), code=error.exit_code)
        return error.exit_code
    except OSError as error:
        known = storage_error(error, "write or read", error.filename)
        far.say(error=str(known or f"Could not write or read {error.filename}: {error.strerror}."), code=known.exit_code if known else 1)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
