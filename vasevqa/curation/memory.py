"""Limit the memory of the photographs that are decoded at the same time.

Threads decode at most `PIXELS` pixels at once. If the memory still doesn't suffice, photographs are decoded one at a
time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

PIXELS = 256_000_000  # decoded at once by all threads; one pixel needs up to 24 bytes while it is decoded
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
    def shared(self, wait: bool = True) -> Iterator[None]:
        """Wait until no thread decodes alone. Then decode while other threads may decode too.

        With `wait=False`, start at once. A thread that holds pixels of the budget must not wait, because the thread
        that decodes alone may be waiting for these pixels.
        """
        with self._changed:
            self._changed.wait_for(lambda: not (self._alone and wait))
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

        The block starts as soon as no other thread decodes, or after `LONGEST_WAIT` seconds.
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


class PixelBudget:
    """A limit on the number of pixels that all threads decode at the same time.

    A photograph that is larger than the whole budget is decoded alone.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._own = threading.local()

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """When the outermost `with` block ends, give back the pixels that this thread has taken in it."""
        depth = getattr(self._own, "depth", 0)
        if not depth:
            self._own.pixels = 0
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            if not depth:
                self.give_back()

    @property
    def held(self) -> int:
        """The number of pixels that this thread has taken."""
        return getattr(self._own, "pixels", 0)

    def give_back(self) -> None:
        """Give back what this thread has taken."""
        with self._changed:
            self._taken -= self.held
            self._own.pixels = 0
            self._changed.notify_all()

    def take(self, pixels: int, wait: bool = True) -> None:
        """Wait until the budget has room for `pixels`, and take them until the outermost block of `decoding` ends.

        Outside such a block, the call does nothing. A thread that has already taken pixels doesn't wait. It then holds
        the larger of its old number and `pixels`, because it decodes its photographs one after the other.
        """
        if not getattr(self._own, "depth", 0) or pixels <= self._own.pixels:
            return
        more = pixels - self._own.pixels
        with self._changed:
            # A thread that holds pixels doesn't wait for more. Otherwise two threads could wait for each other.
            if wait and not self._own.pixels:
                self._changed.wait_for(lambda: not self._taken or self._taken + more <= self._pixels)
            self._taken += more
            self._own.pixels = pixels


_TURNS = Turns()
BUDGET = PixelBudget(PIXELS)


def sparing(decode: Callable[[], T]) -> T:
    """Return `decode()`. If the memory doesn't suffice, call `decode` again while no other thread decodes.

    Raise MemoryError if the memory doesn't suffice for the second call either.
    """
    try:
        with BUDGET.decoding(), _TURNS.shared(wait=not BUDGET.held):
            return decode()
    except MemoryError:
        pass  # the frames of the failed call, which hold pixels, are gone at the end of this clause
    BUDGET.give_back()
    with _TURNS.alone():
        return decode()
