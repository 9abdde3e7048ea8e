"""`vasevqa submit` and `attach`: a recipe runs in the cluster, whether this machine stays on or not."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from vasevqa.backends.cluster import cluster_of
from vasevqa.backends.kubernetes.launcher_job import VOLUME, Launch, named
from vasevqa.cli.attach import follow_launch, place_words
from vasevqa.cli.context import Context, pass_context
from vasevqa.cli.options import cluster_option, namespace_option
from vasevqa.errors import ConfigError
from vasevqa.pipeline.recipe import absolute, known_step, load_recipe
from vasevqa.spec import Pipeline


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False))
@cluster_option
@namespace_option
@click.option("--set", "overrides", multiple=True, metavar="STEP.PARAM=VALUE", help="change a parameter")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=PATH",
    help="give or replace an input; PATH is relative to the volume",
)
@click.option(
    "--upload",
    is_flag=True,
    help="first bring the recipe's inputs that are on this machine to the volume, as inputs/NAME-DIGEST",
)
@click.option("--from", "first", metavar="STEP", help="begin here; what this step reads must exist")
@click.option("--to", "last", metavar="STEP", help="end here")
@click.option("--only", multiple=True, metavar="STEP", help="only this step (may be repeated)")
@click.option("--refresh", multiple=True, metavar="STEP", help="make this step's artifact anew (may be repeated)")
@click.option(
    "--parallel", "--max-parallel", type=click.IntRange(1), default=2, show_default=True, help="steps side by side"
)
@click.option("--detach", is_flag=True, help="start it and don't follow it")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="at the end bring the run's report into this folder",
)
@pass_context
def submit(context: Context, **given: Any) -> None:
    """Run RECIPE in the cluster.

    Hands the recipe to a launcher in the cluster and follows it. Paths in the recipe are relative to the volume's root,
    where `vasevqa upload` puts things. Ctrl-C stops following, not the run. The same again follows what runs, or goes
    on where it was.

    \b
    Example:
      vasevqa upload photos && vasevqa submit recipe.yaml -n my-namespace
    """
    sys.exit(_submit(context.pipeline, given))


def _submit(pipeline: Pipeline, given: dict[str, Any]) -> int:
    from vasevqa.backends.kubernetes import launches
    from vasevqa.backends.kubernetes.session import Access

    inputs = absolute(given["inputs"]) if given["upload"] else list(given["inputs"])
    recipe = load_recipe(given["recipe"], pipeline, given["overrides"], inputs, here=False)
    for option in ("first", "last"):
        known_step(pipeline, given[option])
    for name in (*given["only"], *given["refresh"]):
        known_step(pipeline, name)
    _on_the_volume(recipe.inputs, given["upload"])
    access = Access(cluster_of(given["cluster"], given["namespace"]))
    access.require_claim()
    where = place_words(access, given["cluster"])
    if given["upload"]:
        from vasevqa.transfer import sending

        inputs = sending.upload_inputs(access, recipe.inputs, given["recipe"].parent)
    launch = Launch(
        named(given["recipe"].read_text(encoding="utf-8"), recipe.name),
        recipe.name,
        access.cluster,
        _arguments(given, inputs),
    )
    started = launches.start(access, launch, os.environ.get("VASEVQA_OWNER_CONFIGMAP") or launches.release(access))
    click.echo(f"{'Started' if started else 'Already running:'} {launch.name} in namespace {access.namespace}.")
    if given["detach"]:
        click.echo(f"`vasevqa attach {launch.name}{where}` follows it.")
        return 0
    return follow_launch(access, launch.name, given["report"], where)


def _arguments(given: dict[str, Any], inputs: list[str]) -> tuple[str, ...]:
    """The options for `vasevqa run` in the cluster."""
    words = [word for override in given["overrides"] for word in ("--set", override)]
    words += [word for one in inputs for word in ("--input", one)]
    for option, value in (("--from", given["first"]), ("--to", given["last"])):
        words += [option, value] if value else []
    words += [word for option in ("only", "refresh") for name in given[option] for word in (f"--{option}", name)]
    return (*words, "--parallel", str(given["parallel"]))


def _on_the_volume(inputs: dict[str, str], upload: bool) -> None:
    """Inputs of a run in the cluster lie on the volume; ConfigError for one that can't."""
    for name, value in inputs.items():
        path = Path(value)
        outside = (path.is_absolute() and not path.is_relative_to(VOLUME)) or os.path.normpath(value).startswith("..")
        if outside and not upload:
            raise ConfigError(
                f"The input {name} is {value}, which is not on the volume; `vasevqa upload` it and name it relative to"
                " the volume, or give --upload."
            )
