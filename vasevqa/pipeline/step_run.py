"""The launcher's state of one step. The event log of the run can restore this state."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from vasevqa.backends.base import Task, job_prefix
from vasevqa.errors import Interrupted
from vasevqa.pipeline.events import Event
from vasevqa.pipeline.failures import UNAVAILABLE, Failure, Kind
from vasevqa.pipeline.history import restore
from vasevqa.pipeline.plan import PlannedStep
from vasevqa.pipeline.runs import Run
from vasevqa.runtime.flags import argv
from vasevqa.spec import Resources


class StepStatus(Enum):
    """The status of a step in this launcher."""

    WAITING = "waiting"  # for its inputs, for another step to end (--parallel), or for the next attempt
    RUNNING = "running"  # this launcher watches its job
    ELSEWHERE = "elsewhere"  # another process writes the artifact in a job that this launcher can't watch
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class StepRun:
    """The state that the launcher keeps for one step."""

    planned: PlannedStep
    resources: Resources
    fingerprints: dict[str, str]  # fingerprints of the recipe inputs that the step reads, from the time of planning
    status: StepStatus = StepStatus.WAITING
    job: str = ""  # the current or last job; after `restore`, a job whose end isn't logged
    attempt: int = 0
    started: float = 0.0  # seconds since the epoch
    not_before: float = 0.0  # on the monotonic clock: when the next attempt may begin
    error_message: str = ""  # the error message of the current attempt
    error_class: str = ""  # the name of the error's class in errors.py
    last_event_time: float = 0.0  # stage events up to this time are already in the log
    progress_kept: float = 0.0
    tries: Counter[Kind] = field(default_factory=Counter)
    failure: Failure | None = None
    refreshed: bool = False
    previous: Path | None = None  # the artifact that a refresh replaces, until the new one is complete
    placed: float = 0.0  # seconds since the epoch: when the launcher first saw that the attempt has its resources
    ran: float = 0.0  # seconds since the epoch: when the launcher first saw the attempt run
    spoke: bool = False  # the current attempt printed something
    note: str = ""  # what the current attempt waits for
    image_id: str = ""  # the id of the job's image on the job's machine
    overdue: Failure | None = None  # set if a deadline passed and the job was therefore stopped
    asked: int = 0  # number of requests to stop that were passed to the job

    @property
    def name(self) -> str:
        """The step's name."""
        return self.planned.name

    @property
    def prefix(self) -> str:
        """The prefix of the names of all jobs for this artifact."""
        return job_prefix(self.name, self.planned.artifact.key)

    def restore(self, events: Iterable[Event]) -> None:
        """Restore the step's state from the events that earlier launchers logged.

        The state includes the number of failures of each kind, and the last job if no failure of it was logged. It also
        includes the resources that a launcher increased after a failure, for example the memory.
        """
        before = restore(events, self.name, self.planned.artifact.key)
        self.job, self.attempt, self.started = before.job, before.attempt, before.started
        self.placed, self.ran, self.last_event_time = before.placed, before.ran, before.last_event_time
        if before.previous:
            self.refreshed, self.previous = True, Path(before.previous)
        self.tries = Counter({kind: before.failures[kind.value] for kind in Kind if kind.value in before.failures})
        self.resources = self.resources.model_copy(update=before.raised)

    def begin(self, job: str, attempt: int) -> None:
        """Reset the state for a new attempt."""
        self.job, self.attempt, self.started = job, attempt, time.time()
        (
            self.error_message,
            self.error_class,
            self.last_event_time,
            self.placed,
            self.ran,
            self.spoke,
            self.note,
            self.image_id,
            self.overdue,
        ) = (
            "",
            "",
            0.0,
            0.0,
            0.0,
            False,
            "",
            "",
            None,
        )

    def late(self, now: float) -> Failure | None:
        """Return a failure if a deadline has passed; otherwise None.

        There are deadlines for the time in the queue, for the first line of output, and for the whole attempt.
        """
        asked = self.resources
        why = f" ({self.note.rstrip('.')})" if self.note else ""
        if not self.placed and now - self.started > asked.queue_deadline:
            message = (
                f"{self.name} waited longer than its queue_deadline of {asked.queue_deadline} s in the queue{why};"
                " request fewer resources, or raise the deadline."
            )
            return Failure(Kind.CLUSTER, message, UNAVAILABLE)
        if self.placed and not self.spoke and not self.ran and now - self.placed > asked.start_deadline:
            message = (
                f"{self.name} got its resources but did not start within its start_deadline of {asked.start_deadline}"
                f" s{why}; fix the cause, or raise the deadline."
            )
            return Failure(Kind.CLUSTER, message, UNAVAILABLE)
        if self.ran and not self.spoke and now - self.ran > asked.start_deadline:
            message = (
                f"{self.name} printed nothing within its start_deadline of {asked.start_deadline} s; check its"
                " image and volume, or raise the deadline."
            )
            return Failure(Kind.CLUSTER, message, UNAVAILABLE)
        if asked.run_deadline is not None and self.ran and now - self.ran > asked.run_deadline:
            message = (
                f"{self.name} ran longer than its run_deadline of {asked.run_deadline} s; raise it and run again to"
                " resume."
            )
            return Failure(Kind.PERMANENT, message, Interrupted.exit_code)
        return None

    def task(self, run: Run, attempt: int, image: str = "") -> Task:
        """Return the task for attempt number `attempt`; the attempt runs in `image`."""
        step, artifact = self.planned, self.planned.artifact
        words = argv(
            step.stage,
            step.params,
            step.options,
            {name: given.value for name, given in step.inputs.items()},
            str(artifact.partial),
        )
        words += ["--task", str(run.task(step.name, attempt)), "--json-events"]
        return Task(
            run=run.name,
            step=step.name,
            stage=step.stage.name,
            key=artifact.key,
            attempt=attempt,
            arguments=tuple(words),
            resources=self.resources,
            volume=run.volume.root,
            log=run.log(step.name, attempt),
            offline=all(given.path is not None for given in step.inputs.values()),
            image=image,
            reads=_outside(step, run.volume.root),
            device=str(getattr(step.options, "device", "auto")),
        )

    def description(self, task: Task) -> dict[str, object]:
        """Return the content of the stage's --task file. The stage copies `inputs` into the artifact's record."""
        inputs: dict[str, dict[str, str]] = {}
        for name, given in self.planned.inputs.items():
            inputs[name] = {"key": given.key, "path": given.value}
            if name in self.fingerprints:
                inputs[name]["stamp"] = self.fingerprints[name]
        return {
            "schema": 1,
            "step": task.step,
            "stage": task.stage,
            "key": task.key,
            "attempt": task.name,
            "run": task.run,
            "volume": str(task.volume),
            "inputs": inputs,
        }


def _outside(step: PlannedStep, volume: Path) -> tuple[Path, ...]:
    """Return the paths outside the volume that the step reads.

    These paths are inputs, and the targets of inputs that are links. A hub's cache holds the files of a model as links.
    For such a model, the result also contains the folders that these links lead to.
    """
    paths: set[Path] = set()
    for name, given in step.inputs.items():
        if given.path is None or given.step is not None:
            continue
        paths |= {given.path, given.path.resolve()}
        if step.stage.input(name).hub and given.path.is_dir():
            with os.scandir(given.path) as entries:
                paths |= {Path(os.path.realpath(entry.path)).parent for entry in entries if entry.is_symlink()}
    roots = (volume, volume.resolve())
    return tuple(
        sorted(path for path in paths if path.exists() and not any(path.is_relative_to(root) for root in roots))
    )


class Signals:
    """Collects SIGINT and SIGTERM in a list.

    No exception is raised for the first two signals, because an exception at the wrong moment could leave a job without
    a launcher. The third signal raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.numbers.append(number)
        if len(self.numbers) > 2:
            raise KeyboardInterrupt

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
