"""Receive files for a volume, and send files of the volume, over one connection.

`python -m vasevqa.transfer ROOT` runs in a pod and serves one connection. Requests are JSON lines on stdin; bytes
follow a `put` request. Answers are JSON lines on stdout; bytes follow an answer with `data`.

A file is first written under a temporary name that contains the digest of the content, so an interrupted transfer can
resume. After the digest is verified, the file gets its final name. Paths outside ROOT are refused.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vasevqa import files
from vasevqa.errors import ConfigError, VaseError, storage_error
from vasevqa.transfer.paths import inside, standing, write
from vasevqa.transfer.walking import OUTSIDE, walk

OURS = ("artifacts", "runs")  # folders of the volume that only launchers and stages write to
ALIVE = Path("/tmp/vasevqa-transfer")  # noqa: S108 - inside the pod; touched at each request


class FarEnd:
    """Answers the requests that arrive on one connection."""

    def __init__(self, root: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
        self.root, self.requests, self.answers = root, requests, answers

    def serve(self) -> None:
        """Answer requests until the connection ends."""
        while line := self.requests.readline():
            alive()
            request = json.loads(line)
            getattr(self, f"do_{request.pop('do')}")(**request)

    def say(self, payload: bytes = b"", **answer: Any) -> None:
        """Send one answer, followed by `payload`."""
        self.answers.write(json.dumps(answer).encode() + b"\n" + payload)
        self.answers.flush()

    def do_check(self, path: str, size: int, sha256: str) -> None:
        """Send the number of bytes of a file that are already on the volume, or null if the file is complete."""
        self.say(path=path, have=standing(self._target(path), size, sha256))

    def do_put(self, path: str, offset: int, length: int, sha256: str, last: bool) -> None:
        """Write a block of a file. After the last block, send whether the content has the right digest."""
        block = self.requests.read(length)
        if len(block) < length:
            raise EOFError
        good = write(self._target(path), offset, block, sha256, last)
        if last:
            self.say(path=path, written=good)

    def do_list(self, path: str) -> None:
        """Send the name, size and digest of each file below `path`, and why files are skipped."""
        top = inside(self.root, path)
        if not top.exists():
            raise ConfigError(f"There is no {path} on the volume.")

        def skip(name: str, reason: str) -> None:
            self.say(skipped=name, reason="a link out of the volume" if reason == OUTSIDE else reason)

        for name, file in walk(top.resolve(), skip, boundary=self.root):
            alive()
            try:
                self.say(name=name, size=file.stat().st_size, sha256=files.digest_file(file))
            except FileNotFoundError:
                skip(name, "removed during the transfer")
        self.say(listed=path)

    def do_get(self, path: str, name: str, offset: int, length: int) -> None:
        """Send a block of a file."""
        source = inside(self.root, path).resolve()
        source = source / name if name else source
        with open(inside(self.root, source.relative_to(self.root.resolve()).as_posix()), "rb") as stream:
            stream.seek(offset)
            block = stream.read(length)
        self.say(block, name=name, offset=offset, data=len(block))

    def _target(self, path: str) -> Path:
        pure = PurePosixPath(path)
        if not pure.parts or pure.parts[0] in OURS or pure.parts[0].startswith("."):
            raise ConfigError(
                f"'{path}' can't be written: {', '.join(OURS)} and hidden folders of the volume belong to the launcher;"
                " choose another folder."
            )
        return inside(self.root, path)


def alive() -> None:
    """Record activity. The idle time of the pod then starts again from zero."""
    ALIVE.touch()


def wait(idle: float) -> None:
    """Return after `idle` seconds without activity. So a pod that nobody uses ends by itself."""
    alive()
    while time.time() - ALIVE.stat().st_mtime < idle:
        time.sleep(min(idle, 5.0))


def main(arguments: list[str]) -> int:
    """Run the process in the pod, and return its exit code.

    With the argument ROOT, serve one connection. With `--wait SECONDS`, keep the pod running.
    """
    if arguments[0] == "--wait":
        wait(float(arguments[1]))
        return 0
    return served(FarEnd(Path(arguments[0]), sys.stdin.buffer, sys.stdout.buffer))


def served(far: FarEnd) -> int:
    """Serve one connection until it ends, and return the exit code. If an error ends the connection, send the error."""
    try:
        far.serve()
    except (EOFError, BrokenPipeError):  # the connection is lost; received data is kept
        return 0
    except VaseError as error:
        far.say(error=str(error), code=error.exit_code)
        return error.exit_code
    except OSError as error:
        known = storage_error(error, "write or read", error.filename)
        far.say(
            error=str(known or f"Could not write or read {error.filename}: {error.strerror}."),
            code=known.exit_code if known else 1,
        )
        return 1
    return 0
