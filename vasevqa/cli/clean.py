"""`vasevqa clean`: list and remove artifacts and jobs that no run needs."""

from __future__ import annotations

import time
from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli.context import Context, pass_context
from vasevqa.cli.options import volume_option
from vasevqa.errors import ConfigError, VaseError
from vasevqa.pipeline.backend import backend_of
from vasevqa.pipeline.garbage import HALF_MADE_SECONDS, backends, leftovers, remove, size
from vasevqa.pipeline.runs import all_runs, find_run


@click.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option("--yes", is_flag=True, help="remove the files and jobs; without --yes, only list them")
@volume_option
@pass_context
def clean(context: Context, names: tuple[str, ...], volume: Path, yes: bool) -> None:
    """List the files and jobs that no run uses; remove them with --yes.

    The list contains artifacts that belong to no run, unfinished work of runs that have ended, and finished jobs. If
    you name RUNs, the list also contains these runs and their artifacts, except artifacts that another run uses. Inputs
    are never removed.
    """
    _clean(context, names, Volume(volume.absolute()), yes)


def _clean(context: Context, names: tuple[str, ...], volume: Volume, yes: bool) -> None:
    named = [find_run(volume, name) for name in names]
    for run in named:
        if run.state == "running":
            raise ConfigError(f"Run {run.name} is running; cancel it first.")
    jobs = [
        (backend, job, backend.state(job))
        for backend in backends(volume, context.make_backend)
        for job in backend.existing("vase-")
    ]
    for run in named:
        if any(backend.owner(job) == run.name and not state.is_terminal for backend, job, state in jobs):
            raise ConfigError(f"A step of run {run.name} is still running; cancel the run first.")
    working = tuple(f"{job.rpartition('-')[0]}-" for _, job, state in jobs if not state.is_terminal)
    kept: set[tuple[str, str]] = set()
    for run in all_runs(volume):
        if run not in named:
            kept |= {(step, path.name) for step, path in run.artifacts().items()}
            if run.state in (
                "running",
                "interrupted",
            ):  # artifacts that were up to date and that the run does not link yet
                kept |= set(run.keys().items())
    removable = [(run.path, "run") for run in named] + list(leftovers(volume, kept, working))
    removable += [
        (path, "job that never began")
        for path in volume.root.glob(".jobs/.vase-*")
        if time.time() - path.stat().st_mtime > HALF_MADE_SECONDS
    ]
    over = [(backend, job) for backend, job, state in jobs if state.is_terminal]
    for backend, job in over:
        if yes:
            backend.remove(job)
        click.echo(f"{'removed' if yes else 'would remove'}  finished job: {job}")
    if yes:
        for run in named:
            try:
                backend_of(run, context.make_backend).forget_run(run.name)
            except VaseError as error:
                click.echo(f"The cluster's objects of {run.name} were not removed: {error}", err=True)
    total = 0
    for path, why in removable:
        freed = size(path)
        if yes and not remove(volume, path):
            continue
        total += freed
        click.echo(
            f"{'removed' if yes else 'would remove'}  {freed / 2**20:9.1f} MiB  {why}: {path.relative_to(volume.root)}"
        )
    if not removable and not over:
        click.echo("Nothing to clean.")
    elif not yes:
        click.echo(f"{total / 2**20:.1f} MiB in total; remove them with `vasevqa clean --yes`.")
