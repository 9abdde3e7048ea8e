"""`vasevqa report`: write the report of a run again."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli import options, remote
from vasevqa.errors import ConfigError
from vasevqa.pipeline.runs import find_run


def write_report(folder: Path, volume: Volume, quiet: bool, summary: bool = False) -> Path | None:
    """Write the run's report and return its path.

    With `summary`, first print the report's verdict and the command to run next. If the report can't be written, print
    one line that says why, and return None.
    """
    from vasevqa.report.html import write_with_verdict

    try:
        where, verdict = write_with_verdict(folder, volume)
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        click.echo(f"The report could not be written ({why}); try again with `vasevqa report {folder.name}`.", err=True)
        return None
    if quiet:
        return where
    for line in verdict.lines() if summary else ():
        click.echo(line)
    click.echo(f"Report: {where}")
    return where


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@options.volume_option
@options.cluster_options
@click.option("--open", "in_browser", is_flag=True, help="open the report in a browser")
def report(name: str | None, volume: Path, cluster: Path | None, namespace: str | None, in_browser: bool) -> None:
    """Write the report of RUN again and print its path.

    With a namespace, the report is written on the cluster's volume; `vasevqa download RUN` copies it from there.
    """
    if options.is_remote(volume, cluster, namespace):
        if in_browser:
            raise ConfigError("--open needs a report on this machine; download the run, and open its report.html.")
        sys.exit(remote.answer(cluster, namespace, ["report", *options.asked(name)]))
    run = find_run(Volume(volume.absolute()), name)
    where = write_report(run.path, run.volume, quiet=False)
    if in_browser and where is not None and not opened(where):
        click.echo(f"No browser could be started on this machine; copy {where} to a machine with a browser.", err=True)


def opened(page: Path) -> bool:
    """Open a page in a browser on this machine; return False if no browser can be started.

    The variable BROWSER names the browser, as for other programs.
    """
    import webbrowser

    try:
        return webbrowser.open(page.absolute().as_uri())
    except webbrowser.Error:
        return False
