"""`vasevqa report`: write the report of a run again."""

from __future__ import annotations

from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli.options import volume_option
from vasevqa.pipeline.runs import find_run


def write_report(folder: Path, volume: Volume, quiet: bool, summary: bool = False) -> None:
    """Write the run's report. A failure is printed as one line and does not fail the run.

    With `summary`, also print the sentences at the beginning of the report, and the first command that comes next.
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
    for sentence in verdict.sentences if summary else ():
        click.echo(sentence)
    click.echo(f"Report: {where}")
    for command in verdict.commands[:1] if summary else ():
        click.echo(f"{command.purpose}: {command.words}")


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@volume_option
def report(name: str | None, volume: Path) -> None:
    """Write the report of RUN again and print its path."""
    run = find_run(Volume(volume.absolute()), name)
    write_report(run.path, run.volume, quiet=False)
