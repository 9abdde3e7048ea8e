"""Runs on the volume: `runs/<run>/` with the recipe, the event log, per-step logs and links to artifacts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from vasevqa import files
from vasevqa.artifacts.lease import holder
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.errors import ConfigError
from vasevqa.pipeline.events import EventLog
from vasevqa.text import nearest


class PlanRow(TypedDict):
    """One step of a plan, as plan.json and `plan --json` have it."""

    step: str
    key: str
    hit: bool
    sealed: bool
    reasons: list[str]


@dataclass(frozen=True)
class Run:
    """One execution of a recipe."""

    volume: Volume
    name: str

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.volume.runs / self.name

    @property
    def events(self) -> EventLog:
        """The event log."""
        return EventLog(self.path / "events.jsonl")

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def backend_settings(self) -> dict[str, object]:
        """The backend and the Cluster settings of the run, from place.json; {} if it can't be read."""
        try:
            found = json.loads((self.path / "place.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def lease(self) -> Path:
        """The lease of the launcher that works on this run."""
        return self.path / "launcher.lease"

    @property
    def cancel_file(self) -> Path:
        """A file whose existence asks the run's launcher to stop."""
        return self.path / "cancel"

    @property
    def state(self) -> str:
        """finished, failed, cancelled, running, or interrupted (its launcher is gone)."""
        last = self.events.last(("run-started", "run-finished", "run-failed", "run-cancelled"))
        if last is None or last["event"] == "run-started":
            return "running" if holder(self.lease) else "interrupted"
        return str(last["event"]).removeprefix("run-")

    def log(self, step: str, attempt: int) -> Path:
        """Return the path of an attempt's log."""
        return self.path / "logs" / f"{step}-{attempt}.log"

    def task(self, step: str, attempt: int) -> Path:
        """Return the path of an attempt's task file, which the stage reads."""
        return self.path / "tasks" / f"{step}-{attempt}.json"

    def link(self, artifact: Artifact) -> None:
        """Point steps/<step> at the artifact, so that `clean` keeps it."""
        steps = self.path / "steps"
        steps.mkdir(parents=True, exist_ok=True)
        temporary = steps / f".{artifact.step}.{os.urandom(3).hex()}"
        temporary.symlink_to(os.path.relpath(artifact.path, steps))
        temporary.rename(steps / artifact.step)

    def keys(self) -> dict[str, str]:
        """Return step -> key of the artifact that the run makes or reads, from its plan."""
        try:
            rows = json.loads((self.path / "plan.json").read_text(encoding="utf-8"))
            return {row["step"]: row["key"] for row in rows}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def artifacts(self) -> dict[str, Path]:
        """Return step -> folder of its artifact, for the steps that are done."""
        steps = self.path / "steps"
        return (
            {entry.name: entry.resolve() for entry in sorted(steps.iterdir()) if entry.is_dir()}
            if steps.is_dir()
            else {}
        )


def all_runs(volume: Volume) -> list[Run]:
    """Return all runs, oldest first (their names begin with the time)."""
    return (
        [Run(volume, entry.name) for entry in sorted(volume.runs.iterdir()) if (entry / "recipe.yaml").is_file()]
        if volume.runs.is_dir()
        else []
    )


def find_run(volume: Volume, name: str | None) -> Run:
    """Return the run called `name` (or its unique prefix); the newest run if None.

    Raises ConfigError if there is none, or if the prefix is ambiguous.
    """
    runs = all_runs(volume)
    if not runs:
        raise ConfigError(
            f"There is no run on the volume {volume.root}; start one with `vasevqa run RECIPE`, or name another"
            " --volume."
        )
    if name is None:
        return runs[-1]
    found = [run for run in runs if run.name == name] or [run for run in runs if run.name.startswith(name)]
    if len(found) != 1:
        raise ConfigError(
            f"There {'is no run' if not found else 'are several runs'}"
            f" '{name}'.{nearest(name, [run.name for run in runs[-5:]])}"
        )
    return found[0]


def open_run(volume: Volume, recipe_name: str, text: str, plan: Sequence[PlanRow]) -> Run:
    """Return the interrupted run of the same recipe and plan, else a new run."""
    for run in _same(volume, text, plan):
        if run.state == "interrupted":
            return run
    return new_run(volume, recipe_name, text, plan)


def new_run(volume: Volume, recipe_name: str, text: str, plan: Sequence[PlanRow]) -> Run:
    """Create a new run. `plan` has a mapping with at least `step` and `key` for each step."""
    word = re.sub(r"[^a-z0-9]+", "-", recipe_name.lower()).strip("-")[:30].strip("-") or "run"
    # To the millisecond: names give the order of runs, even for two that a script starts together.
    moment = f"{datetime.now(UTC):%Y%m%d-%H%M%S%f}"[:-3]
    run = Run(volume, f"{moment}-{word}-{os.urandom(2).hex()}")
    run.path.mkdir(parents=True)
    files.write_json(run.path / "plan.json", list(plan), indent=1)
    files.write_text(run.recipe, text)  # written last: a folder without it is no run
    return run


def finished_run(volume: Volume, text: str, plan: Sequence[PlanRow]) -> Run | None:
    """Return the newest finished run of the same recipe and plan, or None."""
    return next((run for run in _same(volume, text, plan) if run.state == "finished"), None)


def _same(volume: Volume, text: str, plan: Sequence[PlanRow]) -> Iterator[Run]:
    """Yield the runs of the same recipe that make exactly the artifacts of `plan`, newest first."""
    wanted = {row["step"]: row["key"] for row in plan}
    for run in reversed(all_runs(volume)):
        if run.recipe.read_text(encoding="utf-8") == text and run.keys() == wanted:
            yield run
