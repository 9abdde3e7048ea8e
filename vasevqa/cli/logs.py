"""`vasevqa logs`: print the output of a run's steps."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli import options, remote
from vasevqa.cli.display import log_line
from vasevqa.errors import ConfigError
from vasevqa.pipeline.history import read_history
from vasevqa.pipeline.runs import find_run


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@click.argument("step", required=False)
@options.volume_option
@options.cluster_options
@click.option("-f", "--follow", is_flag=True, help="follow until the run ends")
@click.option("--raw", is_flag=True, help="print the log files as they are, with the stages' JSON events")
def logs(
    name: str | None,
    step: str | None,
    volume: Path,
    cluster: Path | None,
    namespace: str | None,
    follow: bool,
    raw: bool,
) -> None:
    """Print the logs of RUN; with STEP, only the logs of this step.

    Without RUN, prints the logs of the newest run. `vasevqa logs -f` follows the newest run.
    """
    if options.is_remote(volume, cluster, namespace):
        words = ["logs", *filter(None, (name, step)), *options.asked(None, ("--follow", follow), ("--raw", raw))]
        sys.exit(remote.answer(cluster, namespace, words))
    _print_logs(name, step, volume, follow, raw)


def _print_logs(name: str | None, step: str | None, volume: Path, follow: bool, raw: bool) -> None:
    """Print the log files, oldest first; with `follow`, continue until the run ends."""
    run = find_run(Volume(volume.absolute()), name)
    steps = read_history(run.events.read())
    if step is not None and step not in steps:
        raise ConfigError(f"Run {run.name} has no step '{step}'; it has {', '.join(steps)}.")
    offsets: dict[Path, int] = {}
    while True:
        over = run.state != "running"
        log_files = sorted(
            (run.path / "logs").glob(f"{step or '*'}-*.log"),
            key=lambda path: path.stat().st_ctime_ns if path not in offsets else 0,
        )
        for path in log_files:
            prefix = "" if step else f"{path.stem.rpartition('-')[0]}: "
            with open(path, "rb") as stream:
                stream.seek(offsets.get(path, 0))
                block = stream.read()
            if not over:
                block = block[: block.rfind(b"\n") + 1]
            offsets[path] = offsets.get(path, 0) + len(block)
            for line in block.decode("utf-8", "replace").splitlines():
                shown = line if raw else log_line(line)
                if shown is not None:
                    click.echo(f"{prefix}{shown}")
        if over or not follow:
            return
        time.sleep(0.3)
