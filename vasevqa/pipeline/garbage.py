"""`vasevqa clean`: find and remove the files and jobs that no run uses."""

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
    3600.0  # a job's folder gets its name within milliseconds; an older folder without a name is from a killed launcher
)


def size(path: Path) -> int:
    """Return the number of bytes that the removal of `path` frees. A file with several hard links counts as 0 bytes."""
    if path.is_file() or path.is_symlink():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            status = (Path(folder) / name).lstat()
            total += status.st_size if status.st_nlink == 1 else 0
    return total


def leftovers(volume: Volume, kept: set[tuple[str, str]], working: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yield each folder below artifacts/ that can be removed, with the reason.

    No process writes to such a folder, and no running job makes its artifact. `kept` holds the step and the key of each
    artifact that a run uses or still needs. `working` holds the prefixes of the names of running jobs (`job_prefix`).
    """
    for step in sorted(volume.artifacts.iterdir()) if volume.artifacts.is_dir() else []:
        for entry in sorted(step.iterdir()) if step.is_dir() else []:
            key = entry.name.split(".")[0]
            artifact = Artifact(step.name, key, step / key)
            if holder(artifact.lease) is not None or job_prefix(step.name, key) in working:
                continue
            if entry.name == key:
                if (step.name, key) not in kept:
                    yield entry, "artifact that no run uses" if artifact.complete else "incomplete artifact"
            elif entry.suffix == ".partial":
                if (step.name, key) not in kept:
                    yield entry, "partial artifacts that no unfinished run needs"
            elif entry.suffix == ".aside":
                yield entry, "replaced artifact"


def remove(volume: Volume, path: Path) -> bool:
    """Remove a folder; return False if the folder is in use or already removed.

    An artifact is renamed before the removal. So after a crash, no incomplete artifact keeps the final name.
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
