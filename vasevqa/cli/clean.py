"""`vasevqa clean`: list and remove artifacts and jobs that no run needs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.backends.base import Backend, State, job_prefix
from vasevqa.cli import remote
from vasevqa.cli.context import Context, pass_context
from vasevqa.cli.options import asked as words_of
from vasevqa.cli.options import cluster_options, is_remote, volume_option
from vasevqa.errors import ConfigError, VaseError
from vasevqa.pipeline.backend import backend_of
from vasevqa.pipeline.garbage import GONE, GRACE_SECONDS, Cleaner, Item, Sizes, Wanted, backends, found
from vasevqa.pipeline.in_use import ArtifactsInUse
from vasevqa.pipeline.runs import Run, all_runs, find_run
from vasevqa.text import nearest

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
Jobs = list[tuple[Backend, str, State]]


def _seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Return a duration such as 90m, 12h, 30d or 4w in seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]+)([mhdw])", value.strip())
    if found is None:
        raise click.BadParameter(f"'{value}' is no duration; write a number and m, h, d or w, such as 30d.")
    return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True)
class Asked:
    """The command line of `vasevqa clean`."""

    names: tuple[str, ...]
    yes: bool
    partial: bool
    older_than: float | None
    keep_last: int | None
    steps: tuple[str, ...]

    def to_args(self) -> list[str]:
        """Return the arguments with which a pod that mounts the volume runs the same command."""
        age = "" if self.older_than is None else f"{self.older_than / UNITS['m']:.0f}m"
        words = [*self.names, *words_of(None, ("--yes", self.yes), ("--partial", self.partial))]
        words += ["--older-than", age] if age else []
        words += ["--keep-last", str(self.keep_last)] if self.keep_last is not None else []
        return words + [word for step in self.steps for word in ("--step", step)]


@click.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option("--yes", is_flag=True, help="remove the files and jobs; without --yes, only list them")
@click.option(
    "--partial",
    is_flag=True,
    help="also remove unfinished work, such as checkpoints; the steps then begin anew",
)
@click.option(
    "--older-than", callback=_seconds, metavar="AGE", help="also finished runs of this age, such as 30d or 12h"
)
@click.option("--keep-last", type=click.IntRange(0), metavar="N", help="also finished runs except the newest N runs")
@click.option("--step", "steps", multiple=True, metavar="STEP", help="only artifacts of this step (may be repeated)")
@volume_option
@cluster_options
@pass_context
def clean(context: Context, volume: Path, cluster: Path | None, namespace: str | None, **given: Any) -> None:
    """List the files and jobs that no run uses; remove them with --yes.

    The list contains artifacts that belong to no run, and finished jobs. If you name RUNs, or select finished runs with
    --older-than or --keep-last, the list also contains these runs and their artifacts, except artifacts that another
    run uses. Files that changed within the last hour are kept, unless you name their run. Unfinished work is kept
    unless you say --partial. Inputs are never removed.

    \b
    Example:
      vasevqa clean --keep-last 5 --older-than 30d --yes
    """
    wanted = Asked(**given)
    if is_remote(volume, cluster, namespace):
        sys.exit(remote.answer(cluster, namespace, ["clean", *wanted.to_args()]))
    _clean(context, Volume(volume.absolute()), wanted)


def _clean(context: Context, volume: Volume, asked: Asked) -> None:
    _refuse_unknown(context, volume, asked)
    reachable = backends(volume, context.make_backend)
    jobs: Jobs = [(backend, job, backend.state(job)) for backend in reachable for job in backend.existing("vase-")]
    selected = _selected(volume, asked, jobs)
    for run in all_runs(volume):
        if text := run.damage():
            click.echo(f"Run {run.name} is damaged: {text}. Its artifacts are kept until you name it.", err=True)
    usage = ArtifactsInUse(volume, [run.name for run in selected])
    wanted = Wanted(selected, asked.steps, asked.partial, max(GRACE_SECONDS, asked.older_than or 0.0))
    working = tuple({_prefix(job) for _, job, state in jobs if not state.is_terminal})
    items = list(found(volume, usage, wanted, working))
    over = _remove_jobs(usage, asked, jobs)
    cleaner = Cleaner(usage, lambda artifact: _busy(reachable, artifact))
    removed, freed = _remove(context, volume, asked, items, cleaner)
    if not removed and not over:
        click.echo("Nothing to clean.")
    elif asked.yes:
        click.echo(f"{freed / 2**20:.1f} MiB freed.")
    else:
        click.echo(f"{freed / 2**20:.1f} MiB in total; remove them with the same command and --yes.")


def _refuse_unknown(context: Context, volume: Volume, asked: Asked) -> None:
    if asked.names and (asked.older_than is not None or asked.keep_last is not None):
        raise ConfigError("Name the runs, or select them with --older-than and --keep-last, but not both.")
    made = [path.name for path in volume.artifacts.iterdir()] if volume.artifacts.is_dir() else []
    known = [*context.pipeline.names, *made]
    for step in asked.steps:
        if step not in known:
            raise ConfigError(f"There is no step '{step}'.{nearest(step, known)}")


def _selected(volume: Volume, asked: Asked, jobs: Jobs) -> tuple[Run, ...]:
    """Return the runs that the user named or selected. Raise ConfigError for a named run that is running."""
    works = {backend.owner(job) for backend, job, state in jobs if not state.is_terminal}
    named = tuple(find_run(volume, name) for name in asked.names)
    for run in named:
        if run.state == "running":
            raise ConfigError(f"Run {run.name} is running; cancel it first.")
        if run.name in works:
            raise ConfigError(f"A step of run {run.name} is still running; cancel the run first.")
    if asked.older_than is None and asked.keep_last is None:
        return tuple(dict.fromkeys(named))
    runs = all_runs(volume)
    older = runs[: max(0, len(runs) - (asked.keep_last or 0))]
    states = ("finished", "failed", "cancelled", "interrupted") if asked.partial else ("finished",)
    return tuple(
        run for run in older if run.name not in works and run.state in states and _age(run) >= (asked.older_than or 0.0)
    )


def _age(run: Run) -> float:
    """Return the seconds since the last event of the run."""
    last = run.events.path if run.events.path.exists() else run.path
    return time.time() - last.stat().st_mtime


def _prefix(job: str) -> str:
    return f"{job.rpartition('-')[0]}-"


def _busy(reachable: Sequence[Backend], artifact: Artifact) -> bool:
    """Ask the backends again, and return True if a job is making the artifact now."""
    prefix = job_prefix(artifact.step, artifact.key)
    return any(not backend.state(job).is_terminal for backend in reachable for job in backend.existing(prefix))


def _remove_jobs(usage: ArtifactsInUse, asked: Asked, jobs: Jobs) -> bool:
    """List the ended jobs that no launcher watches, or remove them with --yes. Return True if there is such a job."""
    watched = {job_prefix(*name) for name in usage.worked_on()}
    over = [
        (backend, job)
        for backend, job, state in jobs
        if state.is_terminal
        and _prefix(job) not in watched
        and (not asked.steps or job.startswith(tuple(f"vase-{step}-" for step in asked.steps)))
    ]
    for backend, job in over:
        if asked.yes:
            backend.remove(job)
        click.echo(f"{'removed' if asked.yes else 'would remove'}  finished job: {job}")
    return bool(over)


def _remove(
    context: Context, volume: Volume, asked: Asked, items: Sequence[Item], cleaner: Cleaner
) -> tuple[bool, float]:
    """List the items with their sizes, or remove the items with --yes.

    Return True if at least one item can be removed, and how many bytes all removals free together.
    """
    sizes, total, some = Sizes(), 0, False
    for item in items:
        where = f"{item.path.relative_to(volume.root)}"
        # A removal changes the numbers of links, so each removed item is measured by itself.
        freed = (Sizes() if asked.yes or item.kept else sizes).add(item.path)
        kept = item.kept or (_remove_one(context, item, cleaner) if asked.yes else cleaner.refusal(item))
        if kept and kept != GONE:
            click.echo(f"kept          {freed / 2**20:9.1f} MiB  {where}: {kept}")
        if not kept:
            total, some = total + freed, True
            click.echo(f"{'removed' if asked.yes else 'would remove'}  {freed / 2**20:9.1f} MiB  {item.why}: {where}")
    return some, total


def _remove_one(context: Context, item: Item, cleaner: Cleaner) -> str:
    """Remove the item; if it is a run, also remove its objects in the cluster.

    Return the reason if the item was kept, and '' if it was removed.
    """
    backend, problem = None, ""
    if item.run is not None:
        try:
            backend = backend_of(item.run, context.make_backend)
        except VaseError as error:
            problem = str(error)
    kept = cleaner.remove(item)
    if kept or item.run is None:
        return kept
    try:
        if backend is not None:
            backend.forget_run(item.run.name)
    except VaseError as error:
        problem = str(error)
    if problem:
        click.echo(f"The cluster's objects of {item.run.name} were not removed: {problem}", err=True)
    return ""
