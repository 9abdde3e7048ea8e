"""`vasevqa status`: show the steps of a run, and the other runs on the volume."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli import options, remote
from vasevqa.pipeline.history import read_history
from vasevqa.pipeline.runs import all_runs, find_run
from vasevqa.text import duration


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@options.volume_option
@options.cluster_options
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def status(name: str | None, volume: Path, cluster: Path | None, namespace: str | None, as_json: bool) -> None:
    """Show the steps of RUN, and the other runs.

    Without RUN, shows the steps of the newest run.
    """
    if options.is_remote(volume, cluster, namespace):
        sys.exit(remote.answer(cluster, namespace, ["status", *options.asked(name, ("--json", as_json))]))
    shared = Volume(volume.absolute())
    run = find_run(shared, name)
    damaged = {other.name: text for other in all_runs(shared) if (text := other.damage())}
    steps = {} if run.state == "damaged" else read_history(run.events.read())
    others = {other.name: other.state for other in all_runs(shared)}
    if as_json:
        rows = {step: history.to_json() for step, history in steps.items()}
        line = {"run": run.name, "state": run.state, "steps": rows, "runs": others}
        click.echo(json.dumps(line | ({"damaged": damaged} if damaged else {}), ensure_ascii=False))
        return
    click.echo(_line(run.name, run.state, damaged))
    width = max((len(step) for step in steps), default=0)
    for step, history in steps.items():
        took = duration(history.seconds) if history.seconds is not None else ""
        text = history.progress if history.state == "running" else history.text
        click.echo(f"  {step:<{width}}  {history.state:<10}  {took:>8}  {text}".rstrip())
    del others[run.name]
    if others:
        click.echo("other runs:")
        for other, state in others.items():
            click.echo(f"  {_line(other, state, damaged)}")


def _line(name: str, state: str, damaged: Mapping[str, str]) -> str:
    return f"{name}: {state} ({damaged[name]})" if name in damaged else f"{name}: {state}"
