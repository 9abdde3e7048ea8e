"""`vasevqa plan`: show which steps would run, and why."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.cli import options, remote
from vasevqa.cli.context import Context, pass_context
from vasevqa.errors import ConfigError
from vasevqa.pipeline.forecast import forecast, measure
from vasevqa.pipeline.growth import growth
from vasevqa.pipeline.inspection import inside_of, look_inside
from vasevqa.pipeline.plan import Plan, make_plan, plan_rows
from vasevqa.pipeline.recipe import Recipe
from vasevqa.pipeline.requests import RecipeRequest
from vasevqa.pipeline.requirements import requirements_of
from vasevqa.pipeline.selection import Selection


@click.command()
@options.recipe_options()
@options.volume_option
@options.selection_options
@options.json_option
@click.option("--measure", "measured", is_flag=True, help="run CLIP for five seconds if its speed here is unknown")
@options.cluster_options
@pass_context
def plan(
    context: Context,
    recipe: RecipeRequest,
    volume: Path,
    selection: Selection,
    as_json: bool,
    measured: bool,
    cluster: Path | None,
    namespace: str | None,
) -> None:
    """Show what `run` would do, and why.

    With a namespace, shows what `submit` would do on the cluster's volume.

    \b
    Example:
      vasevqa plan recipe.yaml --set clip-filter.threshold=0.15
    """
    if options.is_remote(volume, cluster, namespace):
        _refuse_local(measured, recipe.inputs_from)
        asked = [*recipe.to_args(), *selection.to_args(), *(["--json"] if as_json else [])]
        command = ["plan", "/tmp/recipe.yaml", "--inputs-from", VOLUME, *asked]  # noqa: S108 - inside the pod
        sys.exit(remote.answer(cluster, namespace, command, recipe.path))
    if as_json and measured:
        raise ConfigError("--measure estimates the time, which --json doesn't print; leave one of them out.")
    loaded = recipe.load(context.pipeline)
    inside = inside_of(loaded, requirements_of(loaded, context.pipeline, selection))
    seen = list(look_inside(loaded, inside))
    planned = plan_of(context, loaded, volume, selection)
    grown = growth(planned)
    if as_json:
        for row in plan_rows(planned):
            counts = asdict(grown[row["step"]]) if row["step"] in grown else {}
            click.echo(json.dumps({**row, **counts}, ensure_ascii=False))
        return
    for name, text in seen:
        click.echo(f"{name}: {text}")
    width = max(len(name) for name in context.pipeline.names)
    for name, why in planned.skipped.items():
        click.echo(f"{name:<{width}}  skip  {why}")
    for step in planned.steps:
        first, *more = step.reasons or (f"up to date ({step.artifact.key[:10]})",)
        click.echo(f"{step.name:<{width}}  {'hit ' if step.hit else 'run '}  {first}")
        for reason in [*more, *([grown[step.name].said()] if step.name in grown else [])]:
            click.echo(f"{'':<{width}}        {reason}")
    if "images" in inside.paths:
        photographs = inside.collection.files
        paces = measure(planned, photographs) if measured else {}
        new = {name: step.new for name, step in grown.items()}
        click.echo(forecast(planned, len(photographs), paces, new).said())


def _refuse_local(measured: bool, inputs_from: Path | None) -> None:
    """Raise ConfigError for an option that works only if the plan is made on this machine, not in the cluster."""
    if measured:
        raise ConfigError(
            "--measure runs CLIP on this machine, but the plan is for the cluster; leave out --measure, or the"
            " cluster's options."
        )
    if inputs_from is not None:
        raise ConfigError(
            f"--inputs-from {inputs_from} is a folder of this machine, but the plan is for the cluster, where paths are"
            " relative to the volume; leave out --inputs-from."
        )


def plan_of(context: Context, recipe: Recipe, volume: Path, selection: Selection, using: bool = False) -> Plan:
    """Return the plan of the recipe for the present content of the volume.

    `using` is True if a run will use the plan. `clean` then keeps the artifacts that exist already.
    """
    return make_plan(recipe, context.pipeline, Volume(volume.absolute()), selection, using)
