"""Runs a plan: starts missing steps, adopts running jobs, commits finished artifacts, retries when useful.

The launcher keeps no state of its own: artifacts, leases, the backend's jobs and the event log hold everything. It may
be killed at any point (faults.py lists them) and started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from vasevqa.artifacts.lease import Lease, LeaseHeld, holder
from vasevqa.backends.base import Backend
from vasevqa.errors import (
    ClusterUnreachable,
    Interrupted,
    LeaseLost,
    StorageError,
    Terminated,
    VaseError,
    storage_error,
)
from vasevqa.faults import FaultPoint, fault
from vasevqa.pipeline.events import Event
from vasevqa.pipeline.executor import StepExecutor, fingerprints_of
from vasevqa.pipeline.failures import Failure, Kind
from vasevqa.pipeline.plan import Plan
from vasevqa.pipeline.runs import Run
from vasevqa.pipeline.step_run import Signals, StepRun, StepStatus

WATCH_SECONDS = 0.5
AWAY_SECONDS = 5.0  # before an unreachable cluster is asked again
GRACE = 30.0  # seconds from SIGTERM to SIGKILL


class Cancelled(Exception):
    """A user asked the run to stop."""


class Detached(Exception):
    """The launcher was asked to stop and to leave its jobs to the next launcher."""


class StepFailed(VaseError):
    """A step failed for good; carries the exit code to end with."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.code = exit_code


Listener = Callable[[Event], None]


class Launcher:
    """Executes `plan` as `run` on `backend`; `listener` receives every event for the display."""

    def __init__(self, plan: Plan, run: Run, backend: Backend, parallel: int, listener: Listener) -> None:
        self.plan, self.run, self.backend, self.parallel = plan, run, backend, parallel
        self.grace = GRACE
        self.detach = False  # on a request to stop, leave the jobs to the next launcher
        self._listen = listener
        self._me = f"launcher-{os.getpid()}"
        self._executor = StepExecutor(run, backend, self._me, self._tell)
        self._work = {
            step.name: StepRun(step, step.resources, {} if step.hit else fingerprints_of(step)) for step in plan.steps
        }
        self._lease: Lease | None = None
        self._signals = Signals()
        self._stops_handled = 0  # how many requests to stop were acted on
        self._unanswered: set[str] = set()  # steps for which the cluster didn't answer
        self._trouble: VaseError | None = None  # the run's own folder can't be written

    def execute(self) -> None:
        """Run the plan to its end.

        Raises StepFailed when a step failed for good, StorageError when the run's folder can't be written, LeaseHeld if
        another launcher works on this run; Cancelled, KeyboardInterrupt or Terminated when asked to stop by the run's
        cancel file, Ctrl-C or SIGTERM (Detached if `detach` is set); Interrupted if another launcher took over this run
        while this one was frozen.
        """
        self._lease = Lease.acquire(self.run.lease, self._me)
        self._lease.keep(on_lost=lambda: None)
        try:
            with self._signals:
                fault(FaultPoint.RUN_OPENED)
                self._begin()
                self._loop()
                self._end()
        except OSError as error:
            raise storage_error(error, "write") or error from None
        finally:
            self._lease.release()

    def _tell(self, kind: str, fields: dict[str, object], keep: bool = True) -> None:
        """Log an event (if `keep`) and pass it to the listener."""
        event = {"event": kind, "time": round(time.time(), 3), **fields}
        if keep and self._trouble is None:
            assert self._lease is not None
            if not self._lease.held():
                raise Interrupted(
                    f"Another launcher has taken over run {self.run.name}; follow it with `vasevqa logs -f"
                    f" {self.run.name}`."
                )
            try:
                event = self.run.events.append(kind, **fields)
            except OSError as error:
                self._trouble = storage_error(error, "write", self.run.path) or StorageError(
                    f"Could not write {self.run.path}: {error.strerror}."
                )
        try:
            self._listen(event)
        except OSError:  # the display is gone (a closed pipe); the run continues
            self._listen = lambda event: None

    def _begin(self) -> None:
        events = list(self.run.events.read())
        for work in self._work.values():
            work.restore(events)
        self._executor.images = {event["stage"]: event["image"] for event in events if event["event"] == "run-image"}
        self._tell(
            "run-started",
            {
                "run": self.run.name,
                "steps": list(self._work),
                "skipped": dict(self.plan.skipped),
                "resumed": bool(events),
            },
        )
        for given in self.plan.given:
            while not given.artifact.complete and not self._handle_stop_requests():
                try:
                    given.artifact.commit(self._me)
                except (LeaseHeld, LeaseLost):  # another launcher is writing it
                    time.sleep(WATCH_SECONDS)
            if given.artifact.complete:
                self.run.link(given.artifact)

    def _end(self) -> None:
        failed = [work for work in self._work.values() if work.failure is not None]
        if failed and failed[0].failure is not None:
            failure = failed[0].failure
            self._tell(
                "run-failed", {"step": failed[0].name, "message": failure.message, "exit_code": failure.exit_code}
            )
            raise StepFailed(failure.message, failure.exit_code)
        if self._trouble is not None:
            raise self._trouble
        if any(work.status is not StepStatus.DONE for work in self._work.values()):
            self._tell("run-cancelled", {})
            with contextlib.suppress(OSError):
                self.run.cancel_file.unlink()
            if not self._signals.numbers:
                raise Cancelled
            raise Terminated if self._signals.numbers[0] == signal.SIGTERM else KeyboardInterrupt
        fault(FaultPoint.BEFORE_END)
        self._tell("run-finished", {})
        if self._trouble is not None:
            raise self._trouble

    # The main loop.

    def _loop(self) -> None:
        while True:
            ending = self._handle_stop_requests() or self._trouble is not None or bool(self._in(StepStatus.FAILED))
            if not ending:
                self._start_ready()
            running = {work.job: work for work in self._in(StepStatus.RUNNING)}
            elsewhere = self._in(StepStatus.ELSEWHERE)
            retries = [work.not_before - time.monotonic() for work in self._in(StepStatus.WAITING) if work.not_before]
            if not running and (ending or not (elsewhere or retries)):
                if ending or not self._ready():
                    return
                continue
            # A retry that is due waits for a free place, so it doesn't shorten the timeout.
            for update in self.backend.watch(
                list(running), min([WATCH_SECONDS, *(pause for pause in retries if pause > 0)])
            ):
                work = running[update.name]
                self._guarded(work, partial(self._executor.notice, work, update))
                if update.state.is_terminal and work.status is StepStatus.RUNNING:
                    self._guarded(work, partial(self._executor.finish, work, update.state, self._stops_handled > 0))
            for work in self._in(StepStatus.RUNNING):
                self._check_deadline(work)
            for work in elsewhere:
                self._guarded(work, partial(self._executor.look_elsewhere, work))

    def _in(self, status: StepStatus) -> list[StepRun]:
        return [work for work in self._work.values() if work.status is status]

    def _guarded(self, work: StepRun, act: Callable[[], None]) -> None:
        """Do something for one step; an error fails that step only."""
        try:
            act()
        except LeaseHeld:
            work.status = StepStatus.ELSEWHERE
        except Interrupted as error:
            if not isinstance(error, LeaseLost):
                raise
            work.status = StepStatus.ELSEWHERE
        except ClusterUnreachable as error:  # nothing has changed yet: repeat it later
            if work.status is StepStatus.RUNNING:
                time.sleep(WATCH_SECONDS)  # for a finished job `watch` returns at once, so don't spin
            else:
                self._wait_for_cluster(work, str(error))
        except VaseError as error:
            self._executor.give_up(work, Failure(Kind.PERMANENT, str(error), error.exit_code))
        except OSError as error:
            known = storage_error(error, "write", error.filename)
            if known is None:
                raise
            self._executor.give_up(work, Failure(Kind.VOLUME, str(known), known.exit_code))

    def _wait_for_cluster(self, work: StepRun, why: str) -> None:
        if work.name not in self._unanswered:
            self._unanswered.add(work.name)
            self._tell(
                "step-waiting",
                {"step": work.name, "job": "", "message": f"{why} The launcher keeps asking until it does."},
            )
        work.status, work.not_before = StepStatus.WAITING, time.monotonic() + AWAY_SECONDS

    def _handle_stop_requests(self) -> bool:
        """Act on a request to stop, once per request; True if there was one.

        The second request kills the jobs without a grace period.
        """
        asked = len(self._signals.numbers) or int(self.run.cancel_file.exists())
        if self.detach and self._signals.numbers:
            raise Detached
        for work in self._in(StepStatus.RUNNING):
            if asked and not self._stops_handled:
                self._tell("step-cancelled", {"step": work.name, "job": work.job, "key": work.planned.artifact.key})
            if asked > work.asked:
                self._guarded(work, partial(self._stop, work, asked))
        self._stops_handled = max(self._stops_handled, asked)
        return asked > 0

    def _stop(self, work: StepRun, asked: int) -> None:
        if self._ours(work):
            self.backend.cancel(work.job, self.grace if asked == 1 else 0.0)
            work.asked = asked
        else:
            work.status = StepStatus.CANCELLED

    def _ours(self, work: StepRun) -> bool:
        """False if another run with a live launcher submitted the job; then this launcher must not stop it."""
        owner = self.backend.owner(work.job)
        return owner in (None, self.run.name) or holder(Run(self.run.volume, str(owner)).lease) is None

    def _ready(self) -> list[StepRun]:
        now = time.monotonic()
        done = {work.name for work in self._in(StepStatus.DONE)}
        return [
            work
            for work in self._in(StepStatus.WAITING)
            if work.not_before <= now and all(name in done or name not in self._work for name in work.planned.after)
        ]

    def _start_ready(self) -> None:
        for work in self._ready():
            if len(self._in(StepStatus.RUNNING)) < self.parallel:
                if any(name in self._work for name in work.planned.after):
                    fault(FaultPoint.BETWEEN_STEPS, work.name)
                work.not_before = 0.0
                self._guarded(work, partial(self._executor.start, work))
                if work.status is not StepStatus.WAITING:
                    self._unanswered.discard(work.name)

    def _check_deadline(self, work: StepRun) -> None:
        late = work.late(time.time()) if work.overdue is None else None
        if late is not None:
            self._guarded(work, partial(self._end_late, work, late))

    def _end_late(self, work: StepRun, late: Failure) -> None:
        if self._ours(work):
            self.backend.cancel(work.job, self.grace)
            work.overdue = late
        else:  # the other run may have other deadlines
            whose = f"run {self.backend.owner(work.job)} started {work.job}, which is still running"
            self._executor.give_up(work, replace(late, message=f"{late.message.rstrip('.')} ({whose})."))
