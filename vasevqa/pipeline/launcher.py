"""Runs a plan: starts what is missing, adopts what already runs, commits what is finished, tries again where that helps.

The launcher keeps nothing that it couldn't find again: artifacts, leases, the backend's jobs and the event log say
everything. It may be killed at any point (FaultPoint lists the kinds) and started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.backends.base import Backend, State, Task
from vasevqa.backends.failures import Failure, Kind, classify, remedy
from vasevqa.errors import DataError, VaseError
from vasevqa.pipeline.digests import stamp
from vasevqa.pipeline.entry import argv
from vasevqa.pipeline.events import Event, parse
from vasevqa.pipeline.lease import Lease, LeaseHeld, holder, revoke
from vasevqa.pipeline.plan import Plan, PlannedStep
from vasevqa.pipeline.runs import Run
from vasevqa.pipeline.spec import Resources

WATCH_SECONDS = 0.5
GRACE = 30.0


class FaultPoint(Enum):
    """The moments between which everything of note happens: a drill kills the launcher at each."""

    BEFORE_SUBMIT = "before-submit"
    AFTER_SUBMIT = "after-submit"
    WHILE_RUNNING = "while-running"
    BEFORE_COMMIT = "before-commit"
    AFTER_COMMIT = "after-commit"
    BETWEEN_STEPS = "between-steps"
    DURING_RETRY = "during-retry"


def fault(point: FaultPoint, step: str) -> None:
    """Die here by SIGKILL if VASEVQA_FAULT says so (`point:step`): for crash drills."""
    if os.environ.get("VASEVQA_FAULT") == f"{point.value}:{step}":
        os.kill(os.getpid(), signal.SIGKILL)


class Cancelled(Exception):
    """Somebody asked the run to stop."""


class StepFailed(VaseError):
    """A step failed for good; carries the exit code to end with."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.code = exit_code


class Standing(Enum):
    """Where a step stands in this launcher's eyes."""

    WAITING = "waiting"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"  # another launcher's job is making the artifact
    DONE = "done"
    FAILED = "failed"


@dataclass
class Work:
    """One step being worked on."""

    planned: PlannedStep
    resources: Resources
    standing: Standing = Standing.WAITING
    job: str = ""
    attempt: int = 0
    said: str = ""
    started: float = 0.0
    stamps: dict[str, str] = field(default_factory=dict)
    tries: Counter[Kind] = field(default_factory=Counter)
    failure: Failure | None = None
    ours: bool = False  # submitted by this launcher's run
    aside: Path | None = None
    heard: float = 0.0  # stage events up to this time are in the log already


Listener = Callable[[Event], None]


class Launcher:
    """Executes `plan` as `run` on `backend`; `listener` is told every event, for the display."""

    def __init__(self, plan: Plan, run: Run, backend: Backend, parallel: int, listener: Listener) -> None:
        self.plan, self.run, self.backend, self.parallel = plan, run, backend, parallel
        self._listen = listener
        self._work = {step.name: Work(step, step.resources) for step in plan.steps}

    def event(self, kind: str, keep: bool = True, **fields: Any) -> None:
        """Log an event (unless it is mere progress) and show it."""
        event = self.run.events.append(kind, **fields) if keep else {"event": kind, **fields}
        self._listen(event)

    def execute(self) -> None:
        """Run to the end. Raises StepFailed when a step failed for good, Cancelled when asked to stop, LeaseHeld if another launcher works on this run."""
        lease = Lease.acquire(self.run.lease, f"launcher-{os.getpid()}")
        lease.keep(on_lost=lambda: None)
        try:
            self.event("run-started", run=self.run.name, steps=list(self._work), skipped=dict(self.plan.skipped))
            for given in self.plan.given:
                if not given.artifact.complete:
                    given.artifact.commit(f"launcher-{os.getpid()}")
                self.run.link(given.artifact)
            self._loop()
        except (KeyboardInterrupt, Cancelled):
            self._cancel()
            self.event("run-cancelled")
            raise
        finally:
            lease.release()
        failed = [work for work in self._work.values() if work.failure is not None]
        if failed:
            first = failed[0].failure
            assert first is not None
            self.event("run-failed", step=failed[0].planned.name, message=first.message, exit_code=first.exit_code)
            raise StepFailed(first.message, first.exit_code)
        self.event("run-finished")

    def _loop(self) -> None:
        while True:
            self._start_ready()
            running = {work.job: work for work in self._work.values() if work.standing is Standing.RUNNING}
            elsewhere = [work for work in self._work.values() if work.standing is Standing.ELSEWHERE]
            if not running and not elsewhere:
                return
            if self.run.cancel_file.exists():
                raise Cancelled
            for update in self.backend.watch(list(running), WATCH_SECONDS):
                work = running[update.name]
                self._hear(work, update.text)
                if update.state in (State.FINISHED, State.GONE):
                    self._finish(work, update.state)
            for work in elsewhere:
                self._look_elsewhere(work)

    def _start_ready(self) -> None:
        stopping = any(work.standing is Standing.FAILED for work in self._work.values())
        for name, work in self._work.items():
            busy = sum(other.standing is Standing.RUNNING for other in self._work.values())
            if work.standing is not Standing.WAITING or busy >= self.parallel or stopping:
                continue
            if all(self._work[other].standing is Standing.DONE for other in work.planned.after if other in self._work):
                if work.planned.after:
                    fault(FaultPoint.BETWEEN_STEPS, name)
                self._start(work)

    def _start(self, work: Work) -> None:
        """Take the artifact if it exists, commit it if it is sealed, attach to whoever makes it, else submit an attempt."""
        step, artifact = work.planned, work.planned.artifact
        refresh = not step.hit and artifact.complete and "refresh was asked for" in step.reasons and work.aside is None and not work.attempt
        if artifact.complete and not refresh:
            self._done(work, hit=True)
            return
        if refresh:  # kept until the new one is there
            work.aside = artifact.path.with_name(f"{artifact.key}.{os.urandom(3).hex()}.aside")
            artifact.path.rename(work.aside)
        work.stamps = {name: stamp(given.path) for name, given in step.inputs.items() if given.step is None and given.path is not None}
        prefix = f"vase-{step.name}-{artifact.key[:10]}-"
        jobs = self.backend.existing(prefix)
        if jobs:
            work.job, work.attempt = jobs[-1], int(jobs[-1].rpartition("-")[2])
            if any(update.state in (State.PENDING, State.RUNNING) for update in self.backend.watch([work.job], 0)):
                work.standing, work.started = Standing.RUNNING, time.time()
                work.heard = self._heard_before(step.name)
                self.event("step-adopted", step=step.name, job=work.job, attempt=work.attempt, key=artifact.key)
                return
        if artifact.sealed:
            self._commit(work)
            return
        if holder(artifact.lease) is not None:
            work.standing = Standing.ELSEWHERE
            self.event("step-elsewhere", step=step.name, key=artifact.key)
            return
        self._submit(work)

    def _submit(self, work: Work) -> None:
        step, artifact = work.planned, work.planned.artifact
        work.attempt += 1
        work.job, work.said = f"vase-{step.name}-{artifact.key[:10]}-{work.attempt}", ""
        task_file = self.run.path / "tasks" / f"{step.name}-{work.attempt}.json"
        inputs = {name: {"key": given.key, "path": given.value} for name, given in step.inputs.items()}
        volume = self.plan.volume.root
        description = {
            "schema": 1,
            "step": step.name,
            "stage": step.stage.name,
            "key": artifact.key,
            "attempt": work.job,
            "run": self.run.name,
            "volume": str(volume),
            "inputs": inputs,
        }
        files.write_json(task_file, description)
        words = argv(step.stage, step.params, step.options, {name: given.value for name, given in step.inputs.items()}, str(artifact.partial))
        words += ["--task", str(task_file), "--json-events"]
        log = self.run.log(step.name, work.attempt)
        task = Task(work.job, self.run.name, step.name, step.stage.name, artifact.key, work.attempt, tuple(words), work.resources, volume, log)
        fault(FaultPoint.BEFORE_SUBMIT, step.name)
        self.backend.submit(task)
        work.standing, work.started, work.ours = Standing.RUNNING, time.time(), True
        self.event("step-started", step=step.name, job=work.job, attempt=work.attempt, key=artifact.key, log=str(log), resources=work.resources.model_dump())
        fault(FaultPoint.AFTER_SUBMIT, step.name)

    def _hear(self, work: Work, text: str) -> None:
        for event in parse(text.split("\n")):
            kind, at = event.pop("event"), float(event.pop("time", 0.0))
            if at and at <= work.heard:
                continue
            if kind == "phase":
                fault(FaultPoint.WHILE_RUNNING, work.planned.name)
            if kind == "error":
                work.said = str(event.get("message", ""))
            keep = kind in ("metrics", "summary", "speed", "error", "note")
            named = {"stage_step" if key == "step" else key: value for key, value in event.items()}
            self.event(f"stage-{kind}", keep=keep, step=work.planned.name, at=at, **named)

    def _heard_before(self, step: str) -> float:
        """When the last stage event of `step` in the log was: an adopted job's output is read from its beginning."""
        return max((float(event.get("at", 0.0)) for event in self.run.events.read() if event.get("step") == step), default=0.0)

    def _finish(self, work: Work, state: State) -> None:
        artifact = work.planned.artifact
        if artifact.sealed or artifact.complete:
            self._commit(work)
            return
        outcome = self.backend.outcome(work.job)
        if state is State.GONE:
            failure = Failure(Kind.TRANSIENT, f"The job {work.job} of {work.planned.name} is gone.", 75)
        elif outcome.exit_code == 0:
            failure = Failure(Kind.BUG, f"{work.planned.name} ended without an error and without its artifact; see its log.", 1)
        else:
            failure = classify(outcome, work.said, work.planned.name)
        self._failed(work, failure)

    def _failed(self, work: Work, failure: Failure) -> None:
        revoke(work.planned.artifact.lease, work.job)
        again = remedy(failure, work.resources, work.tries[failure.kind])
        work.tries[failure.kind] += 1
        name = work.planned.name
        log = self.run.log(name, work.attempt)
        self.event(
            "attempt-failed",
            step=name,
            attempt=work.attempt,
            failure=failure.kind.value,
            message=failure.message,
            exit_code=failure.exit_code,
            retry=again is not None,
            log=str(log),
        )
        if again is not None:
            fault(FaultPoint.DURING_RETRY, name)
            work.resources = again
            self._submit(work)
            return
        work.standing, work.failure = Standing.FAILED, failure
        if work.aside is not None and not work.planned.artifact.path.exists():
            work.aside.rename(work.planned.artifact.path)
        self._forget(work)
        self.event("step-failed", step=name, message=failure.message, exit_code=failure.exit_code, log=str(log))

    def _commit(self, work: Work) -> None:
        name = work.planned.name
        changed = [given for given, before in work.stamps.items() if stamp(work.planned.inputs[given].path or Path()) != before]
        if changed and not work.planned.artifact.complete:
            failure = Failure(Kind.PERMANENT, f"The input {changed[0]} of {name} changed while it ran; its result is not kept, run again.", DataError.exit_code)
            self._discard(work)
            self._failed(work, failure)
            return
        fault(FaultPoint.BEFORE_COMMIT, name)
        try:
            work.planned.artifact.commit(f"launcher-{os.getpid()}")
        except LeaseHeld:
            work.standing = Standing.ELSEWHERE
            return
        except DataError as error:
            self._failed(work, Failure(Kind.PERMANENT, str(error), error.exit_code))
            return
        fault(FaultPoint.AFTER_COMMIT, name)
        self._done(work, hit=False)

    def _discard(self, work: Work) -> None:
        """What was made from a mixture of old and new inputs must not be taken for either by the next launcher."""
        with contextlib.suppress(FileNotFoundError):
            (work.planned.artifact.partial / "artifact.json").unlink()

    def _done(self, work: Work, hit: bool) -> None:
        work.standing = Standing.DONE
        self.run.link(work.planned.artifact)
        self._forget(work)
        record = work.planned.artifact.record()
        seconds = None if hit or not work.started else round(time.time() - work.started, 3)
        self.event("step-done", step=work.planned.name, key=work.planned.artifact.key, hit=hit, seconds=seconds, summary=record.get("summary", ""))

    def _forget(self, work: Work) -> None:
        for job in self.backend.existing(f"vase-{work.planned.name}-{work.planned.artifact.key[:10]}-"):
            self.backend.remove(job)

    def _look_elsewhere(self, work: Work) -> None:
        artifact = work.planned.artifact
        if artifact.complete:
            self._done(work, hit=True)
        elif holder(artifact.lease) is None:
            work.standing = Standing.WAITING  # its maker is gone: commit what it sealed, or take over

    def _cancel(self, grace: float = GRACE) -> None:
        try:
            self._cancel_jobs(grace)
        except KeyboardInterrupt:  # asked a second time: no more waiting
            self._cancel_jobs(0.0)

    def _cancel_jobs(self, grace: float) -> None:
        for work in self._work.values():
            if work.standing is Standing.RUNNING and work.job:
                self.event("step-cancelled", step=work.planned.name, job=work.job)
                self.backend.cancel(work.job, grace)
                revoke(work.planned.artifact.lease, work.job)
                self._forget(work)
