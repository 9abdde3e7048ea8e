"""The local backend, which runs each stage as a process. The process continues when its launcher ends.

A job is a folder `<volume>/.jobs/<name>/` with these files:
- spec.json: the command to run; created together with the folder
- claim.json: the identity of the supervisor that runs the job; created once
- exit: how the job ended
- cancel: a request to stop the job

If a job has no supervisor, any launcher may start one. Several supervisors may start at the same time, but only the
supervisor that creates claim.json continues. So if a launcher is killed during `submit`, the next launcher can finish
the submission.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.artifacts.lease import Holder, lease_ttl
from vasevqa.backends.base import Outcome, State, Task, Update, attempt_of
from vasevqa.backends.environment import reaches_hub, stage_defaults, stage_environment
from vasevqa.backends.local import supervisor as supervise
from vasevqa.confidential import HUB_TOKENS
from vasevqa.cores import available_cores
from vasevqa.errors import (
    TRANSIENT_ERRNOS,
    HostMemoryError,
    StorageError,
    TransientStorageError,
    VaseError,
    storage_error,
)
from vasevqa.faults import FaultPoint, fault
from vasevqa.storage import patiently

POLL = 0.05
CLAIM_SECONDS = 30.0
FULL = 64 * 1024  # bytes; with less free space, even a job's small files don't fit


class LocalBackend:
    """Runs stages as processes on this machine.

    `modules` maps a stage to the Python module that runs it. By default, this is the module `jobs.<stage>`.
    """

    enforces_limits = False

    def __init__(self, volume: Path, modules: dict[str, str] | None = None) -> None:
        self._jobs = volume / ".jobs"
        self._modules = modules or {}
        self._offsets: dict[str, int] = {}
        self._states: dict[str, State] = {}
        self._supervisors: dict[str, subprocess.Popen[bytes]] = {}
        self._me = Holder.this_process("")

    def image(self, stage: str) -> str:
        """Return an empty string, because stages run without containers."""
        return ""

    def forget_run(self, run: str) -> None:
        """Do nothing, because this backend creates objects only for jobs, not for runs."""

    def gone(self, pod: str) -> bool:
        """Return False, because this backend has no pods."""
        return False

    def close(self) -> None:
        """Do nothing, because there are no connections or threads. Supervisors keep running."""

    def submit(self, task: Task) -> None:
        """Start a process for `task`, or take over the existing job with the task's name.

        Raise VaseError if the process can't be started.
        """
        environment = self._environment(task)
        module = self._modules.get(task.stage, f"jobs.{task.stage.replace('-', '_')}")
        spec = {
            "run": task.run,
            "command": [sys.executable, "-m", module, *task.arguments],
            "log": str(task.log),
            "environment": environment,
            "without": [] if reaches_hub({**os.environ, **environment}) else list(HUB_TOKENS),
            "beat": lease_ttl() / 6,
        }
        fresh = self._jobs / f".{task.name}.{os.urandom(4).hex()}"
        files.write_json(fresh / "spec.json", spec)
        task.log.parent.mkdir(parents=True, exist_ok=True)
        task.log.touch()
        try:
            fresh.rename(self._jobs / task.name)
        except OSError:  # the job exists already
            shutil.rmtree(fresh, ignore_errors=True)
            if not (self._jobs / task.name / "spec.json").is_file():
                raise
        fault(FaultPoint.IN_SUBMIT, task.step)
        self._ensure_started(task.name)

    def _environment(self, task: Task) -> dict[str, str]:
        """Return the variables that a stage gets in addition to the environment of this process."""
        defaults = stage_defaults(task, available_cores())
        return {
            **{name: value for name, value in defaults.items() if name not in os.environ},
            **stage_environment(task),
        }

    def _ensure_started(self, name: str) -> None:
        """Start a supervisor if the job has none, and wait until a supervisor has claimed the job."""
        job = self._jobs / name
        end = time.monotonic() + CLAIM_SECONDS
        while not (job / "claim.json").exists() and job.is_dir():
            supervisor = self._supervisors.get(name)
            if supervisor is None:
                supervisor = self._supervisors[name] = self._start(job)
            if supervisor.poll() is not None and not (job / "claim.json").exists():
                del self._supervisors[name]
                if files.free_bytes(job) < FULL:
                    raise StorageError(
                        f"{name} can't be started: the volume is full; free some space (`vasevqa clean` lists what"
                        " can be removed)."
                    )
                failed = OSError(supervisor.returncode, os.strerror(supervisor.returncode), str(job))
                if failed.errno != errno.EPERM and (known := storage_error(failed, "start the job in")) is not None:
                    raise known
                raise VaseError(f"{name} can't be started (exit code {supervisor.returncode}); see {self.log(name)}.")
            if time.monotonic() > end:
                raise VaseError(f"{name} didn't start within {CLAIM_SECONDS:.0f} seconds; see {self.log(name)}.")
            time.sleep(0.005)

    def _start(self, job: Path) -> subprocess.Popen[bytes]:
        spec = _spec(job)
        if spec is None:
            raise VaseError(f"{job.name} can't be started: its spec.json is missing or damaged; run the step again.")
        command = [sys.executable, "-I", "-S", supervise.__file__, str(job), json.dumps(asdict(self._me))]
        environment = {**os.environ, **spec["environment"]}
        for name in ("VASEVQA_FAULT", *spec.get("without", ())):
            environment.pop(name, None)
        try:
            with open(spec["log"], "ab") as log:
                return subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
                )
        except BlockingIOError:
            raise VaseError(
                f"{job.name} can't be started: too many processes are running; end some, or raise `ulimit -u`."
            ) from None

    def existing(self, prefix: str) -> list[str]:
        """Return the names of the jobs that begin with `prefix`, sorted by attempt number."""
        names = (
            [entry.name for entry in self._jobs.iterdir() if entry.name.startswith(prefix)]
            if self._jobs.is_dir()
            else []
        )
        return sorted((name for name in names if re.search(r"-[0-9]+$", name)), key=attempt_of)

    def state(self, name: str) -> State:
        """Return the job's present state."""
        job = self._jobs / name
        if self._record(job):
            return State.FINISHED
        claim = self._claim(job)
        if claim is None:
            return State.GONE if _spec(job) is None else State.PENDING
        if self._is_here(claim):
            state = State.FINISHED if claim.dead() else State.RUNNING
        else:
            state = State.GONE if self._silent(job) else State.RUNNING
        # The job may have ended after the first check.
        return State.FINISHED if self._record(job) else state

    @staticmethod
    def _claim(job: Path) -> Holder | None:
        try:
            return Holder(**json.loads((job / "claim.json").read_text()))
        except FileNotFoundError:
            return None
        # The claim is incomplete: its writer is still writing or has died. The claim of a dead writer expires.
        except (ValueError, TypeError):
            return Holder("unknown", "", 0, "", "", "", "")

    def _is_here(self, claim: Holder) -> bool:
        """Return True if the claim's supervisor runs on this machine and in the PID namespace of this process."""
        return (claim.boot, claim.namespace, claim.host) == (self._me.boot, self._me.namespace, self._me.host)

    def _silent(self, job: Path) -> bool:
        """Return True if the supervisor has not touched claim.json for lease_ttl() seconds.

        The method is for a supervisor on another machine, because its process can't be checked.
        """
        clock = self._jobs / ".clock"
        try:
            clock.touch()  # both times must come from the file server's clock
            return clock.stat().st_mtime - (job / "claim.json").stat().st_mtime > lease_ttl()
        except FileNotFoundError:
            return True

    @staticmethod
    def _record(job: Path) -> dict[str, Any]:
        try:
            text = patiently((job / "exit").read_text, job / "exit").strip()
            record: dict[str, Any] = json.loads(text) if text else {}
        except (FileNotFoundError, ValueError):
            return {}
        return record

    def owner(self, name: str) -> str | None:
        """Return the name of the run that submitted the job; None if there is no such job."""
        spec = _spec(self._jobs / name)
        return None if spec is None else str(spec["run"])

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Return the updates on the jobs `names`; wait at most `seconds` for the first update."""
        end = time.monotonic() + seconds
        while True:
            updates: list[Update] = []
            for name in names:
                try:
                    update = self._update(name)
                except (OSError, TransientStorageError, HostMemoryError):
                    if not updates:
                        raise
                    break  # the text of the other jobs was read, and must not get lost
                if update is not None:
                    updates.append(update)
            if updates or time.monotonic() >= end:
                return updates
            time.sleep(min(POLL, max(0.0, end - time.monotonic())))

    def _update(self, name: str) -> Update | None:
        if (supervisor := self._supervisors.get(name)) is not None:
            supervisor.poll()  # reap the process if it has ended
        state = self.state(name)  # read before the text, so that the text of a finished job is complete
        if state is State.PENDING:
            self._ensure_started(name)
        text = self._new_text(name, final=state.is_terminal)
        if not text and not state.is_terminal and state == self._states.get(name):
            return None
        self._states[name] = state
        return Update(name, state, text)

    def _new_text(self, name: str, final: bool) -> str:
        log = self.log(name)
        if log is None:
            return ""
        try:
            block = patiently(lambda: _bytes_from(log, self._offsets.get(name, 0)), log)
        except FileNotFoundError:
            return ""
        if not final:
            block = block[: block.rfind(b"\n") + 1]
        self._offsets[name] = self._offsets.get(name, 0) + len(block)
        return block.decode("utf-8", "replace")

    def outcome(self, name: str) -> Outcome:
        """Return how the stage ended.

        If the supervisor was killed before it could record the end, the outcome says that SIGKILL ended the stage.
        """
        record = self._record(self._jobs / name)
        if not record:
            return Outcome(None, signal.SIGKILL, message="its process vanished")
        if record.get("errno") == errno.ENOMEM:
            return Outcome(HostMemoryError.exit_code, message=record["message"])
        if record.get("errno") in TRANSIENT_ERRNOS:
            return Outcome(TransientStorageError.exit_code, message=record["message"])
        return Outcome(record["exit_code"], record["signal"], bool(record.get("oom")), record.get("message", ""))

    def log(self, name: str) -> Path | None:
        """Return the file with the job's output; None if there is no such job."""
        spec = _spec(self._jobs / name)
        return None if spec is None else Path(str(spec["log"]))

    def cancel(self, name: str, grace: float) -> None:
        """Ask the job's supervisor to stop the stage; the request is the file `cancel` in the job's folder.

        A supervisor on this machine also gets a signal, so it sees the request at once. A supervisor on another machine
        looks for the file every second.
        """
        job = self._jobs / name
        if self.state(name).is_terminal:
            return
        number = signal.SIGUSR1
        try:
            files.write_text(job / "cancel", str(grace))
        except OSError:  # the job must stop even if the disk is full
            number = signal.SIGTERM if grace else signal.SIGKILL
        self._ensure_started(
            name
        )  # a killed launcher may have started no supervisor, and only a supervisor records the end
        claim = self._claim(job)
        if claim is not None and self._is_here(claim):
            _send(claim, number)

    def remove(self, name: str) -> None:
        """Remove the job's folder. The job's log file is outside the folder and is kept."""
        aside = self._jobs / f".{name}.{os.urandom(4).hex()}"
        with contextlib.suppress(FileNotFoundError):
            (self._jobs / name).rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        if (supervisor := self._supervisors.pop(name, None)) is not None:
            supervisor.poll()
        self._offsets.pop(name, None)
        self._states.pop(name, None)


def _spec(job: Path) -> dict[str, Any] | None:
    """Return the content of the job's spec.json; None if there is no such job, or if the file is damaged."""
    path = job / "spec.json"
    try:
        spec = json.loads(patiently(lambda: path.read_text(encoding="utf-8"), path))
    except (FileNotFoundError, ValueError):
        return None
    known = isinstance(spec, dict) and {"run", "command", "log", "environment"} <= set(spec)
    return spec if known else None


def _bytes_from(log: Path, offset: int) -> bytes:
    with open(log, "rb") as stream:
        stream.seek(offset)
        return stream.read()


def _send(claim: Holder, number: signal.Signals) -> None:
    """Send a signal to the supervisor that holds the claim.

    The function uses a file descriptor of the process, because a process id can be reused.
    """
    try:
        descriptor = os.pidfd_open(claim.pid)
    except OSError:
        return
    try:
        if not claim.dead():
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
