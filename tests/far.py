"""A far end of a transfer on this machine, over pipes. It is the process that also runs in a pod."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.errors import ConnectionLost
from vasevqa.transfer.connection import Connection


class Pipe:
    """A far end with the interface of `Process`. The connection breaks after `limit` bytes in each direction."""

    pod = "pod"

    def __init__(self, root: Path, limit: int = 1 << 40, module: str = "vasevqa.transfer") -> None:
        self.left = limit
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdout.fileno(), False)
        self.came = b""

    @property
    def over(self) -> bool:
        return self.process.poll() is not None and not self.came

    def write(self, block: bytes) -> None:
        try:
            self.stdin.write(self._carried(block))
            self.stdin.flush()
        except BrokenPipeError:
            raise ConnectionLost("the far end has ended") from None

    def read(self, seconds: float) -> None:
        if select.select([self.stdout], [], [], seconds)[0]:
            self.came += self._carried(self.stdout.read() or b"")

    def _carried(self, block: bytes) -> bytes:
        self.left -= len(block)
        if self.left < 0:
            self.process.kill()
            raise ConnectionLost("cut")
        return block

    def taken(self) -> bytes:
        block, self.came = self.came, b""
        return block

    def errors(self) -> bytes:
        return self.process.stderr.read() if self.over and self.process.stderr else b""

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class LocalFar:
    """The far end of a volume at `root`. Each connection breaks after the next of `limits`, if there is one."""

    root: Path
    module: str = "vasevqa.review"
    limits: list[int] = field(default_factory=list)
    pipes: list[Pipe] = field(default_factory=list)

    def connect(self) -> Connection:
        self.pipes.append(Pipe(self.root, self.limits.pop(0) if self.limits else 1 << 40, self.module))
        return Connection(self.pipes[-1])  # type: ignore[arg-type]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
