"""How one step's artifact comes about: adopt a job or submit one, listen to it, commit what it sealed, try again where
that helps.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

PROGRESS_SECONDS = 10.0  # how often progress goes into the event log, for `status` in another terminal
RECORDED = (
    "HF_HOME",
    "TORCH_HOME",
    "HF_HUB_OFFLINE",
)  # what of the launcher's environment a step is repeated with; nothing confidential
FULL = 1 << 20  # bytes: with fewer free, a failure that nobody explained is the volume's


class StepExecutor:
    """Moves single steps of `run` on. Each method takes a StepRun, changes its status, and never waits.

    LeaseHeld and LeaseLost rise where another launcher is writing the artifact just now.
    """

    def __init__(self, run: Run, backend: Backend, me: str, tell: Callable[[str, dict[str, Any], bool], None]) -> None:
        self.run, self.backend, self._me = run, backend, me
        self.images: dict[
            str, str
        ] = {}  # stage -> the image that this run uses: a tag that moves meanwhile changes nothing
        self._tell_kept = tell

    def _tell(self, kind: str, fields: dict[str, Any], keep: bool = True) -> None:
        self._tell_kept(kind, fields, keep)

    def start(self, work: StepRun) -> None:
        """Take the artifact if it exists, attach to whoever makes it, commit it if it is sealed, else submit an
        attempt.
        """
        artifact = work.planned.artifact
        if artifact.complete and not work.planned.hit and not work.refreshed and work.planned.refresh:
            work.previous = artifact.put_aside(artifact.path, self._me)  # kept until the new one is there
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
        """Attach to a job that makes the artifact: the one whose end this run hasn't seen, or anybody's that still
        runs.
        """
        left = bool(work.job) and self.backend.state(work.job) is not State.GONE
        if not left:
            jobs = self.backend.existing(work.prefix)
            if not jobs or self.backend.state(jobs[-1]).is_terminal:
                return False
            work.begin(jobs[-1], attempt_of(jobs[-1]))
        work.attempt = attempt_of(work.job)  # of one that was submitted without hearing so
        work.status, work.error_message, work.overdue = StepStatus.RUNNING, "", None
        self._share_log(work)
        self._tell(
            "step-adopted",
            {"step": work.name, "job": work.job, "attempt": work.attempt, "key": work.planned.artifact.key},
        )
        return True

    def _share_log(self, work: StepRun) -> None:
        """A job that another run submitted writes its log there: give it a name here too."""
        try:
            log = self.backend.log(work.job)
        except ClusterUnreachable:  # no reason not to say that the job is there
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
        )  # of a step that was up to date when the plan was made
        task = work.task(self.run, attempt, self._image(work.planned.stage.name))
        work.begin(task.name, attempt)
        files.write_json(self.run.task(work.name, work.attempt), work.description(task))
        fault(FaultPoint.BEFORE_SUBMIT, work.name)
        try:
            self.backend.submit(task)
        except ClusterUnreachable:  # the next one is this one again, under its name: the cluster may have it already
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
        """What is new about the job that makes the step's artifact."""
        if update.state in (State.STARTING, State.RUNNING) and not work.placed:
            work.placed = time.time()
        if (
            update.state is State.PENDING and work.ran
        ):  # it lost its place to others: it holds nothing until it has one again
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
        """Pass the stage's own events on."""
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
        """The job is over."""
        artifact = work.planned.artifact
        revoke(artifact.lease, work.job)
        if artifact.sealed:
            self._commit(work)
        elif artifact.complete:  # by another launcher that watched the same job, or whose job it was
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
                f"The job {work.job} is gone (deleted by hand, or its machine went down).",
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
        """Note the failed attempt and either prepare the next one or give up."""
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
        # Through `_start` again: somebody else may be at work on the artifact by now.
        work.status, work.not_before = StepStatus.WAITING, time.monotonic() + pause(failure.kind, tries)

    def give_up(self, work: StepRun, failure: Failure) -> None:
        """The step failed for good: what it was to replace comes back, and its jobs are forgotten."""
        work.status, work.failure = StepStatus.FAILED, failure
        if work.previous is not None and not work.planned.artifact.path.exists():
            with contextlib.suppress(OSError):
                work.previous.rename(work.planned.artifact.path)
        with contextlib.suppress(OSError, ClusterError):  # that is the failure, perhaps
            self._forget(work)
        log = str(self.run.log(work.name, work.attempt)) if work.attempt else ""
        self._tell(
            "step-failed", {"step": work.name, "message": failure.message, "exit_code": failure.exit_code, "log": log}
        )

    def _commit(self, work: StepRun) -> None:
        """Verify what the stage sealed and give it its name, unless the inputs changed under it."""
        artifact = work.planned.artifact
        now = {} if artifact.complete else fingerprints_of(work.planned)
        changed = [name for name, before in work.fingerprints.items() if now.get(name, before) != before]
        if changed:
            self._discard(work)
            message = f"The input {changed[0]} of {work.name} changed while it ran; its result was not kept, run again."
            self.give_up(work, Failure(Kind.PERMANENT, message, DataError.exit_code))
            return
        if any(now.get(name, before) != before for name, before in _sealed_fingerprints(artifact.partial).items()):
            self._discard(work)  # an earlier launcher's: the inputs aren't those that it read, whatever they are now
            work.status, work.job = StepStatus.WAITING, ""
            return
        fault(FaultPoint.BEFORE_COMMIT, work.name)
        try:
            artifact.commit(self._me)
        except FileNotFoundError:  # between two looks another launcher discarded it
            work.status, work.job = StepStatus.WAITING, ""
            return
        fault(FaultPoint.AFTER_COMMIT, work.name)
        self._done(work, hit=False)

    def _discard(self, work: StepRun) -> None:
        """What was made from a mixture of old and new inputs must not be taken for either."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(work.planned.artifact.put_aside(work.planned.artifact.partial, self._me), ignore_errors=True)

    def _done(self, work: StepRun, hit: bool) -> None:
        artifact = work.planned.artifact
        summary = artifact.record().get("summary", "")
        self.run.link(artifact)
        self._forget(work)  # while the cluster is away the step isn't done
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
        """Has whoever writes the artifact finished, or gone?"""
        artifact = work.planned.artifact
        if artifact.complete:
            self._done(work, hit=True)
        elif holder(artifact.lease) is None:
            work.status, work.job = StepStatus.WAITING, ""  # its maker is gone: commit what it sealed, or take over


def fingerprints_of(step: PlannedStep) -> dict[str, str]:
    """Signatures of the recipe inputs that a step reads, as they are now ('' for what is gone)."""
    found = {}
    for name, given in step.inputs.items():
        if given.step is None and given.path is not None:
            found[name] = fingerprint(given.path) if given.path.exists() else ""
    return found


def _sealed_fingerprints(partial: Path) -> dict[str, str]:
    """The signatures of the inputs when the stage that sealed `partial` was started."""
    try:
        record = json.loads((partial / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: given["stamp"] for name, given in record.get("inputs", {}).items() if "stamp" in given}
