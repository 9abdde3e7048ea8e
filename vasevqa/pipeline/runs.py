"""Runs on the volume: `runs/<run>/` with the recipe, the event log, per-step logs and links to artifacts."""

from __future__ import annotations

import contextlib
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
from vasevqa.errors import ConfigError, VaseError
from vasevqa.pipeline.events import Event, EventLog
from vasevqa.storage import patiently
from vasevqa.text import nearest

ENDS = ("run-started", "run-finished", "run-failed", "run-cancelled")  # the events that decide the state of a run


class PlanRow(TypedDict):
    """One step of a plan, as in plan.json and `plan --json`."""

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

    def text(self) -> str | None:
        """Return the text of the recipe; None if `clean` has removed the run, or if the file is damaged."""
        try:
            return patiently(lambda: self.recipe.read_text(encoding="utf-8"), self.recipe)
        except (OSError, ValueError, VaseError):
            return None

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def backend_settings(self) -> dict[str, object]:
        """The backend and the Cluster settings of the run, from place.json; {} if the file can't be read."""
        try:
            place = json.loads((self.path / "place.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return place if isinstance(place, dict) else {}

    def calibration(self, step: str) -> Path:
        """Return the path of the file in which `vasevqa review --calibrate` saves its result for `step`."""
        return self.path / f"calibration-{step}.json"

    @property
    def lease(self) -> Path:
        """The path of the lease of the launcher that works on this run."""
        return self.path / "launcher.lease"

    @property
    def cancel_file(self) -> Path:
        """The cancel file. The run's launcher stops if this file exists."""
        return self.path / "cancel"

    @property
    def state(self) -> str:
        """The state of the run: finished, failed, cancelled, running, interrupted or damaged.

        An interrupted run has not ended and has no launcher. The event log of a damaged run can't be read.
        """
        try:
            last = patiently(lambda: self.events.last(ENDS), self.events.path)
        except (OSError, VaseError):
            return "running" if holder(self.lease) else "damaged"
        return self.state_after(last)

    def damage(self) -> str:
        """Return which file of the run is damaged, and how; '' if no file is. The damage doesn't affect other runs."""
        if self.text() is None:
            return "recipe.yaml is missing, or no text in UTF-8"
        if (self.path / "plan.json").exists() and not self.keys() and self._plan_is_damaged():
            return "plan.json is damaged"
        try:
            events = list(patiently(lambda: list(self.events.read()), self.events.path))
        except (OSError, VaseError):
            return "events.jsonl can't be read"
        if not events and self.events.path.exists() and self.events.path.stat().st_size:
            return "events.jsonl holds no event"
        return ""

    def _plan_is_damaged(self) -> bool:
        try:
            return bool(json.loads((self.path / "plan.json").read_text(encoding="utf-8")) != [])
        except (OSError, ValueError):
            return True

    def state_after(self, last: Event | None) -> str:
        """Return the state of the run. `last` is the run's last event whose kind is in `ENDS`."""
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
        """Create the link steps/<step> to the artifact; `clean` keeps an artifact with such a link."""
        steps = self.path / "steps"
        steps.mkdir(parents=True, exist_ok=True)
        temporary = steps / f".{artifact.step}.{os.urandom(3).hex()}"
        temporary.symlink_to(os.path.relpath(artifact.path, steps))
        temporary.rename(steps / artifact.step)
        files.sync_folder(steps)

    def keys(self) -> dict[str, str]:
        """Return a mapping from each step of the plan to the key of the step's artifact."""
        try:
            rows = json.loads((self.path / "plan.json").read_text(encoding="utf-8"))
            return {row["step"]: row["key"] for row in rows}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def uses(self) -> set[tuple[str, str]]:
        """Return the step and the key of each artifact that the run has planned or linked.

        A link counts even if its artifact no longer exists.
        """
        used = set(self.keys().items())
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path / "steps") as entries:
            for entry in entries:
                if entry.is_symlink() and not entry.name.startswith("."):
                    used.add((entry.name, Path(entry.path).readlink().name))
        return used

    def artifacts(self) -> dict[str, Path]:
        """Return a mapping from each finished step to the folder of the step's artifact."""
        steps = self.path / "steps"
        return (
            {entry.name: entry.resolve() for entry in sorted(steps.iterdir()) if entry.is_dir()}
            if steps.is_dir()
            else {}
        )


def all_runs(volume: Volume) -> list[Run]:
    """Return all runs, including damaged runs, oldest first. The name of a run begins with its start time."""
    return (
        [
            Run(volume, entry.name)
            for entry in sorted(volume.runs.iterdir())
            if not entry.name.startswith(".")
            and any((entry / name).exists() for name in ("recipe.yaml", "events.jsonl"))
        ]
        if volume.runs.is_dir()
        else []
    )


def find_run(volume: Volume, name: str | None) -> Run:
    """Return a run by its name, or by the beginning of the name; for None, return the newest run.

    Raise ConfigError if there is no such run, or if several names begin with `name`.
    """
    runs = all_runs(volume)
    if not runs:
        raise ConfigError(
            f"There is no run on the volume {volume.root}; start a run with `vasevqa run RECIPE`, or give another"
            " --volume."
        )
    if name is None:
        return runs[-1]
    matches = [run for run in runs if run.name == name] or [run for run in runs if run.name.startswith(name)]
    if len(matches) != 1:
        raise ConfigError(
            f"There {'is no run' if not matches else 'are several runs that begin with'}"
            f" '{name}'.{nearest(name, [run.name for run in runs[-5:]])}"
        )
    return matches[0]


def open_run(volume: Volume, recipe_name: str, text: str, plan: Sequence[PlanRow]) -> Run:
    """Return the interrupted run of the same recipe and plan; if there is none, create a new run."""
    for run in _same(volume, text, plan):
        if run.state == "interrupted":
            return run
    return new_run(volume, recipe_name, text, plan)


def new_run(volume: Volume, recipe_name: str, text: str, plan: Sequence[PlanRow]) -> Run:
    """Create a new run. `plan` holds one mapping for each step, with at least `step` and `key`."""
    word = re.sub(r"[^a-z0-9]+", "-", recipe_name.lower()).strip("-")[:30].strip("-") or "run"
    # The name has milliseconds, so that names sort by time even for two runs that a script starts together.
    moment = f"{datetime.now(UTC):%Y%m%d-%H%M%S%f}"[:-3]
    run = Run(volume, f"{moment}-{word}-{os.urandom(2).hex()}")
    run.path.mkdir(parents=True)
    files.write_json(run.path / "plan.json", list(plan), indent=1)
    files.write_text(run.recipe, text)  # written last: a folder without this file is not a run
    files.sync_folder(volume.runs)
    return run


def finished_run(volume: Volume, text: str, plan: Sequence[PlanRow]) -> Run | None:
    """Return the newest finished run of the same recipe and plan; None if there is none."""
    return next((run for run in _same(volume, text, plan) if run.state == "finished"), None)


def _same(volume: Volume, text: str, plan: Sequence[PlanRow]) -> Iterator[Run]:
    """Yield the runs with the same recipe and exactly the artifacts of `plan`, newest first."""
    wanted = {row["step"]: row["key"] for row in plan}
    for run in reversed(all_runs(volume)):
        if run.text() == text and run.keys() == wanted:
            yield run
