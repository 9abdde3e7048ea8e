"""`vasevqa submit`: run a recipe in the cluster, independently of this machine."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vasevqa.backends.cluster import cluster_of
from vasevqa.backends.kubernetes.launcher_job import VOLUME, Launch, named
from vasevqa.cli import options
from vasevqa.cli.attach import follow_launch, session_flags
from vasevqa.cli.context import Context, pass_context
from vasevqa.errors import ConfigError
from vasevqa.pipeline.inspection import refuse_unusable
from vasevqa.pipeline.recipe import KIND
from vasevqa.pipeline.requests import SubmitRequest
from vasevqa.pipeline.requirements import requirements_of
from vasevqa.spec import Pipeline
from vasevqa.yaml_files import read_text


@click.command()
@options.recipe_options(inputs_from=False, about_input="give or replace an input; PATH is relative to the volume")
@options.cluster_option
@options.namespace_option
@click.option(
    "--upload",
    is_flag=True,
    help="first copy the recipe's inputs from this machine to the volume, as inputs/NAME-DIGEST",
)
@click.option("--follow-links", is_flag=True, help="with --upload, also send what links lead to")
@options.selection_options
@options.parallel_option
@click.option("--detach", is_flag=True, help="start the run and don't follow it")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="at the end, download the run's report into this folder",
)
@pass_context
def submit(context: Context, **given: Any) -> None:
    """Run RECIPE in the cluster.

    Starts a launcher in the cluster with the recipe, and prints the launcher's output. Paths in the recipe are relative
    to the volume's root, like DEST of `vasevqa upload`. Ctrl-C stops only the output; the run continues. Run the same
    command again to see the output again, or to resume a run that has stopped.

    \b
    Example:
      vasevqa upload photos && vasevqa submit recipe.yaml -n my-namespace
    """
    sys.exit(_submit(context.pipeline, SubmitRequest(**given)))


def _submit(pipeline: Pipeline, request: SubmitRequest) -> int:
    from vasevqa.backends.kubernetes import launches
    from vasevqa.backends.kubernetes.session import Session

    wanted = request.recipe.with_absolute_inputs() if request.upload else request.recipe
    recipe = wanted.load(pipeline, here=False)
    request.selection.check(pipeline)
    _on_the_volume(recipe.inputs, request.upload)
    if request.upload:
        asked = requirements_of(recipe, pipeline, request.selection)
        here = {name: request.recipe.beside(value) for name, value in asked.inputs.items()}
        refuse_unusable(pipeline, recipe, asked, here)
    access = Session(cluster_of(request.cluster, request.namespace, pipeline.stages))
    access.require_claim()
    where = session_flags(access, request.cluster)
    if request.upload:
        from vasevqa.transfer import sending

        uploaded = sending.upload_inputs(access, recipe.inputs, request.recipe.path.parent, request.follow_links)
        wanted = replace(wanted, inputs=tuple(uploaded))
    words = (*wanted.to_args(), *request.selection.to_args(), "--parallel", str(request.parallel))
    text = named(read_text(request.recipe.path, KIND), recipe.name)
    launch = Launch(text, recipe.name, access.cluster, words)
    started = launches.start(access, launch, os.environ.get("VASEVQA_OWNER_CONFIGMAP") or launches.release(access))
    click.echo(f"{'Started' if started else 'Already running:'} {launch.name} in namespace {access.namespace}.")
    if request.detach:
        click.echo(f"Follow it with `vasevqa attach {launch.name}{where}`.")
        return 0
    return follow_launch(access, launch.name, request.report, where)


def _on_the_volume(inputs: dict[str, str], upload: bool) -> None:
    """Check that the paths of the inputs are on the volume.

    Raise ConfigError for a path outside the volume, unless inputs are uploaded.
    """
    for name, value in inputs.items():
        path = Path(value)
        outside = (path.is_absolute() and not path.is_relative_to(VOLUME)) or os.path.normpath(value).startswith("..")
        if outside and not upload:
            raise ConfigError(
                f"The input {name} is {value}, which is not on the volume; copy it with `vasevqa upload` and give"
                " its path relative to the volume, or add --upload."
            )
