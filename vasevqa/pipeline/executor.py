"""Run single steps: start a job or follow a running job, report events, commit the artifact, and retry failures."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from vasevqa import files
from vasevqa.artifacts.contents import read_record
from vasevqa.artifacts.digests import fingerprint
from vasevqa.artifacts.lease import holder, revoke
from vasevqa.backends.base import Backend, State, Update, attempt_of
from vasevqa.errors import ClusterError, ClusterUnreachable, DataError, Interrupted, VaseError
from vasevqa.faults import FaultPoint, fault
from vasevqa.pipeline.events import parse
from vasevqa.pipeline.failures import RETRIES, Failure, Kind, classify, final, pause, remedy
from vasevqa.pipeline.plan import PlannedStep
from vasevqa.pipeline.runs import Run
from vasevqa.pipeline.step_run import StepRun, StepStatus

PROGRESS_SECONDS = 10.0  # seconds between two progress events in the log; `status` reads them from there
RECORDED = (
    "HF_HOME",
    "TORCH_HOME",
    "HF_HUB_OFFLINE",
)  # variables of the launcher that `repro` sets again for a step; none is confidential
FULL = 1 << 20  # bytes: with less free space, an unexplained failure is treated as a full volume


class StepExecutor:
    """Starts, follows and finishes single steps of `run`.

    Each method takes a StepRun and changes the status of the StepRun. No method waits. If another launcher writes the
    artifact, a method raises LeaseHeld or LeaseLost.
    """

    def __init__(
        self, run: Run, backend: Backend, me: str, tell: Callable[[str, dict[str, object], bool], None]
    ) -> None:
        self.run, self.backend, self._me = run, backend, me
        self.images: dict[
            str, str
        ] = {}  # stage -> the image that this run uses, even if its tag later points to another image
        self._tell_kept = tell

    def _tell(self, kind: str, fields: dict[str, object], keep: bool = True) -> None:
        self._tell_kept(kind, fields, keep)

    def start(self, step_run: StepRun) -> None:
        """Use or commit an existing artifact, follow the process that makes the artifact, or submit an attempt.

        An attempt is submitted only if there is no such artifact and no such process. If the user asked to repeat the
        step, its complete artifact is put aside first.
        """
        artifact = step_run.planned.artifact
        if artifact.complete and not step_run.planned.hit and not step_run.refreshed and step_run.planned.refresh:
            step_run.previous = artifact.put_aside(artifact.path, self._me)  # kept until the new artifact is complete
            self._tell("step-refreshed", {"step": step_run.name, "key": artifact.key, "aside": str(step_run.previous)})
            step_run.refreshed = True
        if artifact.complete:
            self._done(step_run, hit=True)
        elif self._adopt(step_run):
            return
        elif holder(artifact.lease) is not None:
            step_run.status = StepStatus.ELSEWHERE
            self._tell("step-elsewhere", {"step": step_run.name, "key": artifact.key})
        elif artifact.sealed:
            self._commit(step_run)
        else:
            self._submit(step_run)

    def _adopt(self, step_run: StepRun) -> bool:
        """Adopt a job that makes the artifact; return True if there is such a job.

        If this run's event log contains the start of a job but not its end, the method adopts this job. Otherwise the
        method adopts a running job of any run.
        """
        left = bool(step_run.job) and self.backend.state(step_run.job) is not State.GONE
        if not left:
            jobs = self.backend.existing(step_run.prefix)
            if not jobs or self.backend.state(jobs[-1]).is_terminal:
                return False
            step_run.begin(jobs[-1], attempt_of(jobs[-1]))
        step_run.attempt = attempt_of(
            step_run.job
        )  # the cluster may have accepted the job although its answer was lost
        step_run.status = StepStatus.RUNNING
        self._tell(
            "step-adopted",
            {
                "step": step_run.name,
                "job": step_run.job,
                "attempt": step_run.attempt,
                "key": step_run.planned.artifact.key,
            },
        )
        self._share_log(step_run)
        return True

    def _share_log(self, step_run: StepRun) -> None:
        """Link the job's log into this run's folder, if another run submitted the job."""
        try:
            log = self.backend.log(step_run.job)
        except ClusterUnreachable:  # the job is adopted without its log
            return
        ours = self.run.log(step_run.name, step_run.attempt)
        if log is None or log == ours or not log.exists():
            return
        ours.parent.mkdir(parents=True, exist_ok=True)
        ours.unlink(missing_ok=True)
        try:
            os.link(log, ours)
        except OSError:
            ours.symlink_to(os.path.relpath(log, ours.parent))

    def _submit(self, step_run: StepRun) -> None:
        known = [attempt_of(job) for job in self.backend.existing(step_run.prefix)]
        attempt = max([*known, step_run.attempt]) + 1
        step_run.fingerprints = step_run.fingerprints or fingerprints_of(
            step_run.planned, self.run.volume.root
        )  # empty if the step was up to date when the plan was made
        task = step_run.task(self.run, attempt, self._image(step_run.planned.stage.name))
        step_run.begin(task.name, attempt)
        files.write_json(self.run.task(step_run.name, step_run.attempt), step_run.description(task))
        fault(FaultPoint.BEFORE_SUBMIT, step_run.name)
        try:
            self.backend.submit(task)
        except ClusterUnreachable:  # retry under the same name: the cluster may already have the job
            step_run.attempt = attempt - 1
            raise
        step_run.status = StepStatus.RUNNING
        fault(FaultPoint.AFTER_SUBMIT, step_run.name)
        self._tell(
            "step-started",
            {
                "step": step_run.name,
                "job": step_run.job,
                "attempt": step_run.attempt,
                "key": task.key,
                "log": str(task.log),
                "resources": step_run.resources.model_dump(exclude_none=True),
                "device": task.device,
                "image": task.image,
                "arguments": list(task.arguments),
                "reads": [str(path) for path in task.reads],
                "offline": task.offline,
                "environment": {name: os.environ[name] for name in RECORDED if os.environ.get(name)},
            },
        )
        self._share_log(step_run)

    def _image(self, stage: str) -> str:
        if stage not in self.images:
            self._use_image(stage, self.backend.image(stage))
        return self.images[stage]

    def _use_image(self, stage: str, image: str) -> None:
        if image and image != self.images.get(stage):
            self._tell("run-image", {"stage": stage, "image": image})
        self.images[stage] = image

    def notice(self, step_run: StepRun, update: Update) -> None:
        """Record an update on the step's job: the new state, image and output."""
        if update.state in (State.STARTING, State.RUNNING) and not step_run.placed:
            step_run.placed = time.time()
        if (
            update.state is State.PENDING and step_run.ran
        ):  # the pod was preempted, and holds no resources until it is scheduled again
            step_run.ran = 0.0
            self._tell(
                "step-requeued", {"step": step_run.name, "job": step_run.job, "key": step_run.planned.artifact.key}
            )
        if update.state is State.RUNNING and not step_run.ran:
            step_run.ran = time.time()
            self._tell(
                "step-running", {"step": step_run.name, "job": step_run.job, "key": step_run.planned.artifact.key}
            )
        if update.image:
            self._use_image(step_run.planned.stage.name, update.image)
        if update.image_id and update.image_id != step_run.image_id:
            step_run.image_id = update.image_id
            self._tell("step-image", {"step": step_run.name, "job": step_run.job, "image_id": update.image_id})
        if update.note != step_run.note and not update.state.is_terminal:
            step_run.note = update.note
            if update.note:
                self._tell("step-waiting", {"step": step_run.name, "job": step_run.job, "message": update.note})
        if update.text:
            step_run.spoke = True
            self.hear(step_run, update.text)

    def hear(self, step_run: StepRun, text: str) -> None:
        """Report each event in `text`, the output of the stage, as an event of the run."""
        for event in parse(text.split("\n")):
            kind, at = event.pop("event"), float(event.pop("time", 0.0))
            if kind == "error":
                step_run.error_message = str(event.get("message", ""))
                step_run.error_class = str(event.get("class", ""))
            if at and at <= step_run.last_event_time:
                continue
            fault(FaultPoint.WHILE_RUNNING, step_run.name)
            keep = kind in ("metrics", "summary", "speed", "error", "note")
            if kind == "progress" and at - step_run.progress_kept > PROGRESS_SECONDS:
                keep, step_run.progress_kept = True, at
            fields = {
                f"stage_{name}" if name in ("step", "attempt", "at") else name: value for name, value in event.items()
            }
            self._tell(f"stage-{kind}", {**fields, "step": step_run.name, "attempt": step_run.attempt, "at": at}, keep)

    def finish(self, step_run: StepRun, state: State, stopping: bool) -> None:
        """Handle the end of the job: commit, retry or give up."""
        artifact = step_run.planned.artifact
        revoke(artifact.lease, step_run.job)
        if artifact.sealed:
            self._commit(step_run)
        elif artifact.complete:  # another launcher that watches the job has committed the artifact
            self._done(step_run, hit=False)
        elif step_run.overdue:
            self.give_up(step_run, step_run.overdue)
        elif stopping:
            self._forget(step_run)
            step_run.status = StepStatus.CANCELLED
        else:
            self._failed(step_run, self._why(step_run, state))

    def _why(self, step_run: StepRun, state: State) -> Failure:
        if state is State.GONE:
            return Failure(
                Kind.TRANSIENT,
                f"The job {step_run.job} no longer exists: somebody deleted it, or its machine went down.",
                Interrupted.exit_code,
            )
        outcome = self.backend.outcome(step_run.job)
        if outcome.exit_code == 0:
            return Failure(
                Kind.BUG,
                f"{step_run.name} ended without an error, but it left no complete artifact; see"
                f" {self.run.log(step_run.name, step_run.attempt)}.",
                1,
            )
        failure = classify(outcome, step_run.error_message, step_run.name, step_run.error_class)
        if failure.kind is Kind.BUG and not step_run.error_message and files.free_bytes(self.run.volume.root) < FULL:
            return Failure(
                Kind.VOLUME,
                f"{step_run.name} failed while the volume {self.run.volume.root} was full; free some space and run the"
                " same command again.",
                74,
            )
        return failure

    def _failed(self, step_run: StepRun, failure: Failure) -> None:
        """Log the failed attempt; prepare the next attempt or give up."""
        tries = step_run.tries[failure.kind]
        again = remedy(failure, step_run.resources, tries, self.backend.enforces_limits)
        step_run.tries[failure.kind] += 1
        fields = {
            "step": step_run.name,
            "attempt": step_run.attempt,
            "key": step_run.planned.artifact.key,
            "failure": failure.kind.value,
            "message": failure.message,
            "exit_code": failure.exit_code,
            "retry": again is not None,
            "raised": (
                {} if again is None else {"memory": again.memory, "memory_limit": again.memory_limit, "shm": again.shm}
            ),
            "log": str(self.run.log(step_run.name, step_run.attempt)),
        }
        self._tell("attempt-failed", fields)
        if again is None:
            self.give_up(step_run, final(failure))
            return
        fault(FaultPoint.DURING_RETRY, step_run.name)
        step_run.resources, step_run.job = again, ""
        # The retry calls `start` again, because another launcher may be writing the artifact by now.
        step_run.status, step_run.not_before = StepStatus.WAITING, time.monotonic() + pause(failure.kind, tries)

    def postpone(self, step_run: StepRun, error: VaseError, seconds: float | None = None) -> None:
        """Repeat the step's last action after a pause. Give up after the last retry.

        The action failed because of the storage, or because the launcher's machine had no memory for a system call.
        If the step's job is running, the attempt continues, and the launcher keeps watching the job. `seconds` is the
        length of the pause. If `seconds` is None, each pause is longer than the previous pause.
        """
        tries = step_run.tries[Kind.STORAGE]
        if tries >= RETRIES[Kind.STORAGE]:
            self.give_up(step_run, final(Failure(Kind.STORAGE, str(error), error.exit_code)))
            return
        step_run.tries[Kind.STORAGE] += 1
        self._tell("step-waiting", {"step": step_run.name, "job": step_run.job, "message": str(error)})
        if step_run.status is not StepStatus.RUNNING:
            step_run.status = StepStatus.WAITING
        step_run.not_before = time.monotonic() + (pause(Kind.STORAGE, tries) if seconds is None else seconds)

    def give_up(self, step_run: StepRun, failure: Failure) -> None:
        """Mark the step as failed for good, and remove the step's finished jobs.

        If an old artifact was put aside for this step, the method restores the old artifact.
        """
        step_run.status, step_run.failure = StepStatus.FAILED, failure
        if step_run.previous is not None and not step_run.planned.artifact.path.exists():
            with contextlib.suppress(OSError):
                step_run.previous.rename(step_run.planned.artifact.path)
        with contextlib.suppress(OSError, ClusterError):  # the same error may have caused the failure
            self._forget(step_run)
        log = str(self.run.log(step_run.name, step_run.attempt)) if step_run.attempt else ""
        self._tell(
            "step-failed",
            {"step": step_run.name, "message": failure.message, "exit_code": failure.exit_code, "log": log},
        )

    def _commit(self, step_run: StepRun) -> None:
        """Commit the finished artifact, or discard it if the inputs have changed since the attempt began."""
        artifact = step_run.planned.artifact
        now = {} if artifact.complete else fingerprints_of(step_run.planned, self.run.volume.root)
        changed = [name for name, before in step_run.fingerprints.items() if now.get(name, before) != before]
        if changed:
            self._discard(step_run)
            message = (
                f"The input {changed[0]} of {step_run.name} changed during the step, so its result was discarded; run"
                " the same command again."
            )
            self.give_up(step_run, Failure(Kind.PERMANENT, message, DataError.exit_code))
            return
        if any(now.get(name, before) != before for name, before in _sealed_fingerprints(artifact.partial).items()):
            self._discard(step_run)  # an earlier attempt sealed the artifact, and the inputs have changed since
            step_run.status, step_run.job = StepStatus.WAITING, ""
            return
        fault(FaultPoint.BEFORE_COMMIT, step_run.name)
        try:
            artifact.commit(self._me)
        except FileNotFoundError:  # another launcher has discarded the sealed artifact
            step_run.status, step_run.job = StepStatus.WAITING, ""
            return
        fault(FaultPoint.AFTER_COMMIT, step_run.name)
        self._done(step_run, hit=False)

    def _discard(self, step_run: StepRun) -> None:
        """Delete the partial artifact, because the artifact may mix results of old and new inputs."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(
                step_run.planned.artifact.put_aside(step_run.planned.artifact.partial, self._me), ignore_errors=True
            )

    def _done(self, step_run: StepRun, hit: bool) -> None:
        artifact = step_run.planned.artifact
        summary = artifact.record().get("summary", "")
        self.run.link(artifact)
        self._forget(step_run)  # this raises while the cluster is unreachable, and the step is then not done
        step_run.status = StepStatus.DONE
        if step_run.previous is not None:
            shutil.rmtree(step_run.previous, ignore_errors=True)
        seconds = None if hit or not step_run.started else round(time.time() - step_run.started, 3)
        self._tell(
            "step-done",
            {"step": step_run.name, "key": artifact.key, "hit": hit, "seconds": seconds, "summary": summary},
        )

    def _forget(self, step_run: StepRun) -> None:
        for job in self.backend.existing(step_run.prefix):
            if self.backend.state(job).is_terminal:
                self.backend.remove(job)

    def look_elsewhere(self, step_run: StepRun) -> None:
        """Check whether the other process that writes the artifact has finished or no longer runs."""
        artifact = step_run.planned.artifact
        if artifact.complete:
            self._done(step_run, hit=True)
        elif holder(artifact.lease) is None:
            step_run.status, step_run.job = (
                StepStatus.WAITING,
                "",
            )  # the writer no longer runs: commit the artifact that it sealed, or start an attempt


def fingerprints_of(step: PlannedStep, volume: Path) -> dict[str, str]:
    """Return the current fingerprint of each recipe input that the step reads; '' for an input that is gone."""
    fingerprints = {}
    for name, given in step.inputs.items():
        if given.step is None and given.path is not None:
            fingerprints[name] = fingerprint(given.path, volume) if given.path.exists() else ""
    return fingerprints


def _sealed_fingerprints(partial: Path) -> dict[str, str]:
    """Return the fingerprints of the inputs from the record in `partial`.

    A launcher computed these fingerprints before the start of the attempt that wrote the record.
    """
    record = read_record(partial) or {}
    return {name: given["stamp"] for name, given in record.get("inputs", {}).items() if "stamp" in given}
