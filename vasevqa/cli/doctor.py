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
from vasevqa.text import unfiltered

MARKS = {OK: ("ok  ", "green"), WARNING: ("look", "yellow"), BAD: ("BAD ", "red"), UNKNOWN: ("?   ", None)}


@click.command()
@options.recipe_options(required=False)
@options.backend_option
@options.volume_option
@options.cluster_option
@options.namespace_option
@click.option("--to", "last", metavar="STEP", help="last step to check")
@click.option(
    "--pull/--no-pull",
    default=True,
    show_default=True,
    help="test whether each image can be pulled, by starting a tiny pod of the image",
)
@click.option(
    "--upload", is_flag=True, help="check that `submit --upload` can copy the inputs from this machine to the volume"
)
@click.option("--look", hidden=True, help="check only the volume; the value is JSON that describes what a recipe needs")
@options.json_option
@pass_context
def doctor(context: Context, look: str | None, as_json: bool, **given: Any) -> None:
    """Check cluster, volume and recipe before spending GPU hours.

    Checks the cluster or engine, rights, claim, free space, images, GPUs, secrets, queue and models. With RECIPE,
    also checks the recipe and its inputs. Prints one line per check; "?" marks a check that was not possible. The exit
    code is 0 if no check failed, otherwise the exit code of the worst failure.

    \b
    Example:
      vasevqa doctor recipe.yaml --backend kubernetes -n my-namespace
    """
    worst = 0
    request = DoctorRequest(**given)
    results = findings(context.pipeline, request)
    if look:
        results = volume_findings(context.pipeline, request.volume, VolumeQuestion.from_json(look))
    for finding in results:
        worst = max(worst, finding.code)
        if as_json:
            click.echo(json.dumps(finding.plain(), ensure_ascii=False))
        else:
            mark, colour = MARKS[finding.state]
            click.echo(click.style(mark, fg=colour), nl=False, file=unfiltered(sys.stdout))
            click.echo(f"  {finding.what}: {finding.text}")
    sys.exit(worst)
