"""`vasevqa repro`: print the `docker run` command that repeats a step."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.backends.cluster import load_cluster, parse_cluster
from vasevqa.cli import options, remote
from vasevqa.cli.context import Context, pass_context
from vasevqa.pipeline.repro import docker_run, started
from vasevqa.pipeline.runs import find_run


@click.command()
@click.argument("name", metavar="RUN")
@click.argument("step")
@options.volume_option
@options.cluster_options
@pass_context
def repro(context: Context, name: str, step: str, volume: Path, cluster: Path | None, namespace: str | None) -> None:
    """Print the `docker run` command that repeats STEP of RUN.

    The command names the image by digest. The command contains only the names of secrets: docker takes their values
    from your environment. With a namespace, the paths are those on the cluster's volume.
    """
    if options.is_remote(volume, cluster, namespace):
        sys.exit(remote.answer(cluster, namespace, ["repro", name, step]))
    # The results go to a separate folder on the volume, because an artifact is never written twice.
    shared = Volume(volume.absolute())
    run = find_run(shared, name)
    maker, event = started(run, step)
    settings = (
        load_cluster(cluster, context.pipeline.stages)
        if cluster
        else parse_cluster(maker.backend_settings.get("cluster", {}), str(maker.path / "place.json"))
    )
    words = docker_run(context.pipeline.step(step).stage, shared, step, event, settings)
    click.echo(" \\\n  ".join(words))
