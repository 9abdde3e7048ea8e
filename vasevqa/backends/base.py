"""The interface of a backend, which runs each attempt of a step as a job."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from vasevqa.spec import Resources


class State(Enum):
    """State of a job.

    GONE means that the backend no longer knows the job: somebody deleted the job, or the job's machine failed.
    """

    PENDING = "pending"  # waits for resources
    STARTING = "starting"  # the job has its resources; the image is being pulled or the volume mounted
    RUNNING = "running"
    FINISHED = "finished"
    GONE = "gone"

    @property
    def is_terminal(self) -> bool:
        """Return True if the job no longer runs."""
        return self in (State.FINISHED, State.GONE)


def job_prefix(step: str, key: str) -> str:
    """Return the prefix of all job names for the artifact `key` of `step`; the attempt number follows."""
    return f"vase-{step}-{key[:10]}-"


def attempt_of(name: str) -> int:
    """Return the attempt number at the end of a job's name."""
    return int(name.rpartition("-")[2])


@dataclass(frozen=True)
class Task:
    """One attempt of one step, ready to run on any backend.

    Two runs that need the same artifact share the job, so the job's name does not contain the name of a run.
    """

    run: str
    step: str
    stage: str
    key: str
    attempt: int
    arguments: tuple[str, ...]  # the arguments of the stage's command, never a shell string
    resources: Resources
    volume: Path
    log: Path  # the file for stdout and stderr
    environment: dict[str, str] = field(default_factory=dict)
    offline: bool = False  # the stage downloads nothing from a hub
    image: str = ""  # the container image, by digest if the digest is known; empty without containers
    reads: tuple[Path, ...] = ()  # inputs outside the volume
    device: str = "auto"  # from the step's options; with "cpu", the stage uses no GPU, even if the step requests GPUs

    @property
    def name(self) -> str:
        """The job's name: vase-<step>-<first 10 characters of the key>-<attempt>."""
        return f"{job_prefix(self.step, self.key)}{self.attempt}"


@dataclass(frozen=True)
class Outcome:
    """How a finished job ended.

    `exit_code` is None if a signal ended the job, or if the exit code was not recorded. `oom` is True if the kernel or
    the kubelet reports that memory ran out. `transient` is True if the job's node failed, or if the job was evicted,
    preempted or drained; `message` then gives the reason. `overdue` is True if the cluster stopped the job at a
    deadline.
    """

    exit_code: int | None
    signal: int | None = None
    oom: bool = False
    message: str = ""
    transient: bool = False
    overdue: bool = False


@dataclass(frozen=True)
class Update:
    """An update on a job: the job's state, its output since the last update, and the reason why the job waits.

    `note` says why the job waits or can't start, and what to do; it is empty if the job runs. `image` is the image of
    the job, by digest; it is empty until the digest is known. `image_id` is the image's id on the job's machine; other
    machines may not know this id.
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
        """True if each job has its own memory limit and its own /dev/shm.

        If a job runs out of memory, a retry with a higher limit can then succeed.
        """

    def image(self, stage: str) -> str:
        """Return the image of `stage`, by digest if possible; empty for a backend without containers.

        The launcher calls this method once per run. Raise ConfigError if the image does not exist.
        """

    def submit(self, task: Task) -> None:
        """Start `task`; if a job with the task's name exists already, adopt that job.

        Several launchers may call this method at the same time.
        """

    def existing(self, prefix: str) -> list[str]:
        """Return all job names that begin with `prefix`, sorted by attempt.

        The jobs may be running or finished. A new launcher can adopt these jobs.
        """

    def state(self, name: str) -> State:
        """Return the job's present state."""

    def owner(self, name: str) -> str | None:
        """Return the name of the run whose launcher submitted the job; None if the run is not known."""

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Wait up to `seconds` for updates on these jobs; return as soon as there is an update."""

    def outcome(self, name: str) -> Outcome:
        """Return how the finished job `name` ended."""

    def log(self, name: str) -> Path | None:
        """Return the file with the job's output; None if the job is unknown."""

    def cancel(self, name: str, grace: float) -> None:
        """Send SIGTERM to the job now, and SIGKILL `grace` seconds later.

        SIGKILL is sent even if the launcher ends in the meantime. The method does not wait; `watch` reports the end of
        the job.
        """

    def remove(self, name: str) -> None:
        """Remove a finished job. The job's log file is kept."""

    def forget_run(self, run: str) -> None:
        """Remove the objects that were created for `run` as a whole."""

    def gone(self, pod: str) -> bool:
        """Return True if it is certain that a launcher's pod has ended. `pod` is the pod's UID."""

    def close(self) -> None:
        """Close connections and stop threads. Jobs keep running."""
