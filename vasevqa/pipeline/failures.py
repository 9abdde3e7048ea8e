"""Classes of failures, and the launcher's remedy for each class."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from enum import Enum

from vasevqa.backends.base import Outcome
from vasevqa.errors import HostMemoryError, StorageError, TransientStorageError
from vasevqa.spec import Resources, quantity_bytes


class Kind(Enum):
    """The class of a failure; each class has one remedy."""

    BUG = "bug in a stage"
    PERMANENT = "permanent"
    TRANSIENT = "transient"
    HOST_MEMORY = "host memory"
    GPU_MEMORY = "GPU memory"
    SHARED_MEMORY = "shared memory"
    UNKNOWN_KILL = "unknown kill"
    STORAGE = "storage"
    VOLUME = "volume"
    CLUSTER = "cluster"


# The maximum number of retries by the launcher. Retries with more host memory also end at the step's memory_limit.
RETRIES = {Kind.TRANSIENT: 10, Kind.STORAGE: 10, Kind.UNKNOWN_KILL: 1, Kind.HOST_MEMORY: 8, Kind.SHARED_MEMORY: 4}
UNAVAILABLE = 69  # the exit code of errors.ClusterError
LONGEST_PAUSE = 60.0  # seconds
_PERMANENT = {2: "usage or configuration", 3: "bad data", 5: "no such device", 6: "a gate failed"}


@dataclass(frozen=True)
class Failure:
    """A failed attempt: the class of the failure, the error message, and the exit code for the launcher."""

    kind: Kind
    message: str
    exit_code: int


def classify(outcome: Outcome, said: str, step: str, error: str = "") -> Failure:
    """Return the failure that explains `outcome`.

    `said` is the error message that the stage printed, and `error` is the class name of the error. Both are '' if the
    stage printed no error.
    """
    code, number = outcome.exit_code, outcome.signal
    if code is not None and code > 128:
        number, code = code - 128, None
    if outcome.oom:
        return Failure(
            Kind.HOST_MEMORY,
            f"{step} was killed because host memory ran out; lower its batch size or workers, or raise its"
            " memory_limit.",
            137,
        )
    if outcome.overdue:
        return Failure(
            Kind.PERMANENT,
            f"{step} was stopped by the cluster at a deadline ({outcome.message}); raise its run_deadline and run again"
            " to resume.",
            75,
        )
    if outcome.transient:
        return Failure(Kind.TRANSIENT, f"{step} was evicted ({outcome.message}); it continues where it stopped.", 75)
    if code == 4:
        return Failure(Kind.GPU_MEMORY, said or f"{step} needs more memory than the GPU has.", 4)
    if code in _PERMANENT:
        return Failure(Kind.PERMANENT, said or f"{step} ended with exit code {code} ({_PERMANENT[code]}).", code)
    if code == 74:
        return Failure(
            Kind.VOLUME,
            said
            or f"{step} could not write to the volume: the volume is full or read-only, or the permission is missing.",
            74,
        )
    if code == HostMemoryError.exit_code:
        return Failure(Kind.HOST_MEMORY, said or f"{step} needs more memory than it has.", code)
    if code == 75 and error == TransientStorageError.__name__:
        return Failure(Kind.STORAGE, said, 75)
    if code == 75 or number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        how = f" ({outcome.message})" if outcome.message else " by a signal from another process"
        return Failure(Kind.TRANSIENT, said or f"{step} was stopped{how}.", 75)
    if number == signal.SIGBUS:
        return Failure(
            Kind.SHARED_MEMORY, f"{step} exhausted /dev/shm (bus error); raise its shm, or lower its workers.", 135
        )
    if number == signal.SIGKILL:
        return Failure(
            Kind.UNKNOWN_KILL,
            f"{step} was killed{f' ({outcome.message})' if outcome.message else ''}, and the sender of the signal is"
            " unknown (often the host's memory ran out).",
            137,
        )
    if number is not None:
        return Failure(Kind.BUG, f"{step} was ended by signal {signal.Signals(number).name}.", 128 + number)
    return Failure(
        Kind.BUG, said or f"{step} failed with exit code {code}{f' ({outcome.message})' if outcome.message else ''}.", 1
    )


def remedy(failure: Failure, resources: Resources, tries: int, enforces_limits: bool) -> Resources | None:
    """Return the resources of the next attempt, or None if there is no next attempt.

    `tries` is the number of earlier failures of this class. `enforces_limits` is True if the backend gives each step
    its own memory limit and /dev/shm. Without such limits, a request for more memory or shm changes nothing.
    """
    if tries >= RETRIES.get(failure.kind, 0) or (
        not enforces_limits and failure.kind in (Kind.HOST_MEMORY, Kind.SHARED_MEMORY)
    ):
        return None
    if failure.kind is Kind.HOST_MEMORY:
        limit = (
            quantity_bytes(resources.memory_limit) if resources.memory_limit else 2 * quantity_bytes(resources.memory)
        )
        wanted = min(int(quantity_bytes(resources.memory) * 1.5), limit)
        if wanted <= quantity_bytes(resources.memory):
            return None
        return resources.model_copy(update={"memory": f"{wanted // 2**20}Mi", "memory_limit": f"{limit // 2**20}Mi"})
    if failure.kind is Kind.SHARED_MEMORY:
        return resources.model_copy(update={"shm": f"{2 * quantity_bytes(resources.shm) // 2**20}Mi"})
    return resources


def pause(kind: Kind, tries: int) -> float:
    """Return the pause before the next attempt in seconds.

    `tries` is the number of earlier failures of this class. Only transient failures and storage failures need a pause.
    The first retry of a transient failure follows at once. Otherwise the first pause is 1 second, and each later pause
    is twice the previous pause, up to LONGEST_PAUSE.
    """
    if kind is Kind.STORAGE:
        return min(LONGEST_PAUSE, 2.0**tries)
    return min(LONGEST_PAUSE, 2.0 ** (tries - 1)) if kind is Kind.TRANSIENT and tries else 0.0


def final(failure: Failure) -> Failure:
    """Return the failure of a step that is not tried again.

    A storage failure that outlasts all retries gets exit code 74, because a person must repair the storage.
    """
    passing = failure.kind is Kind.STORAGE and failure.exit_code == TransientStorageError.exit_code
    return replace(failure, exit_code=StorageError.exit_code) if passing else failure
