"""`vasevqa report`: write the report of a run again."""

from __future__ import annotations

from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli.options import volume_option
from vasevqa.pipeline.runs import find_run


def write_report(folder: Path, volume: Volume, quiet: bool, summary: bool = False) -> None:
    """Write the run's report. A failure is printed as one line and does not fail the run.

    With `summary`, first print what the report's verdict says, and the first command that comes next.
    """
    from vasevqa.report.html import write_with_verdict

    try:
        where, verdict = write_with_verdict(folder, volume)
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        click.echo(f"The report could not be written ({why}); try again with `vasevqa report {folder.name}`.", err=True)
        return
    if quiet:
        return
    for line in verdict.lines() if summary else ():
        click.echo(line)
    click.echo(f"Report: {where}")


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@volume_option
def report(name: str | None, volume: Path) -> None:
    """Write the report of RUN again and print its path."""
    run = find_run(Volume(volume.absolute()), name)
    write_report(run.path, run.volume, quiet=False)
