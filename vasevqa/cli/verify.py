"""`vasevqa verify`: compare artifacts with their records."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vasevqa.artifacts.contents import tree
from vasevqa.artifacts.volume import Volume
from vasevqa.cli import options, remote
from vasevqa.errors import DataError
from vasevqa.pipeline.checking import Checked, artifacts_of, check, set_aside
from vasevqa.pipeline.in_use import InUse
from vasevqa.text import byte_size

SHOWN = 5  # differences per artifact


@click.command()
@click.argument("name", metavar="[RUN|STEP]", required=False)
@click.option("--repair", is_flag=True, help="set damaged artifacts aside; the next run makes them anew")
@options.volume_option
@options.cluster_options
def verify(name: str | None, repair: bool, volume: Path, cluster: Path | None, namespace: str | None) -> None:
    """Read the artifacts of RUN or STEP again, and say what changed since their steps wrote them.

    Without RUN or STEP, reads all artifacts of the volume. The exit code is 3 if an artifact is damaged and was not set
    aside. A damaged artifact may have changed before other steps read it, so the artifacts that were made from it are
    named.

    \b
    Example:
      vasevqa verify classify --repair
    """
    if options.is_remote(volume, cluster, namespace):
        sys.exit(remote.answer(cluster, namespace, ["verify", *options.asked(name, ("--repair", repair))]))
    shared = Volume(volume.absolute())
    artifacts = artifacts_of(shared, name)
    if not artifacts:
        click.echo(f"There is no artifact on {shared.root}.")
        return
    damaged = left = 0
    for checked in check(shared, artifacts):
        _show(checked)
        if checked.differences:
            damaged += 1
            left += 0 if repair and _repair(shared, checked) else 1
    if left:
        remedy = (
            "repeat the command when no run uses them"
            if repair
            else "set them aside with --repair, and run the recipe again to make them anew"
        )
        raise DataError(f"{left} of {len(artifacts)} artifacts on {shared.root} are damaged; {remedy}.")
    if damaged:
        click.echo(f"{damaged} of {len(artifacts)} artifacts were set aside; run the recipe again to make them anew.")
    else:
        click.echo(f"{len(artifacts)} artifacts are as their steps wrote them.")


def _show(checked: Checked) -> None:
    artifact = checked.artifact
    where = f"{artifact.step}/{artifact.key[:10]}"
    if not checked.differences:
        sizes = [entry.stat(follow_symlinks=False).st_size for _, entry in tree(artifact.path)]
        click.echo(f"ok       {where}  {len(sizes)} files, {byte_size(sum(sizes))}")
        return
    for text in checked.differences[:SHOWN]:
        click.echo(f"changed  {where}  {text}")
    if len(checked.differences) > SHOWN:
        click.echo(f"changed  {where}  and {len(checked.differences) - SHOWN} more files")
    if checked.readers:
        click.echo(f"         {where}  was read by {', '.join(checked.readers)}; --refresh makes these again too")


def _repair(volume: Volume, checked: Checked) -> bool:
    artifact = checked.artifact
    try:
        aside = set_aside(volume, artifact)
    except InUse as why:
        click.echo(f"kept     {artifact.step}/{artifact.key[:10]}: {why}.")
        return False
    click.echo(f"aside    {artifact.step}/{artifact.key[:10]} is now {aside.relative_to(volume.root)}")
    return True
