"""Read a container's output in a thread, write it to the log file, and keep new output for `watch`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from vasevqa.backends.base import State


class Follower(threading.Thread):
    """A thread that reads a container's output with the function `follow`.

    `follow` passes each block of output to `write`, and returns the final state of the container.

    Each byte has the same offset in the log file as in the container's output. So several launchers can follow the same
    container, at the same time or one after the other. They write the same bytes to the same offsets, and nothing is
    lost or duplicated.
    """

    def __init__(self, log: Path | None, news: threading.Condition, follow: Callable[[Follower], State]) -> None:
        super().__init__(name=f"follow {log.stem if log else ''}", daemon=True)
        self._log, self._news, self._follow = log, news, follow
        self._descriptor: int | None = None
        self._size = 0  # bytes of the output received so far
        self._pending = b""
        self._note = ""
        self._state = State.RUNNING

    def run(self) -> None:
        """Follow the output to its end."""
        state = State.GONE
        try:
            state = self._follow(self)
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)
            with self._news:
                self._state, self._note = state, ""
                self._news.notify_all()

    def write(self, block: bytes, position: int) -> None:
        """Add `block`, which begins at byte `position` of the output, but skip the part that was added before."""
        block = block[max(0, self._size - position) :]
        if not block:
            return
        if self._log is not None:
            with contextlib.suppress(OSError):  # on a full disk, `watch` must still get the output
                if self._descriptor is None:
                    self._descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
                os.pwrite(self._descriptor, block, self._size)
        with self._news:
            self._size += len(block)
            self._pending += block
            self._note = ""
            self._news.notify_all()

    def say(self, note: str) -> None:
        """Set the note that says what the container or its follower is waiting for."""
        with self._news:
            self._note = note
            self._news.notify_all()

    def news(self) -> tuple[State, str, str]:
        """Return the container's state, the output since the last call, and the note.

        While the container runs, the output ends with a complete line. The caller must hold the threading.Condition
        that was passed to the constructor.
        """
        cut = len(self._pending) if self._state.is_terminal else self._pending.rfind(b"\n") + 1
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return self._state, text.decode("utf-8", "replace"), self._note
