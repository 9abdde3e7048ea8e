"""`vasevqa download`: bring what a run made to this machine."""

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
    """Bring PATH of RUN from the volume to DEST.

    PATH is a file or folder of the run, such as report.html, logs or steps/merge-grpo (what a step made); without it,
    the report. DEST is a path here; without it, PATH's own name. RUN may be `-`: then PATH is relative to the volume's
    root.

    \b
    Example:
      vasevqa download 20261125-101500123-my-vases-1a2b steps/merge-grpo model
    """
    from vasevqa.backends.kubernetes.session import Session

    wanted = path or "report.html"
    place = target or Path(PurePosixPath(wanted).name)
    moved = fetch(Session(cluster_of(cluster, namespace)), wanted if run == "-" else f"runs/{run}/{wanted}", place)
    click.echo(f"{place} is here: {moved}.")
