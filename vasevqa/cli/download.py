"""`vasevqa download`: copy the results of a run to this machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import click

from vasevqa.backends.cluster import cluster_of
from vasevqa.cli.options import cluster_option, namespace_option
from vasevqa.transfer.fetching import fetch


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("path", metavar="[PATH]", required=False)
@click.argument("target", metavar="[DEST]", required=False, type=click.Path(path_type=Path))
@cluster_option
@namespace_option
def download(run: str, path: str | None, target: Path | None, cluster: Path | None, namespace: str | None) -> None:
    """Copy PATH of RUN from the volume to DEST.

    PATH is a file or folder of the run, such as report.html, logs or steps/merge-grpo (the artifact of a step). Without
    PATH, downloads the report. DEST is a path on this machine. Without DEST, the copy has the name of PATH. If RUN is
    `-`, PATH is relative to the volume's root. After a lost connection, run the same command again to resume.

    \b
    Example:
      vasevqa download 20261125-101500123-my-vases-1a2b steps/merge-grpo model
    """
    from vasevqa.backends.kubernetes.session import Session

    wanted = path or "report.html"
    local = target or Path(PurePosixPath(wanted).name)
    moved = fetch(Session(cluster_of(cluster, namespace)), wanted if run == "-" else f"runs/{run}/{wanted}", local)
    click.echo(f"{local} is here: {moved}.")
