"""`vasevqa run`: run the steps of a recipe whose artifacts are missing."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from vasevqa.artifacts.lease import LeaseHeld, bury
from vasevqa.backends.base import Backend
from vasevqa.backends.cluster import load_cluster
from vasevqa.cli import options
from vasevqa.cli.context import Context, pass_context
from vasevqa.cli.display import make_display
from vasevqa.cli.plan import plan_of
from vasevqa.cli.report import write_report
from vasevqa.confidential import NAMED
from vasevqa.errors import ConfigError, Interrupted
from vasevqa.pipeline.backend import left_running, remember
from vasevqa.pipeline.inspection import inside_of, look_inside
from vasevqa.pipeline.launcher import Cancelled, Detached, Launcher, RunRemoved
from vasevqa.pipeline.plan import Plan, plan_rows, with_gpu_product
from vasevqa.pipeline.requests import RunRequest
from vasevqa.pipeline.requirements import requirements_of
from vasevqa.pipeline.restarts import once
from vasevqa.pipeline.runs import Run, all_runs, finished_run, new_run, open_run
from vasevqa.pipeline.space import refuse_too_little


@click.command()
@options.recipe_options()
@options.volume_option
@options.selection_options
@options.json_option
@options.parallel_option
@options.backend_option
@options.cluster_option
@click.option("--detach", is_flag=True, help="on Ctrl-C, let running steps continue; the next `run` adopts them")
@click.option(
    "--launch", envvar="VASEVQA_LAUNCH", hidden=True, help="the launch in the cluster to which this process belongs"
)
@pass_context
def run(context: Context, **given: Any) -> None:
    """Run the steps of RECIPE whose artifacts are missing.

    After a crash, a kill or Ctrl-C, run the same command again to resume. If no artifact is missing, nothing runs.

    \b
    Example:
      vasevqa run recipe.yaml --set clip-filter.threshold=0.15 --input images=photos/
    """
    sys.exit(_run_or_repeat(context, RunRequest(**given)))


def _run_or_repeat(context: Context, request: RunRequest) -> int:
    if request.backend == "kubernetes" and not request.volume.is_dir():
        raise ConfigError(
            f"There is no folder {request.volume} here; give the folder where the claim is mounted as --volume, or"
            " start the run in the cluster with `vasevqa submit`."
        )
    if request.launch:
        return once(request.launch, request.volume.absolute(), lambda: _run(context, request))
    return _run(context, request)


def _run(context: Context, request: RunRequest) -> int:
    recipe = request.recipe.load(context.pipeline)
    for _ in look_inside(recipe, inside_of(recipe, requirements_of(recipe, context.pipeline, request.selection))):
        pass  # a wrong input raises an error
    planned = plan_of(context, recipe, request.volume, request.selection, using=True)
    as_json = request.as_json
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
    refuse_too_little(planned)
    cluster = load_cluster(request.cluster, context.pipeline.stages)
    if cluster.secrets:
        os.environ[NAMED] = ",".join(cluster.secrets)
    planned = with_gpu_product(planned, cluster)
    backend = context.make_backend(request.backend, planned.volume, cluster)
    for earlier in all_runs(planned.volume):
        bury(earlier.lease, backend.gone)
    record = open_run(planned.volume, recipe.name, recipe.text, plan_rows(planned))
    try:
        remember(record, request.backend, cluster)
        try:
            return _execute(planned, record, backend, request)
        except (LeaseHeld, RunRemoved):
            # Another launcher has just resumed the run, or `clean` has removed it. A new run adopts the jobs.
            record = new_run(planned.volume, recipe.name, recipe.text, plan_rows(planned))
            remember(record, request.backend, cluster)
            return _execute(planned, record, backend, request)
    finally:
        backend.close()


def _execute(planned: Plan, record: Run, backend: Backend, request: RunRequest) -> int:
    as_json = request.as_json
    display = make_display(as_json)
    for line in left_running(planned, record, backend):
        click.echo(line, err=True)
    launcher = Launcher(planned, record, backend, request.parallel, display)
    launcher.detach = request.detach
    try:
        if not as_json:
            click.echo(f"run {record.name}")
        launcher.execute()
    except (LeaseHeld, RunRemoved):
        raise
    except BaseException as error:
        display.close()
        write_report(record.path, planned.volume, quiet=as_json)
        if isinstance(error, Cancelled):
            click.echo("error: The run was cancelled; run the same command again to resume.", err=True)
            return 130
        if isinstance(error, Detached):
            click.echo(
                f"Detached from {record.name}: its steps keep running. Run the same command to adopt them, or stop"
                f" them with `vasevqa cancel {record.name}`."
            )
            return (
                Interrupted.exit_code if request.launch else 0
            )  # in the cluster, this exit code makes the Job restart the launcher
        raise
    display.close()
    write_report(record.path, planned.volume, quiet=as_json, summary=True)
    return 0
