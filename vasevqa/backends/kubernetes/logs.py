"""Read a pod's output without gaps and repetitions, and write it to the job's log."""

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
PIECE = 16384  # bytes: the container runtime splits longer lines into pieces of this size, each with its own timestamp
PATIENCE = 15.0  # seconds to get the rest of the output after a pod has ended
PAUSE = 1.0
PENDING = 4 << 20  # bytes that are kept while the log can't be written


def unstamped(line: bytes) -> tuple[bytes, bytes]:
    """Split a line into its timestamp and its text.

    The kubelet splits a long line into pieces, and may add a timestamp to each piece. These timestamps are removed too.
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
    """Filters out the lines that the server sends a second time after a connection broke.

    `last` is the timestamp of the last received line. All lines with an older timestamp are removed, because they were
    received before. Several lines may have exactly the timestamp `last`. If n such lines were received before the
    connection broke, the first n such lines of the new connection are removed.
    """

    def __init__(self) -> None:
        self.last = b""
        self._count = 0  # number of received lines with the timestamp `last`
        self._again = 0  # number of lines with this timestamp that the present connection has sent

    def reconnected(self) -> str:
        """Prepare for a new connection, and return the timestamp of the first line to request.

        The timestamp is in whole seconds, because the server accepts no fractions. It is empty if no line was received
        yet.
        """
        self._again = 0
        return re.sub(r"\.\d+", "", self.last.decode())

    def fresh(self, lines: Iterable[bytes]) -> list[bytes]:
        """Return the new lines, without their timestamps.

        Lines without a timestamp are left out, because they are messages of the kubelet about a lost log.
        """
        return [text for stamp, text in map(unstamped, lines) if stamp and self.new(stamp)]

    def new(self, stamp: bytes) -> bool:
        """Count the next line, and return True if it was not received before; `stamp` is the line's timestamp."""
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
    """Writes one pod's output into the job's log, always at the same offsets.

    Several launchers may write the output of the same pod, at the same time or one after the other. All of them write
    the same bytes at the same offsets.

    To find its offset, the class searches the file for the beginning of the output that it received. Usually the
    beginning is at the start of the file. It is further on in the file if the kubelet has meanwhile deleted the first
    lines of the output. If the file does not contain the beginning, because another pod of the same Job wrote the file,
    the output is added at the end of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._place: int | None = None
        self._pending = b""

    def write(self, block: bytes) -> None:
        """Write `block`, which consists of whole lines.

        A full disk does not cause an error. Bytes that can't be written are kept until the next call. If more than
        `PENDING` bytes are kept, all of them are dropped.
        """
        self._pending += block
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if self._place is None:
                fcntl.flock(
                    self._descriptor, fcntl.LOCK_EX
                )  # only one launcher at a time may look for the end of another pod's output
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
        """Return the offset at which `block` must be in the file; the block is the beginning of the output.

        If the file already contains the block or its first part, return the offset of that text. Otherwise return the
        end of the file.
        """
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
    """A thread that reads the output of `pod` to the end, and connects again when the connection breaks.

    `done` is True once the thread has finished. The thread finishes when all output has arrived, after a call of
    `close`, or `PATIENCE` seconds after the pod's end.
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
        """Make the thread stop when the next lines arrive."""
        self._closing.set()

    def take(self) -> str:
        """Return the text that has arrived since the last call.

        The caller must hold the condition that the constructor got as `news`.
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
            over = self._over()  # checked before the read: if the pod has ended, the read gets all its output
            try:
                whole = self._read()
            except ClusterUnreachable:
                whole = False
            except (
                ClusterError
            ) as error:  # missing rights, an expired login or a certificate may be repaired while the stage runs
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
        """Wait until the pod has ended or `close` was called, but at most `PAUSE` seconds.

        The wait is short, because a log rotation may have ended the stream although the output continues.
        """
        with self._news:
            self._news.wait_for(lambda: self._closing.is_set() or self._over(), PAUSE)

    def _read(self) -> bool:
        """Read until the stream ends; return False if `close` was called before the end.

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
