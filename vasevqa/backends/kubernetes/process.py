"""A process in a pod, with its input, its output and its exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from vasevqa.errors import ConnectionLost
from vasevqa.text import first_line


class _Forgotten:
    def write(self, block: bytes) -> None:
        """Discard `block`."""


class Process:
    """A process in a pod, whose input and output are bytes.

    Reading and writing raise ConnectionLost if the connection breaks.
    """

    def __init__(self, pod: str, socket: Any) -> None:
        self.pod, self._socket = pod, socket
        socket._all = _Forgotten()  # otherwise the client would keep a copy of all received data

    @property
    def over(self) -> bool:
        """True once the connection has ended."""
        return not self._socket.is_open()

    def write(self, block: bytes) -> None:
        """Send `block` to the process's stdin."""
        with self._watched():
            self._socket.write_stdin(block)

    def read(self, seconds: float) -> None:
        """Wait up to `seconds` for data to arrive."""
        with self._watched():
            self._socket.update(timeout=seconds)

    def taken(self) -> bytes:
        """Return the data that has arrived on stdout since the last call."""
        with self._watched():
            return bytes(self._socket.read_stdout(timeout=0))

    def errors(self) -> bytes:
        """Return the data that has arrived on stderr since the last call."""
        with self._watched():
            return bytes(self._socket.read_stderr(timeout=0))

    def exit_code(self) -> int:
        """Return the process's exit code.

        Raise ConnectionLost if the connection was lost before the exit code was known.
        """
        try:
            return int(self._socket.returncode)
        except (TypeError, KeyError, ValueError, IndexError, AttributeError):
            raise ConnectionLost(f"The connection to pod {self.pod} was lost; try again.") from None

    def close(self) -> None:
        """Close the connection, and thereby the input of the process."""
        with contextlib.suppress(Exception):
            self._socket.close(timeout=1)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        from websocket import WebSocketException

        try:
            yield
        except (WebSocketException, OSError, ValueError) as error:
            raise ConnectionLost(f"The connection to pod {self.pod} broke ({first_line(error)}); try again.") from None
