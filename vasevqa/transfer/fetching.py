"""Fetch files from the volume to this machine.

Several requests are sent before the first answer arrives. After a lost connection, the transfer resumes.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.errors import ClusterError, ConnectionLost, DataError
from vasevqa.text import byte_size, plain
from vasevqa.transfer import paths
from vasevqa.transfer.connection import Connection, persistently
from vasevqa.transfer.walking import Skipped

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.session import Session


AHEAD = 4 << 20  # maximum number of bytes that are requested and not received yet


def fetch(access: Session, path: str, target: Path) -> str:
    """Fetch a file or folder from the volume to `target`, and return a summary in words.

    Raise ConfigError if `path` is outside the volume. Raise DataError if there is no file at `path`, or if a file
    changes during the transfer.

    Files that are skipped are listed on stderr.
    """
    paths.inside(Path(VOLUME), path)
    download = _Download(path, target)
    persistently(access, download.go)
    for line in download.skipped.lines():
        click.echo(line, err=True)
    return (
        f"{download.total} files, {download.got} fetched ({byte_size(download.bytes)}),"
        f" {download.total - download.got} were here"
    )


class _Block(NamedTuple):
    """A block of a file that was requested and has not arrived yet."""

    name: str
    offset: int
    length: int


class _Download:
    """The files that are still to be fetched; one download may use several connections."""

    def __init__(self, path: str, target: Path) -> None:
        self.path, self.target = path, target
        self.total = self.got = self.bytes = 0
        self.done: set[str] = set()
        self.skipped = Skipped()

    def go(self, connection: Connection) -> None:
        before = (len(self.done), self.bytes)
        try:
            self._round(connection)
        except ConnectionLost as error:
            error.moved = (len(self.done), self.bytes) != before
            raise

    def _round(self, connection: Connection) -> None:
        listed = self._listed(connection)
        self.total = len(listed)
        offsets = {name: paths.standing(self._here(name), *known) for name, known in listed.items()}
        self.done |= {name for name, offset in offsets.items() if offset is None}
        ranges = (
            (name, at, size)
            for name, offset in offsets.items()
            if offset is not None
            for at, size in _ranges(offset, listed[name][0])
        )
        on_the_way = collections.deque[_Block]()
        for name, offset, length in ranges:
            connection.ask(do="get", path=self.path, name=name, offset=offset, length=length)
            on_the_way.append(_Block(name, offset, length))
            # Several requests are on the way at once, so that the connection is always busy.
            while sum(block.length for block in on_the_way) > AHEAD or len(on_the_way) > 64:
                self._take(connection, listed, on_the_way)
        while on_the_way:
            self._take(connection, listed, on_the_way)

    def _listed(self, connection: Connection) -> dict[str, tuple[int, str]]:
        """Ask for the files in the folder, and return the size and digest of each file by name."""
        connection.ask(do="list", path=self.path)
        listed: dict[str, tuple[int, str]] = {}
        self.skipped = Skipped()
        while "listed" not in (answer := connection.one()):
            if "skipped" in answer:
                self.skipped.add(str(answer["skipped"]), plain(str(answer.get("reason"))))
            elif "name" in answer:
                listed[str(answer["name"])] = (_size(answer.get("size")), paths.checked_digest(answer.get("sha256")))
        if not listed:
            raise DataError("\n".join([f"There is no file to fetch in {self.path}.", *self.skipped.lines()]))
        return listed

    def _take(
        self, connection: Connection, listed: Mapping[str, tuple[int, str]], on_the_way: collections.deque[_Block]
    ) -> None:
        for answer in connection.answers(True):
            block = answer["bytes"]
            if not on_the_way or (answer.get("name"), answer.get("offset")) != on_the_way[0][:2]:
                raise ClusterError(
                    f"Pod {connection.process.pod} sent a block that was not requested; check that the image has this"
                    " version of vasevqa."
                )
            name, offset, asked = on_the_way.popleft()
            size, digest = listed[name]
            last = offset + len(block) == size
            if len(block) != asked or not paths.write(self._here(name), offset, block, digest, last):
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


def _size(given: object) -> int:
    """Return `given` if it can be the size of a file. Otherwise raise ClusterError: the pod is not trusted."""
    if not isinstance(given, int) or given < 0:
        raise ClusterError(
            f"The pod sent '{plain(str(given))[:80]}' as the size of a file; check that the image has this version of"
            " vasevqa."
        )
    return given


def _ranges(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of the blocks to request, starting at `offset`; an empty file has one empty block."""
    while True:
        length = min(paths.CHUNK, size - offset)
        yield offset, length
        offset += length
        if offset >= size:
            return
