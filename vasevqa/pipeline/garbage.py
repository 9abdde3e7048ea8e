"""`vasevqa clean`: finds and removes what no run refers to."""

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
    3600.0  # a job's folder gets its name within milliseconds; older unnamed ones were left by a killed launcher
)


def size(path: Path) -> int:
    """Return the bytes that removing `path` frees: files with other hard links elsewhere don't count."""
    if path.is_file() or path.is_symlink():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            status = (Path(folder) / name).lstat()
            total += status.st_size if status.st_nlink == 1 else 0
    return total


def leftovers(volume: Volume, kept: set[tuple[str, str]], working: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yield everything below artifacts/ that no kept run refers to, that nobody writes and no job is about to write."""
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
                    yield entry, "partial artifacts that no unfinished run needs"
            elif entry.suffix == ".aside":
                yield entry, "replaced artifact"


def remove(volume: Volume, path: Path) -> bool:
    """Remove a file or folder; False if it is in use.

    An artifact is renamed first, so a crash never leaves part of it under its name.
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
    """Return the backends of all runs on the volume.

    A backend that doesn't answer is reported on stderr and left out; leases protect what its jobs write.
    """
    found = [make("local", volume, Cluster())]
    seen: list[dict[str, object]] = []
    for run in all_runs(volume):
        settings = run.backend_settings
        if settings.get("backend", "local") != "local" and settings not in seen:
            seen.append(settings)
            try:
                found.append(backend_of(run, make))
            except VaseError as error:
                click.echo(f"Jobs of {run.name} were not checked: {error}", err=True)
    return found
