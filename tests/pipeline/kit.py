"""A recipe for the pipeline of tests/pipeline/stages, and a volume, for tests of launchers and of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pipeline.stages.copying import MODULES, PIPELINE
from vasevqa.artifacts.contents import verify
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.backends.local.backend import LocalBackend
from vasevqa.faults import FaultPoint
from vasevqa.pipeline.events import Event
from vasevqa.pipeline.launcher import Launcher
from vasevqa.pipeline.plan import Plan, make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.runs import Run, all_runs, open_run
from vasevqa.pipeline.selection import Selection

ROOT = Path(__file__).parent.parent.parent
STEPS = ("first", "left", "right", "last")
FIRST = Selection(last="first")

# Fault point -> the step at which the launcher is killed, and the total number of attempts of this step.
DRILL = {
    FaultPoint.RUN_OPENED: ("", 1),
    FaultPoint.BEFORE_SUBMIT: ("left", 1),
    FaultPoint.IN_SUBMIT: ("left", 1),
    FaultPoint.AFTER_SUBMIT: ("left", 1),
    FaultPoint.WHILE_RUNNING: ("left", 1),
    FaultPoint.DURING_RETRY: ("left", 2),
    FaultPoint.BEFORE_COMMIT: ("left", 1),
    FaultPoint.AFTER_COMMIT: ("left", 1),
    FaultPoint.BETWEEN_STEPS: ("last", 1),
    FaultPoint.BEFORE_END: ("", 1),
}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Check `condition` repeatedly until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}, without success"
        time.sleep(0.01)


@dataclass
class Kit:
    """A folder with words, a recipe, a control folder and a volume."""

    root: Path
    events: list[Event] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.root / "words").mkdir(parents=True)
        for word in ("alpha", "beta"):
            (self.root / "words" / f"{word}.txt").write_text(word)
        self.control.mkdir(parents=True)
        self.write_recipe()

    def write_recipe(self, **steps: dict[str, Any]) -> None:
        """Write the recipe, with settings per step."""
        settings = {name: {"control": str(self.control), **steps.get(name, {})} for name in STEPS}
        self.recipe.write_text(
            json.dumps({"name": "words", "inputs": {"words": "words"}, "steps": settings})
        )  # JSON is YAML

    @property
    def recipe(self) -> Path:
        return self.root / "words.yaml"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def volume(self) -> Volume:
        return Volume(self.root / "volume")

    @property
    def backend(self) -> LocalBackend:
        return LocalBackend(self.volume.root, MODULES)

    def plan(self, overrides: Sequence[str] = (), selection: Selection | None = None) -> Plan:
        return make_plan(load_recipe(self.recipe, PIPELINE, overrides), PIPELINE, self.volume, selection)

    def launcher(
        self, parallel: int = 2, overrides: Sequence[str] = (), selection: Selection | None = None
    ) -> Launcher:
        """Return a launcher in this process for the recipe, like that of `vasevqa run`. Its events are added to
        `events`.
        """
        plan = self.plan(overrides, selection)
        rows = [{"step": step.name, "key": step.artifact.key} for step in plan.steps]
        run = open_run(self.volume, "words", load_recipe(self.recipe, PIPELINE, overrides).text, rows)
        return Launcher(plan, run, self.backend, parallel, self.events.append)

    def execute(self, **given: Any) -> Run:
        launcher = self.launcher(**given)
        launcher.execute()
        return launcher.run

    def command(
        self, *words: str | Path, env: dict[str, str] | None = None, before: Callable[[], None] | None = None
    ) -> subprocess.Popen[str]:
        """Start `vasevqa ...` as a process, with this pipeline and volume. The new process first calls `before`."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.drive", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, "VASEVQA_VOLUME": str(self.volume.root), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,  # noqa: PLW1509 - the function only makes a system call
        )
        self.processes.append(process)
        return process

    def call(
        self,
        *words: str | Path,
        env: dict[str, str] | None = None,
        check: int | None = 0,
        before: Callable[[], None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run such a process to its end. Its exit code must be `check`."""
        process = self.command(*words, env=env, before=before)
        out, errors = process.communicate(timeout=120)
        if check is not None:
            assert process.returncode == check, out + errors
        assert "Traceback" not in errors, errors
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def run(self, *words: str | Path, **given: Any) -> subprocess.CompletedProcess[str]:
        """Run `vasevqa run words.yaml ...`."""
        return self.call("run", self.recipe, *words, **given)

    def wish(self, step: str, *outcomes: int | str) -> None:
        """Set how the next attempts of `step` end."""
        (self.control / f"{step}.fail").write_text(json.dumps(outcomes))

    def hold(self, step: str, where: str = "hold") -> Path:
        """Make `step` wait in the middle. The step continues after the returned file is removed."""
        path = self.control / f"{step}.{where}"
        path.touch()
        return path

    def wait_until_held(self, step: str, where: str = "hold") -> None:
        wait_for((self.control / f"{step}.{where}.reached").exists, f"{step} to reach {where}")

    def attempts(self, what: str = "begins") -> Counter[str]:
        """Return how often each step logged the action `what`."""
        try:
            lines = (self.control / "attempts.log").read_text().splitlines()
        except FileNotFoundError:
            return Counter()
        return Counter(line.split()[0] for line in lines if line.split()[1] == what)

    def pid(self, step: str) -> int:
        """Return the process id of the newest attempt of `step`."""
        lines = (self.control / "attempts.log").read_text().splitlines()
        return int([line for line in lines if line.startswith(f"{step} begins")][-1].split()[2])

    def artifacts(self) -> list[Artifact]:
        return [artifact for step in STEPS for artifact in self.volume.complete(step)]

    def contents(self) -> dict[str, dict[str, Any]]:
        """Verify all artifacts, and return a mapping from step and key to the artifact's files with their digests."""
        return {f"{artifact.step}/{artifact.key}": verify(artifact.path)["files"] for artifact in self.artifacts()}

    def runs(self) -> list[Run]:
        return all_runs(self.volume)

    def close(self) -> None:
        """End all processes that a test started."""
        for process in self.processes:
            process.kill()
            process.communicate()
        backend = self.backend
        for job in backend.existing("vase-"):
            backend.cancel(job, 0)
            wait_for(lambda job=job: backend.state(job).is_terminal, f"{job} to end")

    def assert_tidy(self) -> None:
        """Assert that only complete artifacts are left: no partial folder, lease, job or process."""
        for step in STEPS:
            folder = self.volume.artifacts / step
            left = (
                [entry.name for entry in folder.iterdir() if entry.suffix not in ("", ".lock")]
                if folder.is_dir()
                else []
            )
            assert not left, left
        assert self.backend.existing("vase-") == []


def of(kit: Kit, kind: str, step: str | None = None) -> list[Event]:
    """Return the events of a kind (and step) that the kit's launchers have reported so far."""
    return [event for event in kit.events if event["event"] == kind and step in (None, event.get("step"))]


class Background:
    """A launcher that runs in a thread."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._execute, daemon=True)
        self.thread.start()

    def _execute(self) -> None:
        try:
            self.launcher.execute()
        except BaseException as error:
            self.error = error

    def join(self) -> BaseException | None:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.error
