"""A far end of a transfer on this machine, over pipes: the process that also runs in a pod, or a thread of its code."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from vasevqa.errors import ConnectionLost
from vasevqa.review.far_end import ReviewEnd
from vasevqa.transfer.connection import Connection
from vasevqa.transfer.far_end import served


class _Line:
    """The interface of `Process` over two pipes. The connection breaks after `limit` bytes in each direction."""

    pod = "pod"

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], limit: int) -> None:
        self.stdin, self.stdout, self.left, self.came = stdin, stdout, limit, b""
        os.set_blocking(self.stdout.fileno(), False)

    @property
    def has_ended(self) -> bool:
        raise NotImplementedError

    @property
    def over(self) -> bool:
        return self.has_ended and not self.came

    def write(self, block: bytes) -> None:
        try:
            self.stdin.write(self._carried(block))
            self.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise ConnectionLost("the far end has ended") from None

    def read(self, seconds: float) -> None:
        try:
            if select.select([self.stdout], [], [], seconds)[0]:
                self.came += self._carried(self.stdout.read() or b"")
        except ValueError:
            raise ConnectionLost("the connection was closed") from None

    def _carried(self, block: bytes) -> bytes:
        self.left -= len(block)
        if self.left < 0:
            self.close()
            raise ConnectionLost("cut")
        return block

    def taken(self) -> bytes:
        block, self.came = self.came, b""
        return block

    def errors(self) -> bytes:
        return b""

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                stream.close()


class Pipe(_Line):
    """A far end that is a process."""

    def __init__(self, root: Path, limit: int = 1 << 40, module: str = "vasevqa.transfer") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        super().__init__(self.process.stdin, self.process.stdout, limit)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def errors(self) -> bytes:
        return self.process.stderr.read() if self.over and self.process.stderr else b""

    def close(self) -> None:
        self.process.kill()
        super().close()
        self.process.wait()


class Threaded(_Line):
    """A review's far end that is a thread, which starts at once."""

    def __init__(self, root: Path, limit: int) -> None:
        requests, stdin = os.pipe()
        stdout, answers = os.pipe()
        super().__init__(os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb", 0), limit)

        def serve() -> None:
            with os.fdopen(requests, "rb") as given, os.fdopen(answers, "wb") as said, contextlib.suppress(OSError):
                served(ReviewEnd(root, given, said))

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()

    @property
    def has_ended(self) -> bool:
        return not self.thread.is_alive()


@dataclass
class LocalFar:
    """The far end of a review at `root`. Each connection breaks after the next of `limits`, if there is one."""

    root: Path
    limits: list[int] = field(default_factory=list)
    lines: list[_Line] = field(default_factory=list)

    def connect(self) -> Connection:
        self.lines.append(Threaded(self.root, self.limits.pop(0) if self.limits else 1 << 40))
        return Connection(self.lines[-1])  # type: ignore[arg-type]

    def close(self) -> None:
        for line in self.lines:
            line.close()
