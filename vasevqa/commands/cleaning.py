"""`vasevqa clean`: what nothing points to any more."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click

from vasevqa.backends.base import Backend, job_prefix
from vasevqa.backends.cluster import Cluster
from vasevqa.commands import placing
from vasevqa.errors import ConfigError, VaseError
from vasevqa.pipeline.artifacts import Artifact, Volume
from vasevqa.pipeline.lease import LeaseHeld, holder
from vasevqa.pipeline.runs import all_runs, find_run

HALF_MADE_SECONDS = 3600.0  # a job's folder takes its name within milliseconds; what is older was left by a killed launcher


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
    """Remove a file or folder; an artifact by one rename first, so that a crash leaves no half of it. False if it is in use now."""
    step, key = path.parent, path.name.split(".")[0]
    try:
        if step.parent == volume.artifacts and path.suffix != ".aside":
            path = Artifact(step.name, key, step / key).put_aside(path, f"clean-{os.getpid()}")
        shutil.rmtree(path)
    except (LeaseHeld, FileNotFoundError):
        return False
    return True


def backends(volume: Volume) -> list[Backend]:
    """Wherever the volume's runs had their steps; a place that doesn't answer costs a line, and its leases protect what is written there."""
    found = [placing.make_backend("local", volume, Cluster())]
    seen: list[dict[str, object]] = []
    for run in all_runs(volume):
        place = run.place
        if place.get("backend", "local") != "local" and place not in seen:
            seen.append(place)
            try:
                found.append(placing.backend_of(run))
            except VaseError as error:
                click.echo(f"Jobs of {run.name} were not looked at: {error}", err=True)
    return found


def clean(names: tuple[str, ...], root: Path, yes: bool) -> None:
    """List, and with `yes` remove."""
    volume = Volume(root.absolute())
    named = [find_run(volume, name) for name in names]
    for run in named:
        if run.state == "running":
            raise ConfigError(f"Run {run.name} is running; cancel it first.")
    jobs = [(backend, job, backend.state(job)) for backend in backends(volume) for job in backend.existing("vase-")]
    for run in named:
        if any(backend.owner(job) == run.name and not state.over for backend, job, state in jobs):
            raise ConfigError(f"A step of run {run.name} is still running; cancel the run first.")
    working = tuple(f"{job.rpartition('-')[0]}-" for _, job, state in jobs if not state.over)
    kept: set[tuple[str, str]] = set()
    for run in all_runs(volume):
        if run not in named:
            kept |= {(step, path.name) for step, path in run.artifacts().items()}
            if run.state in ("running", "interrupted"):  # what it found up to date and hasn't come to yet
                kept |= set(run.keys().items())
    found = [(run.path, "run") for run in named] + list(leftovers(volume, kept, working))
    found += [(path, "job that never began") for path in volume.root.glob(".jobs/.vase-*") if time.time() - path.stat().st_mtime > HALF_MADE_SECONDS]
    over = [(backend, job) for backend, job, state in jobs if state.over]
    for backend, job in over:
        if yes:
            backend.remove(job)
        click.echo(f"{'removed' if yes else 'would remove'}  finished job: {job}")
    if yes:
        for run in named:
            try:
                placing.backend_of(run).forget_run(run.name)
            except VaseError as error:
                click.echo(f"What the cluster keeps of {run.name} was not removed: {error}", err=True)
    total = 0
    for path, why in found:
        freed = size(path)
        if yes and not remove(volume, path):
            continue
        total += freed
        click.echo(f"{'removed' if yes else 'would remove'}  {freed / 2**20:9.1f} MiB  {why}: {path.relative_to(volume.root)}")
    if not found and not over:
        click.echo("Nothing to clean.")
    elif not yes:
        click.echo(f"{total / 2**20:.1f} MiB in all; `vasevqa clean --yes` removes them.")
