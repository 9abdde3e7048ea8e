"""`vasevqa recipe`: describe every step and its parameters, or list a recipe's stages."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vasevqa.cli.context import Context, pass_context
from vasevqa.pipeline.recipe import recipe_schema
from vasevqa.pipeline.requirements import stages_of


@click.command()
@click.argument("path", metavar="[RECIPE]", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--schema", is_flag=True, help="print the JSON schema for editors")
@click.option("--stages", is_flag=True, help="print the stages that RECIPE runs, one a line")
@click.option("--to", "last", metavar="STEP", help="up to this step")
@pass_context
def recipe(context: Context, path: Path | None, schema: bool, stages: bool, last: str | None) -> None:
    """Describe every step and its parameters, or RECIPE's stages."""
    if stages:
        if path is None:
            raise click.UsageError("--stages needs a RECIPE.")
        click.echo("\n".join(stages_of(context.pipeline, path, last)))
        return
    if schema:
        click.echo(json.dumps(recipe_schema(context.pipeline), indent=2))
        return
    for step in context.pipeline.steps:
        click.echo(f"{step.name}: {step.stage.summary}")
        for model in (step.stage.params, step.stage.options):
            for name, info in model.model_fields.items():
                click.echo(f"  {name}: {info.get_default(call_default_factory=True)!r}  # {info.description}")
