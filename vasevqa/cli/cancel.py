"""`vasevqa cancel`: stop a run and its steps."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from vasevqa.artifacts.lease import holder
from vasevqa.artifacts.volume import Volume
from vasevqa.cli import options, remote
from vasevqa.cli.context import Context, pass_context
from vasevqa.errors import ConfigError
from vasevqa.pipeline.backend import backend_of
from vasevqa.pipeline.launcher import GRACE
from vasevqa.pipeline.runs import find_run


@click.command()
@click.argument("name", metavar="RUN", required=False)
@options.volume_option
@options.cluster_options
@pass_context
def cancel(context: Context, name: str | None, volume: Path, cluster: Path | None, namespace: str | None) -> None:
    """Stop RUN and its running steps.

    Without RUN, stops the newest run. To resume a stopped run, repeat the command that started it.
    """
    if options.is_remote(volume, cluster, namespace):
        sys.exit(remote.answer(cluster, namespace, ["cancel", *options.asked(name)]))
    shared = Volume(volume.absolute())
    run = find_run(shared, name)
    if run.state not in ("running", "interrupted"):
        raise ConfigError(f"Run {run.name} is {run.state}; there is nothing to cancel.")
    run.cancel_file.touch()
    try:
        end = time.monotonic() + 2 * GRACE
        while holder(run.lease) is not None and time.monotonic() < end:
            time.sleep(0.1)
        if holder(run.lease) is not None:
            raise ConfigError(
                f"The launcher of run {run.name} has not stopped yet; look again later with `vasevqa status"
                f" {run.name}`."
            )
        backend = backend_of(run, context.make_backend)
        jobs = [
            job
            for job in backend.existing("vase-")
            if backend.owner(job) == run.name and not backend.state(job).is_terminal
        ]
        for job in jobs:
            backend.cancel(job, GRACE)
        for job in jobs:
            while not backend.state(job).is_terminal:
                time.sleep(0.1)
            backend.remove(job)
        if run.state == "interrupted":
            run.events.append("run-cancelled")
    finally:
        run.cancel_file.unlink(missing_ok=True)  # a later launcher of this run must not stop too
    click.echo(f"{run.name}: {run.state}")
