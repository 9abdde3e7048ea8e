"""`vasevqa models`: list suitable models, and the commands that fetch them."""

from __future__ import annotations

import json

import click

from vasevqa.cli import options
from vasevqa.starting.choices import choices, described


@click.command()
@options.json_option
def models(as_json: bool) -> None:
    """List suitable models, with size, licence and the commands that fetch them.

    The GPU memory is an estimate. Nothing is downloaded.
    """
    for choice in choices():
        if as_json:
            more = {"card": choice.card, "fetch": dict(choice.fetch()), "gpu_memory_estimate": choice.memory()}
            click.echo(json.dumps({**choice.model_dump(), **more}, ensure_ascii=False))
        else:
            click.echo("\n".join(described(choice)) + "\n")
    if not as_json:
        click.echo("Give a fetched folder as an input of the recipe, such as `clip_model: models/NAME`.")
