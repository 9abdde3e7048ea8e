"""`vasevqa clean`: what nothing points to any more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from vasevqa.backends.base import State
from vasevqa.backends.local import LocalBackend
from vasevqa.errors import ConfigError
from vasevqa.pipeline.artifacts import Artifact, Volume
from vasevqa.pipeline.lease import holder
from vasevqa.pipeline.runs import all_runs, find_run


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


def leftovers(volume: Volume, kept: set[Path]) -> Iterator[tuple[Path, str]]:
    """Everything below artifacts/ that no kept run points to and nobody is writing."""
    if not volume.artifacts.is_dir():
        return
    for step in sorted(volume.artifacts.iterdir()):
        for entry in sorted(step.iterdir()) if step.is_dir() else []:
            key = entry.name.split(".")[0]
            artifact = Artifact(step.name, key, step / key)
            if holder(artifact.lease) is not None:
                continue
            if entry.name == key:
                if entry not in kept:
                    yield entry, "artifact of no run" if artifact.complete else "incomplete artifact"
            elif entry.suffix == ".partial":
                yield entry, "unfinished work (a run would go on from it)"
            elif entry.suffix == ".aside":
                yield entry, "replaced artifact"
            elif entry.name.endswith((".lease", ".lease.lock")) and not artifact.partial.exists() and not artifact.complete:
                yield entry, "leftover lease"


def clean(names: tuple[str, ...], root: Path, yes: bool) -> None:
    """List, and with `yes` remove."""
    volume = Volume(root.absolute())
    named = [find_run(volume, name) for name in names]
    for run in named:
        if run.state == "running":
            raise ConfigError(f"Run {run.name} is running; cancel it first.")
    kept = {path for run in all_runs(volume) if run not in named for path in run.artifacts().values()}
    found = [(run.path, "run") for run in named] + list(leftovers(volume, {path.resolve() for path in kept}))
    backend = LocalBackend(volume.root)
    jobs = [job for job in backend.existing("vase-") if backend.state(job) in (State.FINISHED, State.GONE)]
    found += [(volume.root / ".jobs" / job, "finished job") for job in jobs]
    total = 0
    for path, why in found:
        freed = size(path)
        total += freed
        click.echo(f"{'removed' if yes else 'would remove'}  {freed / 2**20:9.1f} MiB  {why}: {path.relative_to(volume.root)}")
        if yes:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if not found:
        click.echo("Nothing to clean.")
    elif not yes:
        click.echo(f"{total / 2**20:.1f} MiB in all; `vasevqa clean --yes` removes them.")
