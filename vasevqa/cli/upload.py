"""`vasevqa upload`: copy files to the volume of a cluster, through a pod that mounts the volume."""

from __future__ import annotations

from pathlib import Path

import click

from vasevqa.backends.cluster import cluster_of
from vasevqa.cli.options import cluster_option, namespace_option
from vasevqa.transfer.sending import send


@click.command()
@click.argument("source", metavar="PATH", type=click.Path(path_type=Path, exists=True))
@click.argument("target", metavar="[DEST]", required=False)
@click.option("--follow-links", is_flag=True, help="also send what links lead to, inside the folder and outside")
@cluster_option
@namespace_option
def upload(source: Path, target: str | None, follow_links: bool, cluster: Path | None, namespace: str | None) -> None:
    """Copy PATH, a file or a folder, to the volume as DEST.

    DEST is relative to the volume's root. Without DEST, the copy has the name of PATH. A file is not sent again if the
    volume holds the file already, with the same digest. After a lost connection, run the same command again to resume.
    No file is removed from the volume.

    Links to folders and links out of PATH are not followed unless you give --follow-links. The command lists what it
    skips.

    \b
    Example:
      vasevqa upload photos inputs/photos
    """
    from vasevqa.backends.kubernetes.session import Session

    name = target or source.resolve().name
    moved = send(Session(cluster_of(cluster, namespace)), {name: source}, follow=follow_links)
    click.echo(f"{name} is on the volume: {moved}.")
