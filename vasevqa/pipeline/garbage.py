"""`vasevqa clean`: find and remove the files and jobs that no run uses."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from vasevqa.artifacts.lease import Lease, LeaseHeld, holder
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.backends.base import Backend, job_prefix
from vasevqa.backends.cluster import Cluster
from vasevqa.errors import VaseError
from vasevqa.pipeline.backend import MakeBackend, backend_of
from vasevqa.pipeline.in_use import ArtifactsInUse, InUse, folders
from vasevqa.pipeline.runs import Run, all_runs

# Files that were made or used more recently are kept, because a run that starts now may not have named them yet.
GRACE_SECONDS = 3600.0
GONE = "already removed"
HIDDEN = re.compile(r"\.[0-9]{8}-[0-9]{9}-.+\.[0-9a-f]{6}")  # the name of a run that is being removed
FIRST_FILES = {"plan.json", "place.json", "launcher.lease", "launcher.lease.lock"}  # written before the recipe
RESUMABLE = "unfinished work that can be resumed; --partial also removes it"


@dataclass(frozen=True)
class Item:
    """A file or folder that `clean` can remove, and why. If `clean` keeps the item, `kept` says why."""

    path: Path
    why: str
    artifact: Artifact | None = None
    run: Run | None = None
    seconds: float = 0.0  # the minimum age; 0 for the artifacts of a run that the user named
    kept: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the user wants to remove. Empty `steps` mean all steps. `selected` are the runs to remove."""

    selected: tuple[Run, ...] = ()
    steps: tuple[str, ...] = ()
    partial: bool = False
    seconds: float = GRACE_SECONDS  # the minimum age of files that belong to no run


class Sizes:
    """Counts how many bytes the removal of files frees.

    The space of a file with several hard links becomes free when the last link is removed. So the file's size counts
    for the folder that is removed last.
    """

    def __init__(self) -> None:
        self._links: Counter[tuple[int, int]] = Counter()

    def add(self, path: Path) -> int:
        """Return the number of bytes that become free if `path` is removed after the paths of all earlier calls."""
        total = 0
        for file in _files(path):
            try:
                status = file.lstat()
            except FileNotFoundError:
                continue
            self._links[status.st_dev, status.st_ino] += 1
            if self._links[status.st_dev, status.st_ino] >= status.st_nlink:
                total += status.st_blocks * 512 or status.st_size
        return total


def _files(path: Path) -> Iterator[Path]:
    if path.is_file() or path.is_symlink():
        yield path
    for folder, _, names in os.walk(path):
        for name in names:
            yield Path(folder) / name


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return sum(file.lstat().st_size for file in _files(path))


def found(volume: Volume, usage: ArtifactsInUse, wanted: Wanted, working: Sequence[str]) -> Iterator[Item]:
    """Yield each file that `clean` can remove, and each file of unfinished work that it keeps.

    `working` holds the prefixes of the names of running jobs (`job_prefix`).
    """
    if not wanted.steps:
        yield from (Item(run.path, "run", run=run) for run in wanted.selected)
    named = {name for run in wanted.selected for name in run.uses()}
    kept, worked_on = usage.kept(), usage.worked_on()
    for step in sorted(volume.artifacts.iterdir()) if volume.artifacts.is_dir() else []:
        if not step.is_dir() or (wanted.steps and step.name not in wanted.steps):
            continue
        for entry in sorted(step.iterdir()):
            name = (step.name, entry.name.split(".")[0])
            artifact = Artifact(*name, step / name[1])
            if holder(artifact.lease) is not None or job_prefix(*name) in working:
                continue
            seconds = 0.0 if name in named else wanted.seconds
            if entry.name == name[1] and name not in kept:
                why = "artifact that no run uses" if artifact.complete else "incomplete artifact"
                yield Item(entry, why, artifact, seconds=seconds)
            elif entry.suffix == ".partial" and name not in worked_on:
                yield _partial(entry, artifact, wanted)
            elif entry.suffix == ".aside" and entry not in usage.previous:
                yield Item(entry, "replaced artifact", artifact, seconds=wanted.seconds)
    if not wanted.steps:
        yield from _never_began(volume)


def _partial(path: Path, artifact: Artifact, wanted: Wanted) -> Item:
    if artifact.complete:
        return Item(path, "remains of an artifact that is complete", artifact, seconds=wanted.seconds)
    kept = "" if wanted.partial else RESUMABLE
    # The user asks for it, so there is no grace time.
    seconds = wanted.seconds if wanted.seconds > GRACE_SECONDS else 0.0
    return Item(path, "partial artifacts of no running run", artifact, seconds=seconds, kept=kept)


def _never_began(volume: Volume) -> Iterator[Item]:
    """Yield what killed processes left: jobs and runs that never began, and runs that `clean` was removing."""
    for path in volume.root.glob(".jobs/.vase-*"):
        yield Item(path, "job that never began", seconds=GRACE_SECONDS)
    for path in volume.runs.glob(".*") if volume.runs.is_dir() else []:
        if path.is_dir() and HIDDEN.fullmatch(path.name):
            yield Item(path, "removed run", seconds=GRACE_SECONDS)
    for run in folders(volume):
        names = {path.name for path in run.path.iterdir()}
        if names and names <= FIRST_FILES and holder(run.lease) is None:
            yield Item(run.path, "run that never began", run=run, seconds=GRACE_SECONDS)


class Cleaner:
    """Removes items. Just before each removal, it checks again that no run uses the item."""

    def __init__(self, usage: ArtifactsInUse, busy: Callable[[Artifact], bool]) -> None:
        self._usage, self._busy = usage, busy
        self._me = f"clean-{os.getpid()}"

    def refusal(self, item: Item) -> str:
        """Return why the item must be kept now; '' if it can be removed."""
        try:
            self._check(item, time.time())
        except InUse as why:
            return str(why)
        except FileNotFoundError:
            return GONE
        return ""

    def remove(self, item: Item) -> str:
        """Remove the item if no run uses it. Return why it wasn't removed, or '' if it was removed.

        An artifact or a run is renamed first. So a crash can't leave an incomplete folder under the original name.
        """
        path = item.path
        try:
            if item.artifact is not None:
                path = item.artifact.put_aside(path, self._me, lambda now: self._check(item, now))
            elif item.run is not None:
                path = self._hidden(item)
            else:
                self._check(item, time.time())
        except LeaseHeld as held:
            return f"in use by {held}"
        except InUse as why:
            return str(why)
        except FileNotFoundError:
            return GONE
        _remove_tree(path)
        return ""

    def _hidden(self, item: Item) -> Path:
        """Take the lease of the run's launcher, rename the run's folder to a hidden name, and return the new path."""
        assert item.run is not None
        if not item.path.is_dir():
            raise FileNotFoundError(item.path)
        age = item.path.stat().st_mtime  # before the lease changes it
        lease = Lease.acquire(item.run.lease, self._me)
        try:
            if item.run.lease.stat().st_mtime - age < item.seconds:
                raise InUse("it began a moment ago")
            hidden = item.path.with_name(f".{item.run.name}.{os.urandom(3).hex()}")
            item.path.rename(hidden)
        except BaseException:
            lease.release()
            raise
        lease.give_up()  # the lease file has moved with the folder
        return hidden

    def _check(self, item: Item, now: float) -> None:
        """Raise InUse if the item must be kept. `now` is the present time of the volume's clock."""
        path, artifact = item.path, item.artifact
        age = now - path.stat().st_mtime
        if age < item.seconds:
            raise InUse(f"changed or used {_ago(age)} ago")
        if artifact is None:
            return
        name = (artifact.step, artifact.key)
        if path == artifact.path:
            if age < GRACE_SECONDS and self._usage.starting(artifact):
                raise InUse("a run began to use it a moment ago")
            if name in self._usage.kept():
                raise InUse("a run uses it")
        elif path == artifact.partial and name in self._usage.worked_on():
            raise InUse("a run is working on it")
        if self._busy(artifact):
            raise InUse("a job is working on it")


def _ago(seconds: float) -> str:
    return f"{max(seconds, 0) / 60:.0f} min"


def _remove_tree(path: Path) -> None:
    """Remove a folder, or a file. Another `clean` may remove the same folder at the same time."""

    def tolerate(function: object, name: str, error: object) -> None:
        if not isinstance(error, FileNotFoundError):
            assert isinstance(error, BaseException)
            raise error

    if path.is_dir() and not path.is_symlink():
        if sys.version_info >= (3, 12):
            shutil.rmtree(path, onexc=tolerate)
        else:
            shutil.rmtree(path, onerror=lambda function, name, caught: tolerate(function, name, caught[1]))
    else:
        path.unlink(missing_ok=True)


def backends(volume: Volume, make: MakeBackend) -> list[Backend]:
    """Return the backends of all runs on the volume.

    A backend that doesn't answer is left out and reported on stderr. Leases still protect the artifacts that its jobs
    write.
    """
    reachable = [make("local", volume, Cluster())]
    seen: list[dict[str, object]] = []
    for run in all_runs(volume):
        settings = run.backend_settings
        if settings.get("backend", "local") != "local" and settings not in seen:
            seen.append(settings)
            try:
                reachable.append(backend_of(run, make))
            except VaseError as error:
                click.echo(f"Jobs of {run.name} were not checked: {error}", err=True)
    return reachable
