"""`vasevqa upload` and `download`: files to and from the volume of a cluster, through a pod that mounts it."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from vasevqa import files, transfer
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.launcher_manifest import VOLUME, render_pod
from vasevqa.cli import cluster_option
from vasevqa.commands.submitting import cluster_of, namespace_option, needs_claim
from vasevqa.errors import Broken, ClusterAway, ClusterError, ConfigError, DataError

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes_access import Access, Process

IDLE_SECONDS = 1800  # after which a pod that nobody talks to ends by itself
SILENCE = 300.0  # seconds without an answer after which a connection counts as lost
AHEAD = 4 << 20  # bytes that are asked for before those before them have come
TRIES = 6  # connections in a row that bring nothing new


@click.command()
@click.argument("source", metavar="PATH", type=click.Path(path_type=Path, exists=True))
@click.argument("target", metavar="[DEST]", required=False)
@cluster_option
@namespace_option
def upload(source: Path, target: str | None, cluster: Path | None, namespace: str | None) -> None:
    """Bring PATH, a file or a folder, to the volume as DEST.

    DEST is relative to the volume's root; without it, PATH's own name. What is there already, by its digest, is not sent
    again; the same command goes on after a broken connection. Nothing on the volume is removed.

    \b
    Example:
      vasevqa upload photos inputs/photos
    """
    place = target or source.resolve().name
    moved = send(_access(cluster_of(cluster, namespace)), {place: source})
    click.echo(f"{place} is on the volume: {moved}.")


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("path", metavar="[PATH]", required=False)
@click.argument("target", metavar="[DEST]", required=False, type=click.Path(path_type=Path))
@cluster_option
@namespace_option
def download(run: str, path: str | None, target: Path | None, cluster: Path | None, namespace: str | None) -> None:
    """Bring PATH of RUN from the volume to DEST.

    PATH is a file or folder of the run, such as report.html, logs or steps/merge-grpo (what a step made); without it, the report.
    DEST is a path here; without it, PATH's own name. RUN may be `-`: then PATH is relative to the volume's root.

    \b
    Example:
      vasevqa download 20261125-101500123-my-vases-1a2b steps/merge-grpo model
    """
    wanted = path or "report.html"
    place = target or Path(PurePosixPath(wanted).name)
    moved = fetch(_access(cluster_of(cluster, namespace)), wanted if run == "-" else f"runs/{run}/{wanted}", place)
    click.echo(f"{place} is here: {moved}.")


def _access(cluster: Cluster) -> Access:
    from vasevqa.backends.kubernetes_access import Access

    return Access(cluster)


def upload_inputs(access: Access, inputs: Mapping[str, str], base: Path) -> list[str]:
    """Bring those inputs of a recipe that are on this machine to inputs/NAME-DIGEST; `--input` options that say so.

    The digest is the content's: what another recipe or an earlier submission brought under this name is neither mixed with it
    nor changed under a run that reads it, and the same again is there already.
    """
    here = {name: base / Path(value).expanduser() for name, value in inputs.items()}
    found = {name: path for name, path in here.items() if path.exists()}
    known: dict[Path, tuple[int, str]] = {}
    # A file keeps its name, which reports show.
    places = {name: f"inputs/{name}-{_content(path, known)}{f'/{path.name}' if path.is_file() else ''}" for name, path in found.items()}
    if found:
        click.echo(f"The inputs are on the volume: {send(access, {places[name]: path for name, path in found.items()}, known)}.")
    return [f"{name}={places.get(name, value)}" for name, value in inputs.items()]


def _content(top: Path, known: dict[Path, tuple[int, str]]) -> str:
    """Ten digits that say names and contents of all files below `top`; `known` gets each file's size and digest."""
    whole = hashlib.sha256()
    for name, path in transfer.walk(top):
        known[path] = (path.stat().st_size, files.digest_file(path))
        whole.update(f"{name}\0{known[path][1]}\n".encode())
    return whole.hexdigest()[:10]


@contextlib.contextmanager
def volume_pod(access: Access, purpose: str = "move") -> Iterator[str]:
    """A pod with the volume, for as long as the block lasts."""
    needs_claim(access)
    name = f"vasevqa-{purpose}-{os.urandom(4).hex()}"
    wait = ["tini", "--", "python", "-m", "vasevqa.transfer", "--wait", str(IDLE_SECONDS)]
    with access.pod(render_pod(name, purpose, access.cluster, [], wait)) as pod:
        yield pod


class Connection:
    """One conversation with the far end."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._buffer, self._at = b"", 0  # what came, and up to where it is read
        self._needs: dict[str, Any] | None = None  # an answer whose bytes haven't all arrived

    def ask(self, payload: bytes = b"", **request: Any) -> None:
        """Send a request."""
        self.process.write(json.dumps(request).encode() + b"\n" + payload)

    def answers(self, wait: bool) -> Iterator[dict[str, Any]]:
        """What has arrived; with `wait`, at least one answer, Broken if none comes. A refusal of the far end is raised."""
        end = time.monotonic() + SILENCE
        while True:
            self.process.read(1 if wait else 0)
            if block := self.process.taken():
                self._buffer, self._at = self._buffer[self._at :] + block, 0
            some = False
            while (answer := self._next()) is not None:
                some = True
                yield answer
            if some or not wait:
                return
            if self.process.over or time.monotonic() > end:
                raise Broken(f"The connection to pod {self.process.pod} was lost; the same command goes on where it was.")

    def _next(self) -> dict[str, Any] | None:
        if self._needs is None:
            end = self._buffer.find(b"\n", self._at)
            if end < 0:
                return None
            self._needs, self._at = json.loads(self._buffer[self._at : end]), end + 1
        answer, stop = self._needs, self._at + int(self._needs.get("data", 0))
        if len(self._buffer) < stop:
            return None
        answer["bytes"], self._at, self._needs = self._buffer[self._at : stop], stop, None
        if "error" in answer:
            refusal = {2: ConfigError, 3: DataError}.get(answer.get("code", 1), ClusterError)
            raise refusal(answer["error"])
        return answer


def _persistently(access: Access, work: Callable[[Connection], None]) -> None:
    """Call `work` on one connection after the other until one is enough; Broken that `moved` something is no lost try."""
    tries = 0
    while True:
        try:
            with volume_pod(access) as pod:
                while True:
                    process = access.open(pod, ["python", "-m", "vasevqa.transfer", VOLUME])
                    try:
                        work(Connection(process))
                        return
                    except (Broken, ClusterAway) as error:
                        tries = 1 if getattr(error, "moved", False) else tries + 1
                        if tries >= TRIES:
                            raise
                        click.echo(f"The connection was lost; trying again ({tries}).", err=True)
                        time.sleep(min(2.0 ** (tries - 1), 30.0))
                        if not _runs(access, pod):
                            break
                    finally:
                        process.close()
        except (Broken, ClusterAway):
            tries += 1
            if tries >= TRIES:
                raise
            time.sleep(min(2.0 ** (tries - 1), 30.0))


def _runs(access: Access, pod: str) -> bool:
    found = access.find("pods", pod)
    return found is not None and found["status"].get("phase") == "Running" and "deletionTimestamp" not in found["metadata"]


def send(access: Access, sources: Mapping[str, Path], known: Mapping[Path, tuple[int, str]] | None = None) -> str:
    """Bring files and folders to the volume: {place on the volume: path here}. Returns what was done, in words.

    `known`: the sizes and digests of files whose digest was taken already.
    """
    wanted = {}
    for place, source in sources.items():
        for link in transfer.linked(source):
            click.echo(f"Left out: {link} is a link to a folder; upload what it leads to under a name of its own.", err=True)
        for name, path in transfer.walk(source):
            wanted["/".join(filter(None, [PurePosixPath(place).as_posix(), name]))] = path
        transfer.inside(Path(VOLUME), place)
    if not wanted:
        raise DataError(f"There is no file in {', '.join(map(str, sources.values()))}; nothing was sent.")
    upload = _Upload(wanted)
    upload.digests = {name: known[path] for name, path in wanted.items() if path in known} if known else {}
    _persistently(access, upload.go)
    return f"{len(wanted)} files, {upload.sent} sent ({_size(upload.bytes)}), {len(wanted) - upload.sent} were there"


class _Upload:
    """What is still to be sent, over any number of connections."""

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
        except Broken as error:
            error.moved = (len(self.left), self.bytes) != before
            raise

    def _round(self, connection: Connection) -> None:
        """Ask what is there, then send the rest, with both going on at once: no round trip for each file."""
        have: dict[str, int | None] = {}
        asked = 0
        for name, path in self.left.items():
            size, digest = self.digests.get(name) or (path.stat().st_size, files.digest_file(path))
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
        with open(self.left[name], "rb") as stream:
            stream.seek(offset)
            while True:
                block = stream.read(transfer.CHUNK)
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
                    click.echo(f"{self.sent} sent, {len(self.left)} to go", err=True)
                continue
            self.bad[name] += 1
            del self.digests[name]
            if self.bad[name] >= TRIES:
                raise DataError(f"{self.left[name]} arrives with another digest each time; is it being written? Try again when it is complete.")


def fetch(access: Access, path: str, target: Path) -> str:
    """Bring a file or folder of the volume to `target`. Returns what was done, in words."""
    transfer.inside(Path(VOLUME), path)
    download = _Download(path, target)
    _persistently(access, download.go)
    return f"{download.total} files, {download.got} fetched ({_size(download.bytes)}), {download.total - download.got} were here"


class _Download:
    """What is still to be fetched, over any number of connections."""

    def __init__(self, path: str, target: Path) -> None:
        self.path, self.target = path, target
        self.total = self.got = self.bytes = 0
        self.done: set[str] = set()

    def go(self, connection: Connection) -> None:
        before = (len(self.done), self.bytes)
        try:
            self._round(connection)
        except Broken as error:
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
            raise DataError(f"There is no file in {self.path}; links are not followed, so name what a step made as steps/NAME.")
        self.total = len(listed)
        offsets = {name: transfer.standing(self._here(name), *known) for name, known in listed.items()}
        self.done |= {name for name, offset in offsets.items() if offset is None}
        ranges = ((name, at, size) for name, offset in offsets.items() if offset is not None for at, size in _ranges(offset, listed[name][0]))
        on_the_way = collections.deque[int]()
        for name, offset, length in ranges:
            connection.ask(do="get", path=self.path, name=name, offset=offset, length=length)
            on_the_way.append(length)
            while sum(on_the_way) > AHEAD or len(on_the_way) > 64:  # enough that the next is there when one is done
                self._take(connection, listed, on_the_way)
        while on_the_way:
            self._take(connection, listed, on_the_way)

    def _take(self, connection: Connection, listed: Mapping[str, tuple[int, str]], on_the_way: collections.deque[int]) -> None:
        for answer in connection.answers(True):
            name, block, asked = answer["name"], answer["bytes"], on_the_way.popleft()
            size, digest = listed[name]
            last = answer["offset"] + len(block) == size
            if len(block) != asked or not transfer.write(self._here(name), answer["offset"], block, digest, last):
                raise DataError(f"{self.path}/{name} changed on the volume while it was fetched; try again when its step is done.")
            self.bytes += len(block)
            if last:
                self.done.add(name)
                self.got += 1

    def _here(self, name: str) -> Path:
        # The far end is a pod: what it says is no reason to write anywhere else than below the target.
        return transfer.inside(self.target, name) if name else self.target


def _ranges(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the pieces in which the rest of a file is asked for; an empty file is one empty piece."""
    while True:
        length = min(transfer.CHUNK, size - offset)
        yield offset, length
        offset += length
        if offset >= size:
            return


def _size(count: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{count:.0f} {units[0]}"
