"""`vasevqa attach`: follow a run that `submit` or Helm started in the cluster."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vasevqa.backends.cluster import cluster_of
from vasevqa.cli.options import cluster_option, namespace_option

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.session import Session


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@cluster_option
@namespace_option
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="at the end, download the run's report into this folder",
)
def attach(name: str | None, cluster: Path | None, namespace: str | None, report: Path | None) -> None:
    """Follow RUN, which `submit` or Helm started.

    RUN is the name of a run or of a launch. Without RUN, follows the newest launch.

    \b
    Example:
      vasevqa attach vasevqa-my-vases-0123456789
    """
    from vasevqa.backends.kubernetes import launches
    from vasevqa.backends.kubernetes.session import Session

    access = Session(cluster_of(cluster, namespace))
    sys.exit(follow_launch(access, launches.find(access, name), report, session_flags(access, cluster)))


def session_flags(access: Session, cluster: Path | None) -> str:
    """Return the options with which a later command reaches the namespace and cluster of `access`."""
    mine = (
        cluster is not None and "VASEVQA_OWNER_CONFIGMAP" not in os.environ
    )  # the chart's file exists only in its pod
    return f" -n {access.namespace}" + (f" --cluster {shlex.quote(str(cluster))}" if mine else "")


def follow_launch(access: Session, launch: str, report: Path | None, where: str) -> int:
    """Print the launcher's output until the launcher ends, and return its exit code.

    If `report` is given, fetch the run's report into the folder `report` at the end. Ctrl-C stops only the output; the
    function then returns 0.
    """
    from vasevqa.backends.kubernetes import launches

    runs: list[str] = []

    def say(line: str) -> None:
        if match := re.fullmatch(r"run (\S+)", line):
            runs.append(match[1])
        if match := re.search(r"Report: \S+/runs/([^/]+)/report.html", line):
            runs.append(match[1])
        click.echo(line)

    try:
        code = launches.follow(access, launch, say, where)
    except KeyboardInterrupt:
        click.echo(
            f"\nDetached: the run continues in the cluster. `vasevqa attach {launch}{where}` follows it again, "
            f"and `kubectl -n {access.namespace} delete configmap {launch}` stops and removes it."
        )
        return 0
    if runs and report is not None:
        from vasevqa.transfer import fetching

        fetching.fetch(access, f"runs/{runs[-1]}/report.html", report / f"{runs[-1]}.html")
        click.echo(f"Report on this machine: {report / f'{runs[-1]}.html'}")
    elif runs:
        click.echo(f"`vasevqa download {runs[-1]} report.html{where}` downloads its report.")
    return code
