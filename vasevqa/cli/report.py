"""`vasevqa report`: write the report of a run again."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli import options, remote
from vasevqa.pipeline.runs import find_run


def write_report(folder: Path, volume: Volume, quiet: bool) -> None:
    """Write the run's report. A failure is printed as one line and does not fail the run."""
    from vasevqa.report.html import write_report as write

    try:
        where = write(folder, volume)
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        click.echo(f"The report could not be written ({why}); try again with `vasevqa report {folder.name}`.", err=True)
        return
    if not quiet:
        click.echo(f"Report: {where}")


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@options.volume_option
@options.cluster_options
def report(name: str | None, volume: Path, cluster: Path | None, namespace: str | None) -> None:
    """Write the report of RUN again and print its path.

    With a namespace, the report is written on the cluster's volume; `vasevqa download RUN` copies it from there.
    """
    if options.is_remote(volume, cluster, namespace):
        sys.exit(remote.answer(cluster, namespace, ["report", *options.asked(name)]))
    run = find_run(Volume(volume.absolute()), name)
    write_report(run.path, run.volume, quiet=False)
