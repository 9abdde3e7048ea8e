"""`vasevqa run`: make what a recipe lacks."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from vasevqa.artifacts.lease import LeaseHeld, bury
from vasevqa.backends.base import Backend
from vasevqa.backends.cluster import load_cluster
from vasevqa.cli import options
from vasevqa.cli.context import Context, pass_context
from vasevqa.cli.display import make_display
from vasevqa.cli.plan import load_plan
from vasevqa.cli.report import write_report
from vasevqa.errors import ConfigError, Interrupted
from vasevqa.pipeline.backend import left_running, remember
from vasevqa.pipeline.launcher import Cancelled, Detached, Launcher
from vasevqa.pipeline.plan import Plan, plan_rows, with_gpu_product
from vasevqa.pipeline.restarts import once
from vasevqa.pipeline.runs import Run, all_runs, finished_run, new_run, open_run


@click.command()
@options.plan_options
@click.option(
    "--parallel", "--max-parallel", type=click.IntRange(1), default=2, show_default=True, help="steps side by side"
)
@options.backend_option
@options.cluster_option
@click.option("--detach", is_flag=True, help="on Ctrl-C leave running steps to the next `run`, which adopts them")
@click.option("--launch", envvar="VASEVQA_LAUNCH", hidden=True, help="the launch that this is a start of, in a cluster")
@pass_context
def run(context: Context, **given: Any) -> None:
    """Run RECIPE, as far as its artifacts are missing.

    The same command goes on after a crash, a kill or Ctrl-C; when nothing is missing, it does nothing.

    \b
    Example:
      vasevqa run recipe.yaml --set clip-filter.threshold=0.15 --input images=photos/
    """
    sys.exit(_run_or_repeat(context, given))


def _run_or_repeat(context: Context, given: dict[str, Any]) -> int:
    if given["backend"] == "kubernetes" and not given["volume"].is_dir():
        raise ConfigError(
            f"There is no folder {given['volume']} here, and the launcher must see the claim's files: name the folder"
            " where this machine has them with --volume, or let the launcher run in the cluster with `vasevqa submit`."
        )
    if given["launch"]:
        return once(given["launch"], given["volume"].absolute(), lambda: _run(context, given))
    return _run(context, given)


def _run(context: Context, given: dict[str, Any]) -> int:
    recipe, planned = load_plan(context.pipeline, given)
    as_json = given["as_json"]
    if all(step.hit for step in planned.steps):
        before = finished_run(planned.volume, recipe.text, plan_rows(planned))
        if before is not None:
            line = {
                "event": "nothing-to-do",
                "steps": len(planned.steps),
                "run": before.name,
                "report": str(before.report),
            }
            click.echo(
                json.dumps(line)
                if as_json
                else f"Nothing to do: all {len(planned.steps)} steps are up to date. Report: {before.report}"
            )
            return 0
    cluster = load_cluster(given["cluster"])
    planned = with_gpu_product(planned, cluster)
    backend = context.make_backend(given["backend"], planned.volume, cluster)
    for earlier in all_runs(planned.volume):
        bury(earlier.lease, backend.gone)
    record = open_run(planned.volume, recipe.name, recipe.text, plan_rows(planned))
    try:
        remember(record, given["backend"], cluster)
        try:
            return _execute(planned, record, backend, given)
        except LeaseHeld:  # another launcher has just taken that run up: a run of our own attaches to its jobs
            record = new_run(planned.volume, recipe.name, recipe.text, plan_rows(planned))
            remember(record, given["backend"], cluster)
            return _execute(planned, record, backend, given)
    finally:
        backend.close()


def _execute(planned: Plan, record: Run, backend: Backend, given: dict[str, Any]) -> int:
    as_json = given["as_json"]
    display = make_display(as_json)
    for line in left_running(planned, record, backend):
        click.echo(line, err=True)
    launcher = Launcher(planned, record, backend, given["parallel"], display)
    launcher.detach = given["detach"]
    try:
        if not as_json:
            click.echo(f"run {record.name}")
        launcher.execute()
    except LeaseHeld:
        raise
    except BaseException as error:
        display.close()
        write_report(record.path, planned.volume, quiet=as_json)
        if isinstance(error, Cancelled):
            click.echo("error: The run was cancelled; the same command goes on where it was.", err=True)
            return 130
        if isinstance(error, Detached):
            click.echo(
                f"Detached from {record.name}: its steps go on, and the same command takes them up again; `vasevqa"
                f" cancel {record.name}` stops them."
            )
            return Interrupted.exit_code if given["launch"] else 0  # in the cluster: not done, start me again
        raise
    display.close()
    write_report(record.path, planned.volume, quiet=as_json)
    return 0
