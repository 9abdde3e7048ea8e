"""`vasevqa status`, `logs`, `cancel` and `report`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from vasevqa.commands import placing
from vasevqa.commands.running import write_report
from vasevqa.display import log_line, progress_text
from vasevqa.errors import ConfigError
from vasevqa.pipeline.artifacts import Volume
from vasevqa.pipeline.launcher import GRACE
from vasevqa.pipeline.lease import holder
from vasevqa.pipeline.progress import duration
from vasevqa.pipeline.runs import Run, all_runs, find_run


def steps_of(run: Run) -> dict[str, dict[str, Any]]:
    """Per step of the run: its state, seconds, summary or message, by its events."""
    found: dict[str, dict[str, Any]] = {}
    states = {
        "step-started": "running",
        "step-adopted": "running",
        "step-elsewhere": "waiting",
        "step-done": "done",
        "step-failed": "failed",
        "step-cancelled": "cancelled",
    }
    for event in run.events.read():
        if event["event"] == "run-started":
            for name in event["steps"]:
                found.setdefault(name, {"state": "waiting"})
            found |= {name: {"state": "skipped", "text": why} for name, why in event.get("skipped", {}).items()}
        if event["event"] == "stage-progress" and event["step"] in found:
            found[event["step"]]["progress"] = progress_text(event)
        if event["event"] in states:
            row = found.setdefault(event["step"], {})
            hit = event.get("hit") and row.get("state") != "done"
            row |= {"state": "up to date" if hit else states[event["event"]], "text": event.get("summary") or event.get("message") or row.get("text", "")}
            row |= {key: event[key] for key in ("seconds", "job", "attempt", "key") if event.get(key) is not None}
    return found


def status(name: str | None, volume: Path, as_json: bool) -> None:
    """Print the run's steps, and the volume's other runs."""
    place = Volume(volume.absolute())
    run = find_run(place, name)
    steps = steps_of(run)
    if as_json:
        click.echo(
            json.dumps(
                {"run": run.name, "state": run.state, "steps": steps, "runs": {other.name: other.state for other in all_runs(place)}}, ensure_ascii=False
            )
        )
        return
    click.echo(f"{run.name}: {run.state}")
    width = max((len(step) for step in steps), default=0)
    for step, row in steps.items():
        took = duration(row["seconds"]) if row.get("seconds") is not None else ""
        text = row.get("progress", "") if row["state"] == "running" else row.get("text", "")
        click.echo(f"  {step:<{width}}  {row['state']:<10}  {took:>8}  {text}".rstrip())
    others = [other for other in all_runs(place) if other.name != run.name]
    if others:
        click.echo("other runs:")
        for other in others:
            click.echo(f"  {other.name}: {other.state}")


def logs(name: str | None, step: str | None, volume: Path, follow: bool, raw: bool) -> None:
    """Print log files in the order in which they were begun; with `follow`, until the run is no longer running."""
    run = find_run(Volume(volume.absolute()), name)
    if step is not None and step not in steps_of(run):
        raise ConfigError(f"Run {run.name} has no step '{step}'; it has {', '.join(steps_of(run))}.")
    offsets: dict[Path, int] = {}
    while True:
        over = run.state != "running"
        found = sorted((run.path / "logs").glob(f"{step or '*'}-*.log"), key=lambda path: path.stat().st_ctime_ns if path not in offsets else 0)
        for path in found:
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


def cancel(name: str | None, volume: Path) -> None:
    """Ask the run's launcher to stop; stop the jobs here if it is gone."""
    place = Volume(volume.absolute())
    run = find_run(place, name)
    if run.state not in ("running", "interrupted"):
        raise ConfigError(f"Run {run.name} is {run.state}; there is nothing to cancel.")
    run.cancel_file.touch()
    try:
        end = time.monotonic() + 2 * GRACE
        while holder(run.lease) is not None and time.monotonic() < end:
            time.sleep(0.1)
        if holder(run.lease) is not None:
            raise ConfigError(f"The launcher of run {run.name} hasn't stopped yet; look again with `vasevqa status {run.name}`.")
        backend = placing.backend_of(run)
        jobs = [job for job in backend.existing("vase-") if backend.owner(job) == run.name and not backend.state(job).over]
        for job in jobs:
            backend.cancel(job, GRACE)
        for job in jobs:
            while not backend.state(job).over:
                time.sleep(0.1)
            backend.remove(job)
        if run.state == "interrupted":
            run.events.append("run-cancelled")
    finally:
        run.cancel_file.unlink(missing_ok=True)  # a later launcher of this run must not find it
    click.echo(f"{run.name}: {run.state}")


def report(name: str | None, volume: Path) -> None:
    """Write the run's report anew."""
    run = find_run(Volume(volume.absolute()), name)
    write_report(run.path, run.volume, quiet=False)
