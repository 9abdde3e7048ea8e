"""`vasevqa doctor`: check that a recipe can run, before it uses GPU hours."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from vasevqa.backends.checks import BAD, OK, UNKNOWN, WARNING
from vasevqa.cli import options
from vasevqa.cli.context import Context, pass_context
from vasevqa.pipeline.doctor import VolumeQuestion, findings, volume_findings
from vasevqa.pipeline.requests import DoctorRequest

MARKS = {OK: ("ok  ", "green"), WARNING: ("look", "yellow"), BAD: ("BAD ", "red"), UNKNOWN: ("?   ", None)}


@click.command()
@options.recipe_options(required=False)
@options.backend_option
@options.volume_option
@options.cluster_option
@options.namespace_option
@click.option("--to", "last", metavar="STEP", help="up to this step")
@click.option(
    "--pull/--no-pull",
    default=True,
    show_default=True,
    help="start a tiny pod of each image to test whether it can be pulled",
)
@click.option(
    "--upload", is_flag=True, help="inputs on this machine will be copied to the volume, as `submit --upload` does"
)
@click.option("--look", hidden=True, help="check the volume only, for the recipe described by this JSON")
@options.json_option
@pass_context
def doctor(context: Context, look: str | None, as_json: bool, **given: Any) -> None:
    """Check cluster, volume and recipe before spending GPU hours.

    Checks the cluster or engine, rights, claim, free space, images, GPUs, secrets, queue and models, for RECIPE if it
    is given. Prints one line per check; "?" marks a check that was not possible. The exit code is that of the
    worst line, and 0 if no line is bad.

    \b
    Example:
      vasevqa doctor recipe.yaml --backend kubernetes -n my-namespace
    """
    worst = 0
    request = DoctorRequest(**given)
    found = findings(context.pipeline, request)
    if look:
        found = volume_findings(request.volume, VolumeQuestion.from_json(look))
    for finding in found:
        worst = max(worst, finding.code)
        if as_json:
            click.echo(json.dumps(finding.plain(), ensure_ascii=False))
        else:
            mark, colour = MARKS[finding.state]
            click.echo(f"{click.style(mark, fg=colour)}  {finding.what}: {finding.text}")
    sys.exit(worst)
