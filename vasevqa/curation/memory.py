"""Decode photographs one at a time if the memory doesn't suffice for several photographs."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

LONGEST_WAIT = 60.0  # in seconds; afterwards a thread decodes although other threads still do


class Turns:
    """A lock for decoding: either any number of threads decode at the same time, or one thread decodes alone."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # a forked child process has only one thread

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._decoding = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Wait until no thread decodes alone. Other threads may decode at the same time as the `with` block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._decoding += 1
        try:
            yield
        finally:
            with self._changed:
                self._decoding -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Prevent other threads from starting to decode during the `with` block.

        The block starts as soon as no other thread decodes, or after LONGEST_WAIT seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._decoding, LONGEST_WAIT)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


_TURNS = Turns()


def sparing(decode: Callable[[], T]) -> T:
    """Return `decode()`. If the memory doesn't suffice, call `decode` again while no other thread decodes.

    Raise MemoryError if the memory doesn't suffice for the second call either.
    """
    try:
        with _TURNS.shared():
            return decode()
    except MemoryError:
        pass  # the frames of the failed call, which hold pixels, are gone at the end of this clause
    with _TURNS.alone():
        return decode()
