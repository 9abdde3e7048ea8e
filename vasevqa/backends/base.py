"""What a backend is: where one attempt of a step runs, whoever started it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from vasevqa.pipeline.spec import Resources


class State(Enum):
    """Where a job stands. GONE: nobody knows it any more (deleted by hand, or its machine went down)."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    GONE = "gone"

    @property
    def over(self) -> bool:
        """True if nothing of the job runs any more."""
        return self in (State.FINISHED, State.GONE)


def job_prefix(step: str, key: str) -> str:
    """What the names of all jobs that make the artifact `key` of `step` begin with."""
    return f"vase-{step}-{key[:10]}-"


def attempt_of(name: str) -> int:
    """The attempt that a job's name ends with."""
    return int(name.rpartition("-")[2])


@dataclass(frozen=True)
class Task:
    """One attempt of one step, ready to run anywhere. Two runs that need the artifact share the job, so its name says nothing of a run."""

    run: str
    step: str
    stage: str
    key: str
    attempt: int
    arguments: tuple[str, ...]  # of the stage's command, never a shell string
    resources: Resources
    volume: Path
    log: Path  # where stdout and stderr are kept
    environment: dict[str, str] = field(default_factory=dict)
    offline: bool = False  # nothing it reads comes from a hub

    @property
    def name(self) -> str:
        """vase-<step>-<key10>-<attempt>."""
        return f"{job_prefix(self.step, self.key)}{self.attempt}"


@dataclass(frozen=True)
class Outcome:
    """How a finished job ended. `exit_code` is None when a signal ended it or nobody saw the end; `oom` as the kernel or kubelet reports it."""

    exit_code: int | None
    signal: int | None = None
    oom: bool = False
    message: str = ""


@dataclass(frozen=True)
class Update:
    """What is new about a job: its state and the text that it printed since the last update."""

    name: str
    state: State
    text: str = ""


class Backend(Protocol):
    """Local processes, docker containers or Kubernetes Jobs."""

    @property
    def confines(self) -> bool:
        """True if a job has its own memory limit and /dev/shm, so that asking for more of them can help."""

    def submit(self, task: Task) -> None:
        """Start `task`; if a job of its name exists already, do nothing (it is adopted). Safe with several launchers at once."""

    def existing(self, prefix: str) -> list[str]:
        """The names of all jobs that begin with `prefix`, running or finished, by attempt: what a new launcher can adopt."""

    def state(self, name: str) -> State:
        """Where the job stands now."""

    def owner(self, name: str) -> str | None:
        """The run whose launcher submitted the job, if that is known."""

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Wait up to `seconds` for news of these jobs; returns at once when there is any."""

    def outcome(self, name: str) -> Outcome:
        """How the finished job `name` ended."""

    def log(self, name: str) -> Path | None:
        """Where the job's output is kept, if anywhere."""

    def cancel(self, name: str, grace: float) -> None:
        """Ask the job to stop: SIGTERM now, SIGKILL after `grace` seconds, also if this process is gone by then. `watch` says when it is over."""

    def remove(self, name: str) -> None:
        """Forget a finished job: nothing of it is left behind, except its log."""
