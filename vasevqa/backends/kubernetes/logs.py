"""Follows a pod's output: passes each byte on once, and writes it to its place in the job's log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from vasevqa.backends.kubernetes.api import Api
from vasevqa.backends.kubernetes.stage_job import CONTAINER
from vasevqa.errors import ClusterError, ClusterUnreachable

STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ")
PIECE = (
    16384  # bytes: longer lines are kept by the container runtime in pieces of this size, each with a time of its own
)
PATIENCE = 15.0  # seconds in which the output of a pod that ended must be had
PAUSE = 1.0
PENDING = 4 << 20  # bytes kept for a log that can't be written just now


def unstamped(line: bytes) -> tuple[bytes, bytes]:
    """Return the time in front of a line, and the line without it.

    The kubelet may also put times in front of the further pieces of a long line. They are removed too.
    """
    first = STAMP.match(line)
    if first is None:
        return b"", line
    stamp, rest = first[1], line[first.end() :]
    if len(rest) <= PIECE:
        return stamp, rest
    parts = []
    while len(rest) > PIECE:
        parts.append(rest[:PIECE])
        rest = rest[PIECE:]
        again = STAMP.match(rest)
        rest = rest[again.end() :] if again else rest
    return stamp, b"".join([*parts, rest])


class Unseen:
    """Leaves out the lines that came before the connection broke.

    These are the lines older than the last time seen, and as many lines of that time as were seen.
    """

    def __init__(self) -> None:
        self.last = b""
        self._count = 0  # lines with that time so far
        self._again = 0  # of them, since the connection was made anew

    def reconnected(self) -> str:
        """Start again on a new connection, and return the time to ask from; empty before the first line.

        The time is in whole seconds, because the server understands nothing finer.
        """
        self._again = 0
        return re.sub(r"\.\d+", "", self.last.decode())

    def fresh(self, lines: Iterable[bytes]) -> list[bytes]:
        """Return the lines not seen yet, without the times in front of them.

        A line without a time comes from the kubelet and is about a log that it lost. Such a line is left out.
        """
        return [text for stamp, text in map(unstamped, lines) if stamp and self.new(stamp)]

    def new(self, stamp: bytes) -> bool:
        """Count a line of that time, and return True if the line was not seen yet."""
        if self.last and _order(stamp) < _order(self.last):
            return False
        if stamp == self.last:
            self._again += 1
            if self._again <= self._count:
                return False
        self.last, self._count = stamp, self._again if stamp == self.last else 1
        self._again = self._count
        return True


def _order(stamp: bytes) -> tuple[bytes, bytes]:
    whole, _, fraction = stamp.partition(b".")
    return whole.rstrip(b"Z"), fraction.rstrip(b"Z").ljust(9, b"0")


class Tee:
    """Writes one pod's output into the job's log, at fixed offsets.

    Another launcher may follow the same pod, at the same time or after a crash. It writes the same bytes at the same
    offsets.

    The class looks in the file for the place where the output begins. This is the start of the file, a later place if
    the kubelet deleted the beginning, or the end of the file if another pod of the same Job wrote before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._place: int | None = None
        self._pending = b""

    def write(self, block: bytes) -> None:
        """Write whole lines.

        A full disk must not stop the reading: what cannot be written now waits for the next call. More than PENDING
        waiting bytes are dropped.
        """
        self._pending += block
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if self._place is None:
                fcntl.flock(
                    self._descriptor, fcntl.LOCK_EX
                )  # another pod's end must be found by one launcher after the other
                try:
                    self._place = self._begin(self._pending)
                    self._flush()
                finally:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._flush()
        if len(self._pending) > PENDING:
            self._pending = b""
            self._place = None

    def _begin(self, block: bytes) -> int:
        """Return the offset in the file at which `block`, the beginning of the output, lies or has to go."""
        assert self._descriptor is not None
        size = os.fstat(self._descriptor).st_size
        content = os.pread(self._descriptor, size, 0)
        first = block[: block.find(b"\n") + 1]
        offset = 0 if content.startswith(first[:size]) else content.find(b"\n" + first) + 1 or size
        while offset < size:
            shared = min(len(block), size - offset)
            if content[offset : offset + shared] == block[:shared]:
                break
            offset = content.find(b"\n" + first, offset) + 1 or size
        return offset

    def _flush(self) -> None:
        assert self._descriptor is not None
        assert self._place is not None
        while self._pending:
            written = os.pwrite(self._descriptor, self._pending, self._place)
            self._place += written
            self._pending = self._pending[written:]

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Follower(threading.Thread):
    """Reads the output of `pod` to its end, and connects again when the connection breaks.

    `take` returns the text that nobody took yet. `done` is True once the reading has ended: all output came, or the
    rest did not come within PATIENCE seconds after the pod's end, or `close` was called.
    """

    def __init__(self, api: Api, pod: str, log: Path, news: threading.Condition, over: Callable[[], bool]) -> None:
        super().__init__(name=f"log {pod}", daemon=True)
        self.done = False
        self._api, self._pod, self._news, self._over = api, pod, news, over
        self._text: list[bytes] = []
        self._tee = Tee(log)
        self._unseen = Unseen()
        self._closing = threading.Event()

    def close(self) -> None:
        """Stop when the next lines arrive."""
        self._closing.set()

    def take(self) -> str:
        """Return the text since the last call.

        Call it with the condition held.
        """
        text, self._text = b"".join(self._text), []
        return text.decode("utf-8", "replace")

    def run(self) -> None:
        """Follow the output to its end."""
        try:
            self._follow()
        finally:
            self._tee.close()
            with self._news:
                self.done = True
                self._news.notify_all()

    def _follow(self) -> None:
        ended: float | None = None
        while not self._closing.is_set():
            over = self._over()  # before the reading: then nothing can come after it
            try:
                whole = self._read()
            except ClusterUnreachable:
                whole = False
            except ClusterError as error:  # rights, a login, a certificate: they may come back while the stage goes on
                if over or getattr(error, "status", None) == 404:
                    return
                whole = False
            if whole and over:
                return
            if over:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > PATIENCE:
                    return
            self._wait()

    def _wait(self) -> None:
        """Wait until there may be more output, for PAUSE seconds at most.

        The wait is short, because the stream ends at a log rotation just as it does at the end of the output.
        """
        with self._news:
            self._news.wait_for(lambda: self._closing.is_set() or self._over(), PAUSE)

    def _read(self) -> bool:
        """Read until the stream ends.

        Return False if `close` was called before.

        Raise ClusterUnreachable if the connection breaks.
        """
        for lines in self._api.log(self._pod, CONTAINER, self._unseen.reconnected()):
            if text := b"".join(self._unseen.fresh(lines)):
                self._tee.write(text)
                with self._news:
                    self._text.append(text)
                    self._news.notify_all()
            if self._closing.is_set():
                return False
        return True
