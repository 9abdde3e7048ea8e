"""Runs one step: adopts or submits its job, relays events, commits the artifact, retries when useful."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from vasevqa import files
from vasevqa.artifacts.contents import RECORD
from vasevqa.artifacts.digests import fingerprint
from vasevqa.artifacts.lease import holder, revoke
from vasevqa.backends.base import Backend, State, Update, attempt_of
from vasevqa.errors import ClusterError, ClusterUnreachable, DataError, Interrupted
from vasevqa.faults import FaultPoint, fault
from vasevqa.pipeline.events import parse
from vasevqa.pipeline.failures import Failure, Kind, classify, pause, remedy
from vasevqa.pipeline.plan import PlannedStep
from vasevqa.pipeline.runs import Run
from vasevqa.pipeline.step_run import StepRun, StepStatus

PROGRESS_SECONDS = 10.0  # between progress events in the log, which `status` reads in another terminal
RECORDED = (
    "HF_HOME",
    "TORCH_HOME",
    "HF_HUB_OFFLINE",
)  # the launcher's variables that `repro` repeats a step with; nothing confidential
FULL = 1 << 20  # bytes: with less free space, an unexplained failure counts as a full volume


class StepExecutor:
    """Advances single steps of `run`: each method takes a StepRun, changes its status, and never waits.

    Methods raise LeaseHeld or LeaseLost while another launcher writes the artifact.
    """

    def __init__(
        self, run: Run, backend: Backend, me: str, tell: Callable[[str, dict[str, object], bool], None]
    ) -> None:
        self.run, self.backend, self._me = run, backend, me
        self.images: dict[str, str] = {}  # stage -> the image that this run uses, even if its tag moves meanwhile
        self._tell_kept = tell

    def _tell(self, kind: str, fields: dict[str, object], keep: bool = True) -> None:
        self._tell_kept(kind, fields, keep)

    def start(self, work: StepRun) -> None:
        """Use the artifact if it exists, adopt a running job, commit a sealed artifact, or submit an attempt."""
        artifact = work.planned.artifact
        if artifact.complete and not work.planned.hit and not work.refreshed and work.planned.refresh:
            work.previous = artifact.put_aside(artifact.path, self._me)  # kept until the new one is complete
            self._tell("step-refreshed", {"step": work.name, "key": artifact.key, "aside": str(work.previous)})
            work.refreshed = True
        if artifact.complete:
            self._done(work, hit=True)
        elif self._adopt(work):
            return
        elif holder(artifact.lease) is not None:
            work.status = StepStatus.ELSEWHERE
            self._tell("step-elsewhere", {"step": work.name, "key": artifact.key})
        elif artifact.sealed:
            self._commit(work)
        else:
            self._submit(work)

    def _adopt(self, work: StepRun) -> bool:
        """Adopt a job that makes the artifact; True if there is one.

        It is the last job of this run if the run hasn't seen its end, or any run's job that is still running.
        """
        left = bool(work.job) and self.backend.state(work.job) is not State.GONE
        if not left:
            jobs = self.backend.existing(work.prefix)
            if not jobs or self.backend.state(jobs[-1]).is_terminal:
                return False
            work.begin(jobs[-1], attempt_of(jobs[-1]))
        work.attempt = attempt_of(work.job)  # the submission may have succeeded without an answer
        work.status, work.error_message, work.overdue = StepStatus.RUNNING, "", None
        self._share_log(work)
        self._tell(
            "step-adopted",
            {"step": work.name, "job": work.job, "attempt": work.attempt, "key": work.planned.artifact.key},
        )
        return True

    def _share_log(self, work: StepRun) -> None:
        """Link the log of a job that another run submitted into this run's folder."""
        try:
            log = self.backend.log(work.job)
        except ClusterUnreachable:  # the job is adopted all the same
            return
        ours = self.run.log(work.name, work.attempt)
        if log is None or log == ours or not log.exists():
            return
        ours.parent.mkdir(parents=True, exist_ok=True)
        ours.unlink(missing_ok=True)
        try:
            os.link(log, ours)
        except OSError:
            ours.symlink_to(os.path.relpath(log, ours.parent))

    def _submit(self, work: StepRun) -> None:
        known = [attempt_of(job) for job in self.backend.existing(work.prefix)]
        attempt = max([*known, work.attempt]) + 1
        work.fingerprints = work.fingerprints or fingerprints_of(
            work.planned
        )  # empty for a step that was up to date when the plan was made
        task = work.task(self.run, attempt, self._image(work.planned.stage.name))
        work.begin(task.name, attempt)
        files.write_json(self.run.task(work.name, work.attempt), work.description(task))
        fault(FaultPoint.BEFORE_SUBMIT, work.name)
        try:
            self.backend.submit(task)
        except ClusterUnreachable:  # retry under the same name: the cluster may already have the job
            work.attempt = attempt - 1
            raise
        work.status = StepStatus.RUNNING
        fault(FaultPoint.AFTER_SUBMIT, work.name)
        self._share_log(work)
        self._tell(
            "step-started",
            {
                "step": work.name,
                "job": work.job,
                "attempt": work.attempt,
                "key": task.key,
                "log": str(task.log),
                "resources": work.resources.model_dump(exclude_none=True),
                "image": task.image,
                "arguments": list(task.arguments),
                "reads": [str(path) for path in task.reads],
                "offline": task.offline,
                "environment": {name: os.environ[name] for name in RECORDED if os.environ.get(name)},
            },
        )

    def _image(self, stage: str) -> str:
        if stage not in self.images:
            self._use_image(stage, self.backend.image(stage))
        return self.images[stage]

    def _use_image(self, stage: str, image: str) -> None:
        if image and image != self.images.get(stage):
            self._tell("run-image", {"stage": stage, "image": image})
        self.images[stage] = image

    def notice(self, work: StepRun, update: Update) -> None:
        """Record what changed about the step's job: its state, image and output."""
        if update.state in (State.STARTING, State.RUNNING) and not work.placed:
            work.placed = time.time()
        if (
            update.state is State.PENDING and work.ran
        ):  # it was preempted and holds no resources until it is placed again
            work.ran = 0.0
            self._tell("step-requeued", {"step": work.name, "job": work.job, "key": work.planned.artifact.key})
        if update.state is State.RUNNING and not work.ran:
            work.ran = time.time()
            self._tell("step-running", {"step": work.name, "job": work.job, "key": work.planned.artifact.key})
        if update.image:
            self._use_image(work.planned.stage.name, update.image)
        if update.image_id and update.image_id != work.image_id:
            work.image_id = update.image_id
            self._tell("step-image", {"step": work.name, "job": work.job, "image_id": update.image_id})
        if update.note != work.note and not update.state.is_terminal:
            work.note = update.note
            if update.note:
                self._tell("step-waiting", {"step": work.name, "job": work.job, "message": update.note})
        if update.text:
            work.spoke = True
            self.hear(work, update.text)

    def hear(self, work: StepRun, text: str) -> None:
        """Relay the stage's own events."""
        for event in parse(text.split("\n")):
            kind, at = event.pop("event"), float(event.pop("time", 0.0))
            if kind == "error":
                work.error_message = str(event.get("message", ""))
            if at and at <= work.last_event_time:
                continue
            fault(FaultPoint.WHILE_RUNNING, work.name)
            keep = kind in ("metrics", "summary", "speed", "error", "note")
            if kind == "progress" and at - work.progress_kept > PROGRESS_SECONDS:
                keep, work.progress_kept = True, at
            fields = {
                f"stage_{name}" if name in ("step", "attempt", "at") else name: value for name, value in event.items()
            }
            self._tell(f"stage-{kind}", {**fields, "step": work.name, "attempt": work.attempt, "at": at}, keep)

    def finish(self, work: StepRun, state: State, stopping: bool) -> None:
        """Handle the end of the job: commit, retry or give up."""
        artifact = work.planned.artifact
        revoke(artifact.lease, work.job)
        if artifact.sealed:
            self._commit(work)
        elif artifact.complete:  # committed by another launcher that watched or owns the job
            self._done(work, hit=False)
        elif work.overdue:
            self.give_up(work, work.overdue)
        elif stopping:
            self._forget(work)
            work.status = StepStatus.CANCELLED
        else:
            self._failed(work, self._why(work, state))

    def _why(self, work: StepRun, state: State) -> Failure:
        if state is State.GONE:
            return Failure(
                Kind.TRANSIENT,
                f"The job {work.job} no longer exists (deleted by hand, or its machine went down).",
                Interrupted.exit_code,
            )
        outcome = self.backend.outcome(work.job)
        if outcome.exit_code == 0:
            return Failure(
                Kind.BUG,
                f"{work.name} ended without an error and without its artifact; see"
                f" {self.run.log(work.name, work.attempt)}.",
                1,
            )
        failure = classify(outcome, work.error_message, work.name)
        if failure.kind is Kind.BUG and not work.error_message and files.free_bytes(self.run.volume.root) < FULL:
            return Failure(
                Kind.VOLUME,
                f"{work.name} failed while the volume {self.run.volume.root} was full; free some space and run again.",
                74,
            )
        return failure

    def _failed(self, work: StepRun, failure: Failure) -> None:
        """Log the failed attempt; prepare the next one or give up."""
        tries = work.tries[failure.kind]
        again = remedy(failure, work.resources, tries, self.backend.enforces_limits)
        work.tries[failure.kind] += 1
        fields = {
            "step": work.name,
            "attempt": work.attempt,
            "key": work.planned.artifact.key,
            "failure": failure.kind.value,
            "message": failure.message,
            "exit_code": failure.exit_code,
            "retry": again is not None,
            "raised": (
                {} if again is None else {"memory": again.memory, "memory_limit": again.memory_limit, "shm": again.shm}
            ),
            "log": str(self.run.log(work.name, work.attempt)),
        }
        self._tell("attempt-failed", fields)
        if again is None:
            self.give_up(work, failure)
            return
        fault(FaultPoint.DURING_RETRY, work.name)
        work.resources, work.job = again, ""
        # It goes through `start` again: another launcher may be writing the artifact by now.
        work.status, work.not_before = StepStatus.WAITING, time.monotonic() + pause(failure.kind, tries)

    def give_up(self, work: StepRun, failure: Failure) -> None:
        """Mark the step as failed for good, restore the artifact it was to replace, and remove its finished jobs."""
        work.status, work.failure = StepStatus.FAILED, failure
        if work.previous is not None and not work.planned.artifact.path.exists():
            with contextlib.suppress(OSError):
                work.previous.rename(work.planned.artifact.path)
        with contextlib.suppress(OSError, ClusterError):  # this may be the failure itself
            self._forget(work)
        log = str(self.run.log(work.name, work.attempt)) if work.attempt else ""
        self._tell(
            "step-failed", {"step": work.name, "message": failure.message, "exit_code": failure.exit_code, "log": log}
        )

    def _commit(self, work: StepRun) -> None:
        """Verify the sealed artifact and give it its final name, unless the inputs changed during the attempt."""
        artifact = work.planned.artifact
        now = {} if artifact.complete else fingerprints_of(work.planned)
        changed = [name for name, before in work.fingerprints.items() if now.get(name, before) != before]
        if changed:
            self._discard(work)
            message = f"The input {changed[0]} of {work.name} changed while it ran; its result was not kept, run again."
            self.give_up(work, Failure(Kind.PERMANENT, message, DataError.exit_code))
            return
        if any(now.get(name, before) != before for name, before in _sealed_fingerprints(artifact.partial).items()):
            self._discard(work)  # sealed for an earlier launcher, from inputs that have changed since
            work.status, work.job = StepStatus.WAITING, ""
            return
        fault(FaultPoint.BEFORE_COMMIT, work.name)
        try:
            artifact.commit(self._me)
        except FileNotFoundError:  # another launcher discarded it meanwhile
            work.status, work.job = StepStatus.WAITING, ""
            return
        fault(FaultPoint.AFTER_COMMIT, work.name)
        self._done(work, hit=False)

    def _discard(self, work: StepRun) -> None:
        """Delete the partial artifact: it may mix old and new inputs."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(work.planned.artifact.put_aside(work.planned.artifact.partial, self._me), ignore_errors=True)

    def _done(self, work: StepRun, hit: bool) -> None:
        artifact = work.planned.artifact
        summary = artifact.record().get("summary", "")
        self.run.link(artifact)
        self._forget(work)  # raises while the cluster is unreachable; the step isn't done then
        work.status = StepStatus.DONE
        if work.previous is not None:
            shutil.rmtree(work.previous, ignore_errors=True)
        seconds = None if hit or not work.started else round(time.time() - work.started, 3)
        self._tell(
            "step-done", {"step": work.name, "key": artifact.key, "hit": hit, "seconds": seconds, "summary": summary}
        )

    def _forget(self, work: StepRun) -> None:
        for job in self.backend.existing(work.prefix):
            if self.backend.state(job).is_terminal:
                self.backend.remove(job)

    def look_elsewhere(self, work: StepRun) -> None:
        """Check whether the other writer of the artifact has finished or is gone."""
        artifact = work.planned.artifact
        if artifact.complete:
            self._done(work, hit=True)
        elif holder(artifact.lease) is None:
            work.status, work.job = (
                StepStatus.WAITING,
                "",
            )  # the writer is gone: commit what it sealed, or start an attempt


def fingerprints_of(step: PlannedStep) -> dict[str, str]:
    """Return the current fingerprints of the recipe inputs that a step reads ('' for one that is gone)."""
    found = {}
    for name, given in step.inputs.items():
        if given.step is None and given.path is not None:
            found[name] = fingerprint(given.path) if given.path.exists() else ""
    return found


def _sealed_fingerprints(partial: Path) -> dict[str, str]:
    """Return the fingerprints of the inputs at the start of the attempt that sealed `partial`."""
    try:
        record = json.loads((partial / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: given["stamp"] for name, given in record.get("inputs", {}).items() if "stamp" in given}
