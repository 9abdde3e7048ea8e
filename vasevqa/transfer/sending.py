"""Send files from this machine to the volume. Files that are already on the volume with the same digest are skipped."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from vasevqa import files
from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.errors import ConnectionLost, DataError
from vasevqa.text import byte_size
from vasevqa.transfer import paths
from vasevqa.transfer.connection import TRIES, Connection, persistently
from vasevqa.transfer.walking import FOLDER_LINK, OUTSIDE, Skipped, walk

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.session import Session


def upload_inputs(access: Session, inputs: Mapping[str, str], base: Path, follow: bool = False) -> list[str]:
    """Upload the recipe's inputs to the volume; return NAME=PATH for each input.

    Each folder on this machine is uploaded to inputs/NAME-DIGEST, and each file to a folder of such a name. DIGEST is
    the digest of the content. So an upload never changes files that any other run reads, and the same content is
    uploaded only once. For an input that is not on this machine, PATH is the value in `inputs`. With `follow`, links
    that lead out of the inputs are followed too.
    """
    here = {name: base / files.expanded(value) for name, value in inputs.items()}
    local_paths = {name: path for name, path in here.items() if path.exists()}
    known: dict[Path, tuple[int, str]] = {}
    # A file keeps its name because reports show it.
    places = {
        name: f"inputs/{name}-{_content(path, known, follow)}{f'/{path.name}' if path.is_file() else ''}"
        for name, path in local_paths.items()
    }
    if local_paths:
        click.echo(
            "The inputs are on the volume:"
            f" {send(access, {places[name]: path for name, path in local_paths.items()}, known, follow)}."
        )
    return [f"{name}={places.get(name, value)}" for name, value in inputs.items()]


def _content(top: Path, known: dict[Path, tuple[int, str]], follow: bool) -> str:
    """Return a digest (10 hexadecimal digits) of all files below `top`.

    The function adds the size and digest of each file to `known`.
    """
    whole = hashlib.sha256()
    for name, path in walk(top, lambda name, reason: None, follow=follow):  # `send` reports the skipped files
        known[path] = _digested(path)
        whole.update(os.fsencode(f"{name}\0{known[path][1]}\n"))
    return whole.hexdigest()[:10]


def _digested(path: Path) -> tuple[int, str]:
    with _kept(path):
        return path.stat().st_size, files.digest_file(path)


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[None]:
    """Raise DataError if another program removes the file `path` during the block."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            f"{path} was removed during the upload; run the same command again when no other program"
            " changes the folder."
        ) from None


def send(
    access: Session,
    sources: Mapping[str, Path],
    known: Mapping[Path, tuple[int, str]] | None = None,
    follow: bool = False,
) -> str:
    """Send files and folders to the volume, and return a summary in words.

    `sources` maps a path on the volume to a path on this machine. `known` holds the sizes and digests of files that
    were read before. Links that lead out of a folder are followed only with `follow`. Files that are skipped are
    listed on stderr.

    Raise ConfigError if a path is outside the volume. Raise DataError if there is no file to send.
    """
    wanted = _wanted(sources, follow)
    upload = _Upload(wanted)
    upload.digests = {name: known[path] for name, path in wanted.items() if path in known} if known else {}
    persistently(access, upload.go)
    return (
        f"{len(wanted)} files, {upload.sent} sent ({byte_size(upload.bytes)}), {len(wanted) - upload.sent} were there"
    )


def _wanted(sources: Mapping[str, Path], follow: bool) -> dict[str, Path]:
    """Return the files to send by their path on the volume. Report the skipped files on stderr."""
    wanted, skipped = {}, Skipped()
    for place, source in sources.items():
        if not source.is_file() and not source.is_dir():
            raise DataError(f"{source} is a pipe, socket or device, not a file or folder; choose another path.")

        def skip(name: str, reason: str, source: Path = source) -> None:
            skipped.add(str(source / name), reason)

        for name, path in walk(source, skip, follow=follow):
            wanted["/".join(filter(None, [PurePosixPath(place).as_posix(), name]))] = path
        paths.inside(Path(VOLUME), place)
    for line in skipped.lines():
        click.echo(line, err=True)
    if {OUTSIDE, FOLDER_LINK} & set(skipped.counts):
        click.echo("Add --follow-links to send what the links lead to.", err=True)
    if not wanted:
        raise DataError(f"There is no file to send in {', '.join(map(str, sources.values()))}; nothing was sent.")
    return wanted


class _Upload:
    """The files that are still to be sent; one upload may use several connections."""

    def __init__(self, wanted: Mapping[str, Path]) -> None:
        self.left = dict(wanted)
        self.digests: dict[str, tuple[int, str]] = {}
        self.sent = self.bytes = 0
        self.bad: collections.Counter[str] = collections.Counter()

    def go(self, connection: Connection) -> None:
        before = (len(self.left), self.bytes)
        try:
            while self.left:
                self._round(connection)
        except ConnectionLost as error:
            error.moved = (len(self.left), self.bytes) != before
            raise

    def _round(self, connection: Connection) -> None:
        """Check which files are already on the volume, and send the missing files.

        A request is sent without waiting for the answers to earlier requests.
        """
        have: dict[str, int | None] = {}
        asked = 0
        for name, path in self.left.items():
            size, digest = self.digests.get(name) or _digested(path)
            self.digests[name] = (size, digest)
            connection.ask(do="check", path=name, size=size, sha256=digest)
            asked += 1
            have |= {answer["path"]: answer["have"] for answer in connection.answers(False)}
        while len(have) < asked:
            have |= {answer["path"]: answer["have"] for answer in connection.answers(True)}
        awaited = set()
        for name, offset in have.items():
            if offset is None:
                del self.left[name]
                continue
            awaited.add(name)
            self._put(connection, name, offset, awaited)
        while awaited:
            self._heed(connection, awaited, True)

    def _put(self, connection: Connection, name: str, offset: int, awaited: set[str]) -> None:
        size, digest = self.digests[name]
        with _kept(self.left[name]), open(self.left[name], "rb") as stream:
            stream.seek(offset)
            while True:
                block = stream.read(paths.CHUNK)
                last = offset + len(block) >= size or not block
                connection.ask(block, do="put", path=name, offset=offset, length=len(block), sha256=digest, last=last)
                offset, self.bytes = offset + len(block), self.bytes + len(block)
                self._heed(connection, awaited, False)
                if last:
                    return

    def _heed(self, connection: Connection, awaited: set[str], wait: bool) -> None:
        for answer in connection.answers(wait):
            name = answer["path"]
            awaited.discard(name)
            if answer["written"]:
                del self.left[name]
                self.sent += 1
                if self.sent % 1000 == 0:
                    click.echo(f"{self.sent} sent, {len(self.left)} left", err=True)
                continue
            self.bad[name] += 1
            del self.digests[name]
            if self.bad[name] >= TRIES:
                raise DataError(
                    f"{self.left[name]} arrives with a different digest each time, so another program may still"
                    " be writing it; try again when the file is complete."
                )
