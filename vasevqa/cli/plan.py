"""`vasevqa plan`: what would run, and why."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.cli import options, remote
from vasevqa.cli.context import Context, pass_context
from vasevqa.pipeline.plan import Plan, Selection, make_plan, plan_rows
from vasevqa.pipeline.recipe import Recipe, load_recipe
from vasevqa.spec import Pipeline


@click.command()
@options.plan_options
@options.place_options
@pass_context
def plan(context: Context, **given: Any) -> None:
    """Show what `run` would do, and why.

    With a namespace: on the cluster's volume, as `submit` would have it.

    \b
    Example:
      vasevqa plan recipe.yaml --set clip-filter.threshold=0.15
    """
    if options.is_remote(given["volume"], given["cluster"], given["namespace"]):
        sys.exit(_remote_plan(given))
    _, planned = load_plan(context.pipeline, given)
    if given["as_json"]:
        for row in plan_rows(planned):
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    width = max(len(name) for name in context.pipeline.names)
    for name, why in planned.skipped.items():
        click.echo(f"{name:<{width}}  skip  {why}")
    for step in planned.steps:
        first, *more = step.reasons or (f"up to date ({step.artifact.key[:10]})",)
        click.echo(f"{step.name:<{width}}  {'hit ' if step.hit else 'run '}  {first}")
        for reason in more:
            click.echo(f"{'':<{width}}        {reason}")


def load_plan(pipeline: Pipeline, given: dict[str, Any]) -> tuple[Recipe, Plan]:
    """The recipe that the options name, and its plan."""
    recipe = load_recipe(given["recipe"], pipeline, given["overrides"], given["inputs"], given["inputs_from"])
    volume = Volume(given["volume"].absolute())
    selection = Selection(given["first"], given["last"], given["only"], given["refresh"])
    return recipe, make_plan(recipe, pipeline, volume, selection)


def _remote_plan(given: dict[str, Any]) -> int:
    """`vasevqa plan` on the cluster's volume."""
    words = ["plan", "/tmp/recipe.yaml", "--inputs-from", VOLUME]  # noqa: S108 - inside the pod
    for option, values in (
        ("--set", given["overrides"]),
        ("--input", given["inputs"]),
        ("--only", given["only"]),
        ("--refresh", given["refresh"]),
    ):
        words += [word for value in values for word in (option, value)]
    words += options.asked(None, ("--from", given["first"]), ("--to", given["last"]), ("--json", given["as_json"]))
    return remote.answer(given["cluster"], given["namespace"], words, given["recipe"])
