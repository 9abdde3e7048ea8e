"""What a backend is: where one attempt of a step runs, whoever started it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from vasevqa.spec import Resources


class State(Enum):
    """Where a job stands. GONE: nobody knows it any more (deleted by hand, or its machine went down)."""

    PENDING = "pending"  # waits for a place
    STARTING = "starting"  # has a place; its image or its volume is being fetched
    RUNNING = "running"
    FINISHED = "finished"
    GONE = "gone"

    @property
    def is_terminal(self) -> bool:
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
    """One attempt of one step, ready to run anywhere.

    Two runs that need the artifact share the job, so its name says nothing of a run.
    """

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
    image: str = ""  # the container image, by digest where that is known; empty where there are no containers
    reads: tuple[Path, ...] = ()  # what it reads outside the volume
    device: str = "auto"  # what the step's options say: one on the CPU needs no GPU, whatever it asks the scheduler for

    @property
    def name(self) -> str:
        """vase-<step>-<key10>-<attempt>."""
        return f"{job_prefix(self.step, self.key)}{self.attempt}"


@dataclass(frozen=True)
class Outcome:
    """How a finished job ended.

    `exit_code` is None when a signal ended it or nobody saw the end; `oom` as the kernel or kubelet reports it.

    `transient`: the place it ran at was taken from it (evicted, preempted, drained, node lost); `message` says how.
    `overdue`: the cluster stopped it at a deadline.
    """

    exit_code: int | None
    signal: int | None = None
    oom: bool = False
    message: str = ""
    transient: bool = False
    overdue: bool = False


@dataclass(frozen=True)
class Update:
    """What is new about a job: its state, the text that it printed since the last update, and what it waits for.

    `note` is one sentence (why it has no place, or can't start, and what to do) and empty once that is over; `image` is
    the image that it really runs, by digest, once somebody knows; `image_id` is what the machine calls it, which no
    other machine need know.
    """

    name: str
    state: State
    text: str = ""
    note: str = ""
    image: str = ""
    image_id: str = ""


class Backend(Protocol):
    """Local processes, docker containers or Kubernetes Jobs."""

    @property
    def enforces_limits(self) -> bool:
        """True if a job has its own memory limit and /dev/shm, so that asking for more of them can help."""

    def image(self, stage: str) -> str:
        """The image that `stage` runs in, by digest where that can be known ahead; empty without containers.

        Asked once a run.

        ConfigError if there is no such image.
        """

    def submit(self, task: Task) -> None:
        """Start `task`; if a job of its name exists already, do nothing (it is adopted).

        Safe with several launchers at once.
        """

    def existing(self, prefix: str) -> list[str]:
        """The names of all jobs that begin with `prefix`, running or finished, by attempt: what a new launcher can
        adopt.
        """

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
        """Ask the job to stop:

        SIGTERM now, SIGKILL after `grace` seconds, also if this process is gone by then. `watch` says when it is over.
        """

    def remove(self, name: str) -> None:
        """Forget a finished job: nothing of it is left behind, except its log."""

    def forget_run(self, run: str) -> None:
        """Nothing that was made for `run` as a whole is left behind."""

    def gone(self, pod: str) -> bool:
        """True if the pod of that UID, in which a launcher ran, surely runs no more."""

    def close(self) -> None:
        """Let go of connections and threads; jobs run on."""
