"""`vasevqa recipe`: explain a recipe, describe every step and its parameters, or list a recipe's stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import BaseModel

from vasevqa.cli.context import Context, pass_context
from vasevqa.pipeline.recipe import Recipe, load_recipe, recipe_schema
from vasevqa.pipeline.requirements import stages_of
from vasevqa.pipeline.selection import Selection, select_steps
from vasevqa.spec import Pipeline


@click.command()
@click.argument("path", metavar="[RECIPE]", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--schema", is_flag=True, help="print the JSON schema for editors")
@click.option("--stages", is_flag=True, help="print the stages that RECIPE runs, one per line")
@click.option("--to", "last", metavar="STEP", help="last step to show")
@pass_context
def recipe(context: Context, path: Path | None, schema: bool, stages: bool, last: str | None) -> None:
    """Explain RECIPE, or describe every step and its parameters.

    With RECIPE, shows the steps that run, what each of them reads, and the values that differ from the defaults. The
    inputs need not exist.
    """
    if stages:
        if path is None:
            raise click.UsageError("--stages needs a RECIPE.")
        click.echo("\n".join(stages_of(context.pipeline, path, last)))
        return
    if schema:
        click.echo(json.dumps(recipe_schema(context.pipeline), indent=2))
        return
    if path is not None:
        for line in explained(load_recipe(path, context.pipeline, here=False), context.pipeline, last):
            click.echo(line)
        return
    for step in context.pipeline.steps:
        click.echo(f"{step.name}: {step.stage.summary}")
        for model in (step.stage.params, step.stage.options):
            for name, info in model.model_fields.items():
                click.echo(f"  {name}: {info.get_default(call_default_factory=True)!r}  # {info.description}")


def explained(loaded: Recipe, pipeline: Pipeline, last: str | None) -> Iterator[str]:
    """Yield lines about a recipe: its inputs, the steps that it runs, and the values that differ from the defaults."""
    selected = select_steps(loaded, pipeline, Selection(last=last))
    yield f"{loaded.name}: runs {', '.join(selected.names)}"
    for name, value in loaded.inputs.items():
        yield f"  inputs.{name}: {value}"
    for step in pipeline.steps:
        if step.name in selected.skipped:
            yield f"{step.name}: {selected.skipped[step.name]}"
        if step.name not in selected.names:
            continue
        yield f"{step.name}: {step.stage.summary}"
        sources = {own: str(source) for own, source in selected.wiring[step.name].items()}
        given = [
            f"{own} from {source}"
            for own, source in sources.items()
            if not source.startswith("inputs.") or source.removeprefix("inputs.") in loaded.inputs
        ]
        yield f"  reads {', '.join(given)}" if given else "  reads no input of the recipe"
        settings = loaded.steps[step.name]
        for values in (settings.params, settings.options):
            yield from _changed(values)
        wanted = settings.resources.model_dump(exclude_none=True)
        usual = step.stage.resources.model_dump(exclude_none=True)
        changed = {name: value for name, value in wanted.items() if usual.get(name) != value}
        if changed:
            yield f"  resources: {changed}"


def _changed(values: BaseModel) -> Iterator[str]:
    """Yield the values that differ from the defaults, each with its default and its description."""
    defaults = type(values)()
    for name, info in type(values).model_fields.items():
        value, default = getattr(values, name), getattr(defaults, name)
        if value != default:
            yield f"  {name}: {value!r}  # {info.description} (default: {default!r})"
