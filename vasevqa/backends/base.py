"""The interface of a backend, which runs each attempt of a step as a job."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from vasevqa.spec import Resources


class State(Enum):
    """State of a job. GONE: the backend no longer knows the job (deleted by hand, or its machine went down)."""

    PENDING = "pending"  # waits for resources
    STARTING = "starting"  # has resources; the image is pulled or the volume mounted
    RUNNING = "running"
    FINISHED = "finished"
    GONE = "gone"

    @property
    def is_terminal(self) -> bool:
        """True if the job no longer runs."""
        return self in (State.FINISHED, State.GONE)


def job_prefix(step: str, key: str) -> str:
    """Return the common prefix of the names of all jobs that make the artifact `key` of `step`."""
    return f"vase-{step}-{key[:10]}-"


def attempt_of(name: str) -> int:
    """Return the number of the attempt, with which a job's name ends."""
    return int(name.rpartition("-")[2])


@dataclass(frozen=True)
class Task:
    """One attempt of one step, ready to run on any backend.

    Two runs that need the same artifact share the job, so the job's name does not contain the run.
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
    offline: bool = False  # the stage downloads nothing from a hub
    image: str = ""  # the container image, by digest if that is known; empty without containers
    reads: tuple[Path, ...] = ()  # inputs outside the volume
    device: str = "auto"  # from the step's options; "cpu" needs no GPU, whatever `resources` says

    @property
    def name(self) -> str:
        """vase-<step>-<key10>-<attempt>."""
        return f"{job_prefix(self.step, self.key)}{self.attempt}"


@dataclass(frozen=True)
class Outcome:
    """How a finished job ended.

    `exit_code` is None if a signal ended the job or its end was not recorded. `oom`: the kernel or kubelet reports that
    memory ran out. `transient`: the job lost its node or its place there (evicted, preempted, drained, node lost);
    `message` says how. `overdue`: the cluster stopped the job at a deadline.
    """

    exit_code: int | None
    signal: int | None = None
    oom: bool = False
    message: str = ""
    transient: bool = False
    overdue: bool = False


@dataclass(frozen=True)
class Update:
    """News of a job: its state, its output since the last update, and what it waits for.

    `note` is one sentence that says why the job waits or can't start, and what to do; empty otherwise. `image` is the
    image that the job runs, by digest, once that is known. `image_id` is the image's id on that machine; other machines
    may not know it.
    """

    name: str
    state: State
    text: str = ""
    note: str = ""
    image: str = ""
    image_id: str = ""


class Backend(Protocol):
    """Runs jobs as local processes, docker containers or Kubernetes Jobs."""

    @property
    def enforces_limits(self) -> bool:
        """True if each job has its own memory limit and /dev/shm, so that a retry with more of them can help."""

    def image(self, stage: str) -> str:
        """Return the image of `stage`, by digest if that is known before the start; empty without containers.

        Called once per run. ConfigError if there is no such image.
        """

    def submit(self, task: Task) -> None:
        """Start `task`; if a job of its name exists already, adopt that job instead.

        Several launchers may call this at the same time.
        """

    def existing(self, prefix: str) -> list[str]:
        """Return the names of all jobs that begin with `prefix`, sorted by attempt.

        They may run or have finished. A new launcher can adopt them.
        """

    def state(self, name: str) -> State:
        """Return the job's present state."""

    def owner(self, name: str) -> str | None:
        """Return the run whose launcher submitted the job; None if that is not known."""

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Wait up to `seconds` for news of these jobs; return as soon as there is any."""

    def outcome(self, name: str) -> Outcome:
        """Return how the finished job `name` ended."""

    def log(self, name: str) -> Path | None:
        """Return the file with the job's output; None if there is none."""

    def cancel(self, name: str, grace: float) -> None:
        """Stop the job: SIGTERM now, SIGKILL after `grace` seconds, even if this process has ended by then.

        Does not wait: `watch` reports the end of the job.
        """

    def remove(self, name: str) -> None:
        """Remove a finished job. Its log stays."""

    def forget_run(self, run: str) -> None:
        """Remove the objects that were created for `run` as a whole."""

    def gone(self, pod: str) -> bool:
        """True if the pod with this UID, in which a launcher ran, has certainly ended."""

    def close(self) -> None:
        """Close connections and threads. Jobs keep running."""
