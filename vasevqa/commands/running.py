"""`vasevqa plan`, `run` and `recipe`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vasevqa.backends.base import Backend, job_prefix
from vasevqa.backends.cluster import Cluster, load_cluster
from vasevqa.commands import placing
from vasevqa.commands.launching import once
from vasevqa.display import make_display
from vasevqa.errors import ConfigError, Interrupted
from vasevqa.pipeline.artifacts import Volume
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.launcher import Cancelled, Detached, Launcher
from vasevqa.pipeline.lease import LeaseHeld, bury
from vasevqa.pipeline.plan import Plan, Selection, make_plan
from vasevqa.pipeline.recipe import Recipe, load_recipe, recipe_schema
from vasevqa.pipeline.runs import Run, all_runs, finished_run, new_run, open_run


def _planned(given: dict[str, Any]) -> tuple[Recipe, Plan]:
    recipe = load_recipe(given["recipe"], PIPELINE, given["overrides"], given["inputs"], given["inputs_from"])
    volume = Volume(given["volume"].absolute())
    selection = Selection(given["first"], given["last"], given["only"], given["refresh"])
    return recipe, make_plan(recipe, PIPELINE, volume, selection)


def rows(planned: Plan) -> list[dict[str, Any]]:
    """The plan as plain values."""
    return [
        {"step": step.name, "key": step.artifact.key, "hit": step.hit, "sealed": step.artifact.sealed, "reasons": list(step.reasons)} for step in planned.steps
    ]


def plan(given: dict[str, Any]) -> None:
    """Print per step whether its artifact exists, and for a miss what differs."""
    _, planned = _planned(given)
    if given["as_json"]:
        for row in rows(planned):
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    width = max(len(name) for name in PIPELINE.names)
    for name, why in planned.skipped.items():
        click.echo(f"{name:<{width}}  skip  {why}")
    for step in planned.steps:
        first, *more = step.reasons or (f"up to date ({step.artifact.key[:10]})",)
        click.echo(f"{step.name:<{width}}  {'hit ' if step.hit else 'run '}  {first}")
        for reason in more:
            click.echo(f"{'':<{width}}        {reason}")


def run(given: dict[str, Any]) -> int:
    """Execute the plan; returns the exit code."""
    if given["backend"] == "kubernetes" and not given["volume"].is_dir():
        raise ConfigError(
            f"There is no folder {given['volume']} here, and the launcher must see the claim's files: name the folder where this machine has them with "
            "--volume, or let the launcher run in the cluster with `vasevqa submit`."
        )
    if given["launch"]:
        return once(given["launch"], given["volume"].absolute(), lambda: _run(given))
    return _run(given)


def _run(given: dict[str, Any]) -> int:
    recipe, planned = _planned(given)
    as_json = given["as_json"]
    if all(step.hit for step in planned.steps):
        before = finished_run(planned.volume, recipe.text, rows(planned))
        if before is not None:
            line = {"event": "nothing-to-do", "steps": len(planned.steps), "run": before.name, "report": str(before.report)}
            click.echo(json.dumps(line) if as_json else f"Nothing to do: all {len(planned.steps)} steps are up to date. Report: {before.report}")
            return 0
    cluster = load_cluster(given["cluster"])
    planned = _with_product(planned, cluster)
    backend = placing.make_backend(given["backend"], planned.volume, cluster)
    for earlier in all_runs(planned.volume):
        bury(earlier.lease, backend.gone)
    record = open_run(planned.volume, recipe.name, recipe.text, rows(planned))
    try:
        placing.remember(record, given["backend"], cluster)
        try:
            return _execute(planned, record, backend, given)
        except LeaseHeld:  # another launcher has just taken that run up: a run of our own attaches to its jobs
            record = new_run(planned.volume, recipe.name, recipe.text, rows(planned))
            placing.remember(record, given["backend"], cluster)
            return _execute(planned, record, backend, given)
    finally:
        backend.close()


def _with_product(planned: Plan, cluster: Cluster) -> Plan:
    """The site's GPU model for the steps with a GPU that name none. It changes no result, so it is in no key."""
    if cluster.gpu_product is None:
        return planned
    given = {"gpu_product": cluster.gpu_product}
    steps = [
        step if step.resources.gpu_product or not step.resources.gpus else replace(step, resources=step.resources.model_copy(update=given))
        for step in planned.steps
    ]
    return replace(planned, steps=tuple(steps))


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
            click.echo(f"Detached from {record.name}: its steps go on, and the same command takes them up again; `vasevqa cancel {record.name}` stops them.")
            return Interrupted.exit_code if given["launch"] else 0  # in the cluster: not done, start me again
        raise
    display.close()
    write_report(record.path, planned.volume, quiet=as_json)
    return 0


def left_running(planned: Plan, record: Run, backend: Backend) -> list[str]:
    """A line for each job that a killed launcher left running and that this run doesn't adopt."""
    ours = tuple(job_prefix(step.name, step.artifact.key) for step in planned.steps)
    lines = []
    for job in backend.existing("vase-"):
        owner = backend.owner(job)
        if job.startswith(ours) or owner is None or owner == record.name or backend.state(job).over:
            continue
        if Run(planned.volume, owner).state == "interrupted":
            lines.append(f"{job} of the interrupted run {owner} is still running; `vasevqa cancel {owner}` stops it.")
    return lines


def write_report(folder: Path, volume: Volume, quiet: bool) -> None:
    """Write the run's report; a report that can't be written costs a line, not the run."""
    from vasevqa.report.html import write_report as write

    try:
        where = write(folder, volume)
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        click.echo(f"The report could not be written ({why}); `vasevqa report {folder.name}` tries again.", err=True)
        return
    if not quiet:
        click.echo(f"Report: {where}")


def describe_recipes(schema: bool) -> None:
    """Print every step with its parameters and options, or the JSON schema."""
    if schema:
        click.echo(json.dumps(recipe_schema(PIPELINE), indent=2))
        return
    for step in PIPELINE.steps:
        click.echo(f"{step.name}: {step.stage.summary}")
        for model in (step.stage.params, step.stage.options):
            for name, info in model.model_fields.items():
                click.echo(f"  {name}: {info.get_default(call_default_factory=True)!r}  # {info.description}")
