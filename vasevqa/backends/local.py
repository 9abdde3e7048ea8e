"""The local backend: a stage is a process of its own session, which outlives a killed launcher and is found again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from vasevqa.backends import supervise
from vasevqa.backends.base import Outcome, State, Task, Update
from vasevqa.errors import ConfigError
from vasevqa.pipeline.lease import process_start

POLL = 0.05
START_SECONDS = 10.0  # after which a job folder without a process counts as left by a launcher that was killed


class LocalBackend:
    """Jobs are folders `<volume>/.jobs/<name>/` that hold the supervisor's process id and how the stage ended."""

    def __init__(self, volume: Path, modules: dict[str, str] | None = None) -> None:
        self._jobs = volume / ".jobs"
        self._modules = modules or {}
        self._offsets: dict[str, int] = {}
        self._states: dict[str, State] = {}

    def submit(self, task: Task) -> None:
        """Start the stage's process; nothing if there is a job of that name."""
        job = self._jobs / task.name
        self._jobs.mkdir(parents=True, exist_ok=True)
        try:
            job.mkdir()
        except FileExistsError:
            return
        task.log.parent.mkdir(parents=True, exist_ok=True)
        (job / "log").write_text(str(task.log))
        module = self._modules.get(task.stage, f"jobs.{task.stage.replace('-', '_')}")
        command = [sys.executable, "-S", supervise.__file__, str(job), str(task.log), sys.executable, "-m", module, *task.arguments]
        try:
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=self._environment(task)
            )
        except OSError as error:
            shutil.rmtree(job, ignore_errors=True)
            raise ConfigError(f"{task.step} can't be started ({error.strerror}); check {sys.executable}.") from None

    def _environment(self, task: Task) -> dict[str, str]:
        threads = str(max(1, min(int(task.resources.cpus), len(os.sched_getaffinity(0)))))
        own = {
            "VASEVQA_VOLUME": str(task.volume),
            "VASEVQA_GPUS": str(task.resources.gpus),
            "PYTHONUNBUFFERED": "1",
            "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads on busy cores are ten times slower
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        defaults = {"OMP_NUM_THREADS": threads, "HF_HOME": str(task.volume / ".cache/huggingface")}
        return {**defaults, **os.environ, **own, **task.environment}

    def existing(self, prefix: str) -> list[str]:
        """Job folders of that prefix, by attempt."""
        found = [entry.name for entry in self._jobs.iterdir() if entry.name.startswith(prefix)] if self._jobs.is_dir() else []
        return sorted(found, key=lambda name: int(name.rpartition("-")[2]))

    def state(self, name: str) -> State:
        """Where the job stands now."""
        job = self._jobs / name
        if not job.is_dir():
            return State.GONE
        if self._record(job):
            return State.FINISHED
        try:
            process = json.loads((job / "pid").read_text())
        except (OSError, ValueError):
            return State.PENDING if time.time() - job.stat().st_mtime < START_SECONDS else State.FINISHED
        alive = process_start(process["pid"]) == process["started"]
        # It may have ended between the two looks.
        return State.RUNNING if alive and not self._record(job) else State.FINISHED

    @staticmethod
    def _record(job: Path) -> dict[str, int | None]:
        try:
            text = (job / "exit").read_text().strip()
            record: dict[str, int | None] = json.loads(text) if text else {}
        except (OSError, ValueError):
            return {}
        return record

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """News of these jobs, at the latest after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            updates = []
            for name in names:
                state = self.state(name)  # before the text: what a finished job printed is then complete
                text = self._new_text(name, final=state in (State.FINISHED, State.GONE))
                if text or state != self._states.get(name):
                    updates.append(Update(name, state, text))
                    self._states[name] = state
            if updates or time.monotonic() >= end:
                return updates
            _wait(min(POLL, max(0.0, end - time.monotonic())))

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
        """The exit code or signal; neither if the supervisor was killed along with the stage."""
        record = self._record(self._jobs / name)
        if not record:
            return Outcome(None, signal.SIGKILL, message="its process vanished")
        return Outcome(record["exit_code"], record["signal"])

    def log(self, name: str) -> Path | None:
        """The file of the job's output."""
        with contextlib.suppress(OSError):
            return Path((self._jobs / name / "log").read_text())
        return None

    def cancel(self, name: str, grace: float) -> None:
        """SIGTERM to the stage, SIGKILL to its whole session after `grace` seconds."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            process = json.loads((self._jobs / name / "pid").read_text())
            if process_start(process["pid"]) != process["started"]:
                return
            os.kill(process["pid"], signal.SIGTERM)
            end = time.monotonic() + grace
            while process_start(process["pid"]) == process["started"]:
                if time.monotonic() > end:
                    os.killpg(process["pid"], signal.SIGKILL)
                    end += grace
                _wait(POLL)

    def remove(self, name: str) -> None:
        """Remove the job's folder; its log stays with the run."""
        shutil.rmtree(self._jobs / name, ignore_errors=True)
        self._offsets.pop(name, None)
        self._states.pop(name, None)


def _wait(seconds: float) -> None:
    # Reaps our own finished supervisors on the way, so that they don't stay zombies.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    time.sleep(seconds)
