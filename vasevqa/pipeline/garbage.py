"""`vasevqa clean`: what nothing points to any more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from vasevqa.artifacts.lease import LeaseHeld, holder
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.backends.base import Backend, job_prefix
from vasevqa.backends.cluster import Cluster
from vasevqa.errors import VaseError
from vasevqa.pipeline.backend import MakeBackend, backend_of
from vasevqa.pipeline.runs import all_runs

HALF_MADE_SECONDS = (
    3600.0  # a job's folder takes its name within milliseconds; what is older was left by a killed launcher
)


def size(path: Path) -> int:
    """Bytes that removing `path` frees: files whose last link lies in it."""
    if path.is_file() or path.is_symlink():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            status = (Path(folder) / name).lstat()
            total += status.st_size if status.st_nlink == 1 else 0
    return total


def leftovers(volume: Volume, kept: set[tuple[str, str]], working: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Everything below artifacts/ that no kept run points to, nobody is writing and no job is about to write."""
    for step in sorted(volume.artifacts.iterdir()) if volume.artifacts.is_dir() else []:
        for entry in sorted(step.iterdir()) if step.is_dir() else []:
            key = entry.name.split(".")[0]
            artifact = Artifact(step.name, key, step / key)
            if holder(artifact.lease) is not None or job_prefix(step.name, key) in working:
                continue
            if entry.name == key:
                if (step.name, key) not in kept:
                    yield entry, "artifact of no run" if artifact.complete else "incomplete artifact"
            elif entry.suffix == ".partial":
                if (step.name, key) not in kept:
                    yield entry, "unfinished work of no unfinished run"
            elif entry.suffix == ".aside":
                yield entry, "replaced artifact"


def remove(volume: Volume, path: Path) -> bool:
    """Remove a file or folder; an artifact by one rename first, so that a crash leaves no half of it.

    False if it is in use now.
    """
    step, key = path.parent, path.name.split(".")[0]
    try:
        if step.parent == volume.artifacts and path.suffix != ".aside":
            path = Artifact(step.name, key, step / key).put_aside(path, f"clean-{os.getpid()}")
        shutil.rmtree(path)
    except (LeaseHeld, FileNotFoundError):
        return False
    return True


def backends(volume: Volume, make: MakeBackend) -> list[Backend]:
    """Wherever the volume's runs had their steps; a place that doesn't answer costs a line, and its leases protect what
    is written there.
    """
    found = [make("local", volume, Cluster())]
    seen: list[dict[str, object]] = []
    for run in all_runs(volume):
        place = run.place
        if place.get("backend", "local") != "local" and place not in seen:
            seen.append(place)
            try:
                found.append(backend_of(run, make))
            except VaseError as error:
                click.echo(f"Jobs of {run.name} were not looked at: {error}", err=True)
    return found
