"""The interface of a backend, which runs each attempt of a step as a job."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from vasevqa.spec import Resources


class State(Enum):
    """The state of a job.

    GONE means that the backend no longer knows the job, because somebody deleted it or its machine failed.
    """

    PENDING = "pending"  # waits for resources
    STARTING = "starting"  # the job has its resources; the image is being pulled or the volume mounted
    RUNNING = "running"
    FINISHED = "finished"
    GONE = "gone"

    @property
    def is_terminal(self) -> bool:
        """True if the job has ended or no longer exists."""
        return self in (State.FINISHED, State.GONE)


def job_prefix(step: str, key: str) -> str:
    """Return the prefix of the names of all jobs that make the artifact `key` of `step`.

    A job's name is this prefix, followed by the attempt number.
    """
    return f"vase-{step}-{key[:10]}-"


def attempt_of(name: str) -> int:
    """Return the attempt number at the end of a job's name."""
    return int(name.rpartition("-")[2])


@dataclass(frozen=True)
class Task:
    """One attempt of one step, ready to run on any backend.

    Two runs that need the same artifact share one job. For this reason, the job's name does not contain a run's name.
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
        """The job's name, in the form `vase-<step>-<first 10 characters of the key>-<attempt>`."""
        return f"{job_prefix(self.step, self.key)}{self.attempt}"


@dataclass(frozen=True)
class Outcome:
    """How a finished job ended.

    `exit_code` is None if a signal ended the job, or if the exit code was not recorded. `oom` is True if the job ran
    out of memory, according to the kernel or the kubelet. `transient` is True if the job was lost for a reason outside
    the job, such as a failed node, a drain, an eviction or a preemption. `message` then gives the reason. `overdue` is
    True if the cluster stopped the job because it had exceeded its deadline.
    """

    exit_code: int | None
    signal: int | None = None
    oom: bool = False
    message: str = ""
    transient: bool = False
    overdue: bool = False


@dataclass(frozen=True)
class Update:
    """A job's state, its new output, and a message about a problem.

    `text` is the output since the last update. `note` tells the user, for example, why the job can't start and what to
    do about it. It is empty if there is nothing to tell. `image` names the job's image by digest. It is empty until the
    digest is known. `image_id` is the id of the image on the machine where the job runs. Other machines may not know
    this id.
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

        With such limits, a job that ran out of memory can succeed when it is retried with a higher limit.
        """

    def image(self, stage: str) -> str:
        """Return the name of the image for `stage`, with the image's digest if it is known.

        Return an empty string if the backend uses no containers. The launcher calls this method once per run.

        Raise ConfigError if the image does not exist.
        """

    def submit(self, task: Task) -> None:
        """Start `task` as a job, or take over the existing job with the task's name.

        Several launchers may call this method at the same time.
        """

    def existing(self, prefix: str) -> list[str]:
        """Return the names of all jobs whose names begin with `prefix`, sorted by attempt number.

        The jobs may be running or finished. A new launcher can take them over.
        """

    def state(self, name: str) -> State:
        """Return the job's present state."""

    def owner(self, name: str) -> str | None:
        """Return the name of the run that submitted the job; None if the job is unknown."""

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Return the updates on the jobs `names`; wait at most `seconds` for the first update."""

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
        """Remove the objects that the backend created for the run itself, not for one of its jobs."""

    def gone(self, pod: str) -> bool:
        """Return True if a launcher's pod is known to have ended; `pod` is the pod's UID."""

    def close(self) -> None:
        """Close connections and stop threads. Jobs keep running."""
