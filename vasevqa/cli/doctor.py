"""`vasevqa doctor`: is the place fit for the recipe, before it costs anything?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from vasevqa.backends.checks import BAD, OK, UNKNOWN, WARNING
from vasevqa.cli.context import Context, pass_context
from vasevqa.cli.options import backend_option, cluster_option, namespace_option, volume_option
from vasevqa.pipeline.doctor import findings

MARKS = {OK: ("ok  ", "green"), WARNING: ("look", "yellow"), BAD: ("BAD ", "red"), UNKNOWN: ("?   ", None)}


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False), required=False)
@backend_option
@volume_option
@cluster_option
@namespace_option
@click.option("--set", "overrides", multiple=True, metavar="STEP.PARAM=VALUE", help="change a parameter")
@click.option("--input", "inputs", multiple=True, metavar="NAME=PATH", help="give or replace an input")
@click.option("--to", "last", metavar="STEP", help="up to this step")
@click.option(
    "--inputs-from",
    type=click.Path(path_type=Path, file_okay=False),
    help="paths in the recipe are relative to this folder, not to the recipe",
)
@click.option(
    "--pull/--no-pull",
    default=True,
    show_default=True,
    help="start a tiny pod of each image to see whether it can be pulled",
)
@click.option(
    "--upload", is_flag=True, help="inputs on this machine will be brought to the volume, as `submit --upload` does"
)
@click.option("--look", hidden=True, help="look at the volume alone, for what this JSON says of a recipe")
@click.option("--json", "as_json", is_flag=True, help="print JSON lines")
@pass_context
def doctor(context: Context, **given: Any) -> None:
    """Check the place before spending GPU hours.

    Looks at the cluster or engine, rights, claim, free space, images, GPUs, secrets, queue and models, for RECIPE if
    one is given. One line each; what may not be looked at is "?". The exit code is the worst line's, 0 if none is bad.

    \b
    Example:
      vasevqa doctor recipe.yaml --backend kubernetes -n my-namespace
    """
    worst = 0
    for finding in findings(context.pipeline, given):
        worst = max(worst, finding.code)
        if given["as_json"]:
            click.echo(json.dumps(finding.plain(), ensure_ascii=False))
        else:
            mark, colour = MARKS[finding.state]
            click.echo(f"{click.style(mark, fg=colour)}  {finding.what}: {finding.text}")
    sys.exit(worst)
