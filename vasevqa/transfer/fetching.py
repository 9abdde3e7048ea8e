"""Fetch files from the volume to this machine.

Several requests are sent before the first answer arrives. After a lost connection, the transfer resumes.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.errors import ConnectionLost, DataError
from vasevqa.text import byte_size
from vasevqa.transfer import paths
from vasevqa.transfer.connection import Connection, persistently

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.session import Session


AHEAD = 4 << 20  # maximum number of bytes that are requested and not received yet


def fetch(access: Session, path: str, target: Path) -> str:
    """Fetch a file or folder from the volume to `target`, and return a summary in words.

    Raise ConfigError if `path` is outside the volume. Raise DataError if there is no file at `path`, or if a file
    changes during the transfer.
    """
    paths.inside(Path(VOLUME), path)
    download = _Download(path, target)
    persistently(access, download.go)
    return (
        f"{download.total} files, {download.got} fetched ({byte_size(download.bytes)}),"
        f" {download.total - download.got} were here"
    )


class _Download:
    """The files that are still to be fetched; one download may use several connections."""

    def __init__(self, path: str, target: Path) -> None:
        self.path, self.target = path, target
        self.total = self.got = self.bytes = 0
        self.done: set[str] = set()

    def go(self, connection: Connection) -> None:
        before = (len(self.done), self.bytes)
        try:
            self._round(connection)
        except ConnectionLost as error:
            error.moved = (len(self.done), self.bytes) != before
            raise

    def _round(self, connection: Connection) -> None:
        connection.ask(do="list", path=self.path)
        listed: dict[str, tuple[int, str]] = {}
        while True:
            answers = list(connection.answers(True))
            listed |= {answer["name"]: (answer["size"], answer["sha256"]) for answer in answers if "name" in answer}
            if any("listed" in answer for answer in answers):
                break
        if not listed:
            raise DataError(
                f"There is no file in {self.path}; links are not followed, so give a step's result as steps/NAME."
            )
        self.total = len(listed)
        offsets = {name: paths.standing(self._here(name), *known) for name, known in listed.items()}
        self.done |= {name for name, offset in offsets.items() if offset is None}
        ranges = (
            (name, at, size)
            for name, offset in offsets.items()
            if offset is not None
            for at, size in _ranges(offset, listed[name][0])
        )
        on_the_way = collections.deque[int]()
        for name, offset, length in ranges:
            connection.ask(do="get", path=self.path, name=name, offset=offset, length=length)
            on_the_way.append(length)
            while sum(on_the_way) > AHEAD or len(on_the_way) > 64:  # keeps the connection busy
                self._take(connection, listed, on_the_way)
        while on_the_way:
            self._take(connection, listed, on_the_way)

    def _take(
        self, connection: Connection, listed: Mapping[str, tuple[int, str]], on_the_way: collections.deque[int]
    ) -> None:
        for answer in connection.answers(True):
            name, block, asked = answer["name"], answer["bytes"], on_the_way.popleft()
            size, digest = listed[name]
            last = answer["offset"] + len(block) == size
            if len(block) != asked or not paths.write(self._here(name), answer["offset"], block, digest, last):
                raise DataError(
                    f"{self.path}/{name} changed on the volume during the download; try again when the step that"
                    " writes it has ended."
                )
            self.bytes += len(block)
            if last:
                self.done.add(name)
                self.got += 1

    def _here(self, name: str) -> Path:
        # The names come from a pod and are not trusted: nothing may be written outside the target.
        return paths.inside(self.target, name) if name else self.target


def _ranges(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of the blocks to request, starting at `offset`; an empty file has one empty block."""
    while True:
        length = min(paths.CHUNK, size - offset)
        yield offset, length
        offset += length
        if offset >= size:
            return
