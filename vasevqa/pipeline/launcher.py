"""Run a plan: start missing steps, adopt running jobs, commit finished artifacts, and retry failed attempts.

To adopt a job means to follow a job that another launcher started. The launcher keeps all state in the artifacts, the
leases, the backend's jobs and the event log. So the launcher may be killed at any point and started again. faults.py
lists the points at which tests kill it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from vasevqa.artifacts.lease import Lease, LeaseHeld, holder
from vasevqa.backends.base import Backend, Update
from vasevqa.confidential import Masker
from vasevqa.errors import (
    ClusterUnreachable,
    ConfigError,
    HostMemoryError,
    Interrupted,
    LeaseLost,
    StorageError,
    Terminated,
    TransientStorageError,
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
from vasevqa.storage import patiently

WATCH_SECONDS = 0.5
AWAY_SECONDS = 5.0  # seconds before an unreachable cluster is asked again
IDENTIFIERS = {"step", "job", "key", "run", "stage", "image", "log", "event", "resources"}  # of events; never masked
GRACE = 30.0  # seconds from SIGTERM to SIGKILL


class Cancelled(Exception):
    """A user asked the run to stop."""


class Detached(Exception):
    """A user or the system asked the launcher to stop; its jobs continue for the next launcher."""


class RunRemoved(Exception):
    """`clean` has removed the run before its launcher began."""


class StepFailed(VaseError):
    """A step failed for good. The exception contains the exit code of the launcher."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.code = exit_code


Listener = Callable[[Event], None]


class Launcher:
    """Executes `plan` as `run` on `backend`. `listener` is called with every event and shows the event."""

    def __init__(self, plan: Plan, run: Run, backend: Backend, parallel: int, listener: Listener) -> None:
        self.plan, self.run, self.backend, self.parallel = plan, run, backend, parallel
        self.grace = GRACE
        self.detach = False  # on a request to stop, leave the jobs to the next launcher
        self._listen = listener
        self._me = f"launcher-{os.getpid()}"
        self._mask = Masker(os.environ)
        self._executor = StepExecutor(run, backend, self._me, self._tell)
        self._step_runs = {
            step.name: StepRun(step, step.resources, {} if step.hit else fingerprints_of(step, run.volume.root))
            for step in plan.steps
        }
        self._lease: Lease | None = None
        self._signals = Signals()
        self._stops_handled = 0  # number of requests to stop that were handled
        self._unanswered: set[str] = set()  # steps for which the cluster didn't answer
        self._trouble: VaseError | None = None  # the error if the run's own folder can't be written to

    def execute(self) -> None:
        """Run the plan to its end.

        Raise StepFailed if a step failed for good. Raise StorageError if the run's folder can't be written to. Raise
        LeaseHeld if another launcher works on this run, and RunRemoved if `clean` has removed the run. Raise
        Interrupted if this launcher was suspended and another launcher took over the run. Also raise Interrupted if the
        storage failed for so long that another launcher may take over the run.

        Raise Cancelled if the run's cancel file exists, KeyboardInterrupt after Ctrl-C, and Terminated after SIGTERM.
        If `detach` is set, raise Detached after Ctrl-C and SIGTERM.
        """
        self._lease = Lease.acquire(self.run.lease, self._me)
        if not self.run.recipe.is_file():
            self._lease.release()
            raise RunRemoved
        self._lease.keep(on_lost=lambda loss: None)
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
        """Pass an event to the listener; with `keep`, also log the event."""
        fields = {name: value if name in IDENTIFIERS else self._mask.within(value) for name, value in fields.items()}
        event = {"event": kind, "time": round(time.time(), 3), **fields}
        if keep and self._trouble is None:
            assert self._lease is not None
            loss = self._lease.loss()
            if loss is not None and loss.taken_over:
                raise Interrupted(
                    f"Another launcher has taken over run {self.run.name}; follow it with `vasevqa logs -f"
                    f" {self.run.name}`."
                )
            if loss is not None:  # another launcher may take over the run now
                raise Interrupted(str(loss))
            try:
                event = patiently(lambda: self.run.events.append(kind, **fields), self.run.path, "write")
            except (StorageError, TransientStorageError, HostMemoryError) as error:
                self._trouble = error
            except OSError as error:
                self._trouble = StorageError(f"Could not write {self.run.path}: {error.strerror}.")
        try:
            self._listen(event)
        except OSError:  # the display was closed (a closed pipe); the run continues
            self._listen = lambda event: None

    def _begin(self) -> None:
        events = list(self.run.events.read())
        for step_run in self._step_runs.values():
            step_run.restore(events)
        self._executor.images = {
            event["stage"]: event["image"]
            for event in events
            if event["event"] == "run-image" and {"stage", "image"} <= set(event)
        }
        self._tell(
            "run-started",
            {
                "run": self.run.name,
                "steps": list(self._step_runs),
                "skipped": dict(self.plan.skipped),
                "resumed": bool(events),
            },
        )
        for given in self.plan.given:
            self.run.link(given.artifact)  # from now on, `clean` keeps the artifact
            while not given.artifact.complete and not self._handle_stop_requests():
                try:
                    given.artifact.commit(self._me)
                except (LeaseHeld, LeaseLost):  # another launcher is writing it
                    time.sleep(WATCH_SECONDS)
                except FileNotFoundError:
                    raise ConfigError(
                        f"The artifact of {given.name} was removed while the run started; run {given.name} first."
                    ) from None

    def _end(self) -> None:
        failed = [step_run for step_run in self._step_runs.values() if step_run.failure is not None]
        if failed and failed[0].failure is not None:
            failure = failed[0].failure
            self._tell(
                "run-failed", {"step": failed[0].name, "message": failure.message, "exit_code": failure.exit_code}
            )
            raise StepFailed(failure.message, failure.exit_code)
        if self._trouble is not None:
            raise self._trouble
        if any(step_run.status is not StepStatus.DONE for step_run in self._step_runs.values()):
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
            running, elsewhere = self._in(StepStatus.RUNNING), self._in(StepStatus.ELSEWHERE)
            watched = {step_run.job: step_run for step_run in running if step_run.not_before <= time.monotonic()}
            retries = [
                step_run.not_before - time.monotonic()
                for step_run in (*self._in(StepStatus.WAITING), *running)
                if step_run.not_before
            ]
            if not running and (ending or not (elsewhere or retries)):
                if ending or not self._ready():
                    return
                continue
            # A retry that is due waits for another step to end (--parallel), so it doesn't shorten the timeout.
            for update in self._watch(watched, min([WATCH_SECONDS, *(pause for pause in retries if pause > 0)])):
                step_run = watched[update.name]
                self._guarded(step_run, partial(self._executor.notice, step_run, update))
                if update.state.is_terminal and step_run.status is StepStatus.RUNNING:
                    self._guarded(
                        step_run, partial(self._executor.finish, step_run, update.state, self._stops_handled > 0)
                    )
            for step_run in watched.values():
                if step_run.status is StepStatus.RUNNING:
                    self._check_deadline(step_run)
            for step_run in elsewhere:
                self._guarded(step_run, partial(self._executor.look_elsewhere, step_run))

    def _watch(self, watched: Mapping[str, StepRun], seconds: float) -> list[Update]:
        try:
            return self.backend.watch(list(watched), seconds)
        except (TransientStorageError, HostMemoryError, OSError) as error:
            known = storage_error(error, "watch the jobs in")
            if not isinstance(known, (TransientStorageError, HostMemoryError)):
                raise
            for step_run in watched.values():
                self._postpone(step_run, known)
            return []

    def _in(self, status: StepStatus) -> list[StepRun]:
        return [step_run for step_run in self._step_runs.values() if step_run.status is status]

    def _guarded(self, step_run: StepRun, act: Callable[[], None]) -> None:
        """Call `act` for one step. If `act` raises an expected error, only this step waits or fails."""
        try:
            act()
        except LeaseHeld:
            step_run.status = StepStatus.ELSEWHERE
        except (TransientStorageError, HostMemoryError) as error:  # from this process, not from the step's process
            self._postpone(step_run, error)
        except Interrupted as error:
            if not isinstance(error, LeaseLost):
                raise
            if error.taken_over:
                step_run.status = StepStatus.ELSEWHERE
            else:
                self._postpone(step_run, error)
        except ClusterUnreachable as error:  # nothing has changed yet, so `act` is repeated later
            if step_run.status is StepStatus.RUNNING:
                time.sleep(WATCH_SECONDS)  # `watch` returns at once for a finished job, so wait here
            else:
                self._wait_for_cluster(step_run, str(error))
        except VaseError as error:
            self._give_up(step_run, Failure(Kind.PERMANENT, str(error), error.exit_code))
        except OSError as error:
            known = storage_error(error, "write", error.filename)
            if known is None:
                raise
            if isinstance(known, (TransientStorageError, HostMemoryError)):
                self._postpone(step_run, known)
                return
            self._give_up(step_run, Failure(Kind.VOLUME, str(known), known.exit_code))

    def _postpone(self, step_run: StepRun, error: VaseError) -> None:
        hurried = bool(self._signals.numbers or self._stops_handled or self._trouble)
        running = step_run.status is StepStatus.RUNNING
        self._executor.postpone(step_run, error, WATCH_SECONDS if hurried else None)
        if running and step_run.status is StepStatus.FAILED:
            self._abandon(step_run)

    def _give_up(self, step_run: StepRun, failure: Failure) -> None:
        running = step_run.status is StepStatus.RUNNING
        self._executor.give_up(step_run, failure)
        if running:
            self._abandon(step_run)

    def _abandon(self, step_run: StepRun) -> None:
        """Stop the job of a failed step, because no launcher would watch it any more."""
        with contextlib.suppress(OSError, VaseError):  # the same error may have caused the failure
            if self._ours(step_run):
                self.backend.cancel(step_run.job, self.grace)

    def _wait_for_cluster(self, step_run: StepRun, why: str) -> None:
        if step_run.name not in self._unanswered:
            self._unanswered.add(step_run.name)
            self._tell(
                "step-waiting",
                {
                    "step": step_run.name,
                    "job": "",
                    "message": f"{why} The launcher asks again until it gets an answer.",
                },
            )
        step_run.status, step_run.not_before = StepStatus.WAITING, time.monotonic() + AWAY_SECONDS

    def _handle_stop_requests(self) -> bool:
        """Stop the jobs after a new request to stop; return True if a stop was requested now or earlier.

        The second request kills the jobs without a grace period.
        """
        asked = len(self._signals.numbers) or int(self.run.cancel_file.exists())
        if self.detach and self._signals.numbers:
            raise Detached
        for step_run in self._in(StepStatus.RUNNING):
            if asked and not self._stops_handled:
                self._tell(
                    "step-cancelled", {"step": step_run.name, "job": step_run.job, "key": step_run.planned.artifact.key}
                )
            if asked > self._stops_handled:
                step_run.not_before = 0.0  # a new request doesn't wait until the storage is tried again
            if asked > step_run.asked and step_run.not_before <= time.monotonic():
                self._guarded(step_run, partial(self._stop, step_run, asked))
        self._stops_handled = max(self._stops_handled, asked)
        return asked > 0

    def _stop(self, step_run: StepRun, asked: int) -> None:
        if self._ours(step_run):
            self.backend.cancel(step_run.job, self.grace if asked == 1 else 0.0)
            step_run.asked = asked
        else:
            step_run.status = StepStatus.CANCELLED

    def _ours(self, step_run: StepRun) -> bool:
        """Return True if this launcher may stop the job.

        A launcher must not stop a job of another run while the launcher of the other run is alive.
        """
        owner = self.backend.owner(step_run.job)
        return owner in (None, self.run.name) or holder(Run(self.run.volume, str(owner)).lease) is None

    def _ready(self) -> list[StepRun]:
        now = time.monotonic()
        done = {step_run.name for step_run in self._in(StepStatus.DONE)}
        return [
            step_run
            for step_run in self._in(StepStatus.WAITING)
            if step_run.not_before <= now
            and all(name in done or name not in self._step_runs for name in step_run.planned.after)
        ]

    def _start_ready(self) -> None:
        for step_run in self._ready():
            if len(self._in(StepStatus.RUNNING)) < self.parallel:
                if any(name in self._step_runs for name in step_run.planned.after):
                    fault(FaultPoint.BETWEEN_STEPS, step_run.name)
                step_run.not_before = 0.0
                self._guarded(step_run, partial(self._executor.start, step_run))
                if step_run.status is not StepStatus.WAITING:
                    self._unanswered.discard(step_run.name)

    def _check_deadline(self, step_run: StepRun) -> None:
        late = step_run.late(time.time()) if step_run.overdue is None else None
        if late is not None:
            self._guarded(step_run, partial(self._end_late, step_run, late))

    def _end_late(self, step_run: StepRun, late: Failure) -> None:
        if self._ours(step_run):
            self.backend.cancel(step_run.job, self.grace)
            step_run.overdue = late
        else:  # the other run may have other deadlines
            whose = f"run {self.backend.owner(step_run.job)} started {step_run.job}, which is still running"
            self._executor.give_up(step_run, replace(late, message=f"{late.message.rstrip('.')} ({whose})."))
