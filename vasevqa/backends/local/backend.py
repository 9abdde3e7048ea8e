"""The local backend: runs each stage as a process in its own session, which survives its launcher.

A job is a folder `<volume>/.jobs/<name>/`:
- spec.json: what to run; the folder appears together with it
- claim.json: the supervisor that runs the job; created once
- exit: how the job ended
- cancel: a request to stop the job

Any launcher may start a supervisor for a job that has none, because only the supervisor that gets the claim continues.
So if a launcher is killed during `submit`, the next launcher can finish it.
"""

from __future__ import annotations

import contextlib
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
from vasevqa.backends.environment import stage_defaults, stage_environment
from vasevqa.backends.local import supervisor as supervise
from vasevqa.errors import StorageError, VaseError
from vasevqa.faults import FaultPoint, fault

POLL = 0.05
CLAIM_SECONDS = 30.0
FULL = 64 * 1024  # bytes; with less free space not even a job's small files fit


class LocalBackend:
    """Runs stages as processes of this machine.

    `modules` maps a stage to the module that runs it, if that is not jobs.<stage>.
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
        """Return an empty string: a stage runs without a container."""
        return ""

    def forget_run(self, run: str) -> None:
        """Do nothing: no objects are created for a run as a whole."""

    def gone(self, pod: str) -> bool:
        """Return False: this backend knows no pods."""
        return False

    def close(self) -> None:
        """Do nothing: there are no connections or threads. Supervisors keep running."""

    def submit(self, task: Task) -> None:
        """Start the stage's process; if a job of that name exists, adopt it. VaseError if it can't be started."""
        module = self._modules.get(task.stage, f"jobs.{task.stage.replace('-', '_')}")
        spec = {
            "run": task.run,
            "command": [sys.executable, "-m", module, *task.arguments],
            "log": str(task.log),
            "environment": self._environment(task),
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
        """Return the variables that a stage gets in addition to this process's environment."""
        defaults = stage_defaults(task, len(os.sched_getaffinity(0)))
        return {
            **{name: value for name, value in defaults.items() if name not in os.environ},
            **stage_environment(task),
        }

    def _ensure_started(self, name: str) -> None:
        """Start a supervisor unless the job has one, and wait until the supervisor has the claim."""
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
                        f"{name} can't be started: the volume is full; free some space (`vasevqa clean` lists what can"
                        " go)."
                    )
                raise VaseError(f"{name} can't be started (exit code {supervisor.returncode}); see {self.log(name)}.")
            if time.monotonic() > end:
                raise VaseError(f"{name} didn't start within {CLAIM_SECONDS:.0f} seconds; see {self.log(name)}.")
            time.sleep(0.005)

    def _start(self, job: Path) -> subprocess.Popen[bytes]:
        spec = json.loads((job / "spec.json").read_text(encoding="utf-8"))
        command = [sys.executable, "-I", "-S", supervise.__file__, str(job), json.dumps(asdict(self._me))]
        environment = {**os.environ, **spec["environment"]}
        environment.pop("VASEVQA_FAULT", None)
        try:
            with open(spec["log"], "ab") as log:
                return subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
                )
        except BlockingIOError:
            raise VaseError(
                f"{job.name} can't be started: the limit of processes is reached; close some, or raise `ulimit -u`."
            ) from None

    def existing(self, prefix: str) -> list[str]:
        """Return the jobs whose names begin with `prefix`, sorted by attempt."""
        found = (
            [entry.name for entry in self._jobs.iterdir() if entry.name.startswith(prefix)]
            if self._jobs.is_dir()
            else []
        )
        return sorted((name for name in found if re.search(r"-[0-9]+$", name)), key=attempt_of)

    def state(self, name: str) -> State:
        """Return the job's present state."""
        job = self._jobs / name
        if self._record(job):
            return State.FINISHED
        claim = self._claim(job)
        if claim is None:
            return State.PENDING if (job / "spec.json").is_file() else State.GONE
        if self._is_here(claim):
            state = State.FINISHED if claim.dead() else State.RUNNING
        else:
            state = State.GONE if self._silent(job) else State.RUNNING
        # The job may have ended after the first look.
        return State.FINISHED if self._record(job) else state

    @staticmethod
    def _claim(job: Path) -> Holder | None:
        try:
            return Holder(**json.loads((job / "claim.json").read_text()))
        except FileNotFoundError:
            return None
        # The claim is being written, or its writer died. In that case it expires like the claim of a silent machine.
        except (ValueError, TypeError):
            return Holder("unknown", "", 0, "", "", "", "")

    def _is_here(self, claim: Holder) -> bool:
        """True if the supervisor is or was a process on this machine, in this process namespace."""
        return (claim.boot, claim.namespace, claim.host) == (self._me.boot, self._me.namespace, self._me.host)

    def _silent(self, job: Path) -> bool:
        """True if a supervisor on another machine has not touched its claim for longer than a lease lasts."""
        clock = self._jobs / ".clock"
        try:
            clock.touch()  # so that both times come from the file server's clock
            return clock.stat().st_mtime - (job / "claim.json").stat().st_mtime > lease_ttl()
        except FileNotFoundError:
            return True

    @staticmethod
    def _record(job: Path) -> dict[str, Any]:
        try:
            text = (job / "exit").read_text().strip()
            record: dict[str, Any] = json.loads(text) if text else {}
        except (OSError, ValueError):
            return {}
        return record

    def owner(self, name: str) -> str | None:
        """Return the run that submitted the job; None if there is no such job."""
        try:
            return str(json.loads((self._jobs / name / "spec.json").read_text(encoding="utf-8"))["run"])
        except OSError:
            return None

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Wait up to `seconds` for news of these jobs; return as soon as there is any."""
        end = time.monotonic() + seconds
        while True:
            updates = []
            for name in names:
                if (supervisor := self._supervisors.get(name)) is not None:
                    supervisor.poll()  # leave no zombie
                state = self.state(name)  # before the text, so that the text of a finished job is complete
                if state is State.PENDING:
                    self._ensure_started(name)
                text = self._new_text(name, final=state.is_terminal)
                if text or state.is_terminal or state != self._states.get(name):
                    updates.append(Update(name, state, text))
                    self._states[name] = state
            if updates or time.monotonic() >= end:
                return updates
            time.sleep(min(POLL, max(0.0, end - time.monotonic())))

    def _new_text(self, name: str, final: bool) -> str:
        log = self.log(name)
        if log is None:
            return ""
        try:
            with open(log, "rb") as stream:
                stream.seek(self._offsets.get(name, 0))
                block = stream.read()
        except FileNotFoundError:
            return ""
        if not final:
            block = block[: block.rfind(b"\n") + 1]
        self._offsets[name] = self._offsets.get(name, 0) + len(block)
        return block.decode("utf-8", "replace")

    def outcome(self, name: str) -> Outcome:
        """Return the exit code or signal; SIGKILL if the supervisor was killed together with the stage."""
        record = self._record(self._jobs / name)
        if not record:
            return Outcome(None, signal.SIGKILL, message="its process vanished")
        return Outcome(record["exit_code"], record["signal"], bool(record.get("oom")), record.get("message", ""))

    def log(self, name: str) -> Path | None:
        """Return the file with the job's output; None if there is no such job."""
        with contextlib.suppress(OSError):
            return Path(json.loads((self._jobs / name / "spec.json").read_text(encoding="utf-8"))["log"])
        return None

    def cancel(self, name: str, grace: float) -> None:
        """Write a request to stop into the job's folder, and wake the supervisor if it runs here.

        A supervisor on another machine looks for the request every second.
        """
        job = self._jobs / name
        if self.state(name).is_terminal:
            return
        number = signal.SIGUSR1
        try:
            files.write_text(job / "cancel", str(grace))
        except OSError:  # on a full disk the job must stop too
            number = signal.SIGTERM if grace else signal.SIGKILL
        self._ensure_started(name)  # if a killed launcher started none: the supervisor records the end
        claim = self._claim(job)
        if claim is not None and self._is_here(claim):
            _send(claim, number)

    def remove(self, name: str) -> None:
        """Remove the job's folder. Its log stays with the run."""
        aside = self._jobs / f".{name}.{os.urandom(4).hex()}"
        with contextlib.suppress(FileNotFoundError):
            (self._jobs / name).rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        if (supervisor := self._supervisors.pop(name, None)) is not None:
            supervisor.poll()
        self._offsets.pop(name, None)
        self._states.pop(name, None)


def _send(claim: Holder, number: signal.Signals) -> None:
    """Send a signal to the process of the claim; uses a descriptor, because a process id can be reused."""
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
