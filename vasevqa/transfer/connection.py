"""Connect to the process that gives access to a volume, and connect again after a lost connection.

This process is called the far end. It runs in a pod that mounts the volume.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import click
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from vasevqa.backends.kubernetes.launcher_job import LAUNCHER_RESOURCES, VOLUME, render_pod
from vasevqa.errors import ClusterError, ClusterUnreachable, ConfigError, ConnectionLost, DataError
from vasevqa.text import printable

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.pod_template import Manifest
    from vasevqa.backends.kubernetes.process import Process
    from vasevqa.backends.kubernetes.session import Session

IDLE_SECONDS = 1800  # seconds without a request after which the pod ends by itself
SILENCE = 300.0  # seconds without an answer after which a connection is considered lost
TRIES = 6  # a transfer fails after this number of lost connections in a row without progress
MOST = 64 << 20  # maximum number of bytes in one answer


@dataclass(frozen=True)
class Kind:
    """A kind of pod that mounts the volume: the pod's purpose, image and resources, and the module that runs in it."""

    purpose: str = "move"
    image: str = "launcher"
    resources: Manifest = field(default_factory=lambda: LAUNCHER_RESOURCES)
    module: str = "vasevqa.transfer"
    seconds: float = 300  # time limit for the start of the pod


@contextlib.contextmanager
def volume_pod(access: Session, purpose: str = "move", kind: Kind | None = None) -> Iterator[str]:
    """Start a pod that mounts the volume, yield the pod's name, and remove the pod when the block ends."""
    kind = kind or Kind(purpose)
    access.require_claim()
    name = f"vasevqa-{kind.purpose}-{os.urandom(4).hex()}"
    wait = ["tini", "--", "python", "-m", "vasevqa.transfer", "--wait", str(IDLE_SECONDS)]
    manifest = render_pod(name, kind.purpose, access.cluster, [], wait, image=kind.image, resources=kind.resources)
    with access.pod(manifest, kind.seconds) as pod:
        yield pod


class Connection:
    """One connection to the process in the pod."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._buffer, self._at = b"", 0  # the received bytes, and the number of bytes that were read
        self._needs: dict[str, Any] | None = None  # an answer whose payload is not complete yet

    def ask(self, payload: bytes = b"", **request: Any) -> None:
        """Send one request, followed by `payload`."""
        self.process.write(json.dumps(request).encode() + b"\n" + payload)

    def answers(self, wait: bool) -> Iterator[dict[str, Any]]:
        """Yield the answers that have arrived; with `wait`, wait for at least one answer.

        Raise ConnectionLost if no answer arrives in time. Raise ConfigError, DataError or ClusterError if the pod
        reports an error.
        """
        end = time.monotonic() + SILENCE
        while True:
            # An answer that arrived with an earlier one must not wait for further bytes: there may be none.
            if (answer := self._next()) is not None:
                yield answer
                wait = False
            self.process.read(1 if wait else 0)
            if block := self.process.taken():
                self._buffer, self._at = self._buffer[self._at :] + block, 0
            some = False
            while (answer := self._next()) is not None:
                some = True
                yield answer
            if some or not wait:
                return
            if self.process.over or time.monotonic() > end:
                said = self.process.errors().decode("utf-8", "replace").strip().splitlines()
                why = f" ({printable(said[-1])[:200]})" if said else ""
                raise ConnectionLost(
                    f"The connection to pod {self.process.pod} was lost{why}; run the same command again to resume."
                )

    def one(self) -> dict[str, Any]:
        """Wait for one answer and return it. Answers that only report activity (with the key `busy`) are skipped."""
        while True:
            for answer in self.answers(True):
                if "busy" not in answer:
                    return answer

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield all answers before the answer with the key `end`. Answers with the key `busy` are skipped."""
        while "end" not in (answer := self.one()):
            yield answer

    def _next(self) -> dict[str, Any] | None:
        if self._needs is None:
            end = self._buffer.find(b"\n", self._at)
            if end < 0:
                self._refuse_large(len(self._buffer) - self._at)
                return None
            self._needs, self._at = self._parsed(self._buffer[self._at : end]), end + 1
        answer, stop = self._needs, self._at + int(self._needs.get("data", 0))
        if len(self._buffer) < stop:
            return None
        answer["bytes"], self._at, self._needs = self._buffer[self._at : stop], stop, None
        if "error" in answer:
            refusal = {2: ConfigError, 3: DataError}.get(answer.get("code", 1), ClusterError)
            raise refusal(answer["error"])
        return answer

    def _parsed(self, line: bytes) -> dict[str, Any]:
        """Return the answer in `line`. Raise ClusterError if `line` is not JSON or announces more than `MOST` bytes.

        The pod is not trusted: an answer must not fill this machine's memory.
        """
        try:
            answer = json.loads(line)
            size = int(answer.get("data", 0))
        except (ValueError, TypeError, AttributeError):
            raise ClusterError(
                f"Pod {self.process.pod} sent a line that is not an answer; check that the image has this version of"
                " vasevqa."
            ) from None
        self._refuse_large(size)
        return dict(answer)

    def _refuse_large(self, size: int) -> None:
        if not 0 <= size <= MOST:
            raise ClusterError(
                f"Pod {self.process.pod} announced an answer of {size} bytes, but at most {MOST} bytes are allowed;"
                " check that the image has this version of vasevqa."
            )


class Far(Protocol):
    """Makes connections to a process that gives access to a volume, such as a process in a pod."""

    def connect(self) -> Connection:
        """Return a new connection. Raise ConnectionLost or another ClusterError if no connection can be made."""

    def close(self) -> None:
        """Remove everything that was started for the connections, such as a pod."""


class PodFar:
    """Makes connections to a pod of `kind`. Several threads may use one object of this class at the same time.

    The pod is created for the first connection. If the pod has ended before a later connection, a new pod is created.
    """

    def __init__(self, access: Session, kind: Kind | None = None) -> None:
        self._access, self._kind = access, kind or Kind()
        self._lock, self._stack, self._pod = Lock(), contextlib.ExitStack(), ""

    def connect(self) -> Connection:
        """Return a new connection to the pod. Create the pod if no pod runs."""
        with self._lock:
            if not self._pod or not _runs(self._access, self._pod):
                self._pod = ""
                self._stack.close()
                self._pod = self._stack.enter_context(volume_pod(self._access, kind=self._kind))
            pod = self._pod
        return Connection(self._access.open(pod, ["python", "-m", self._kind.module, VOLUME]))

    def close(self) -> None:
        """Remove the pod."""
        with self._lock:
            self._pod = ""
            self._stack.close()


def persistently(access: Session, work: Callable[[Connection], None]) -> None:
    """Call `work` with a new connection until `work` returns without an error.

    Raise ConnectionLost or ClusterUnreachable after `TRIES` lost connections in a row. If data was transferred before a
    loss (the error's `moved` is True), the count starts again.
    """
    with contextlib.closing(PodFar(access)) as far:
        work_on(far, work)


def work_on(far: Far, work: Callable[[Connection], None]) -> None:
    """Call `work` with a new connection to `far` until `work` returns without an error (see `persistently`)."""
    losses = _Losses()
    again = Retrying(
        retry=retry_if_exception_type((ConnectionLost, ClusterUnreachable)),
        after=losses.count,
        stop=losses.too_many,
        wait=losses.pause,
        before_sleep=losses.tell,
        reraise=True,
    )
    for attempt in again:
        with attempt:
            connection = far.connect()
            try:
                work(connection)
            finally:
                connection.process.close()


class _Losses:
    """Counts lost connections in a row."""

    def __init__(self) -> None:
        self.number = 0

    def count(self, state: RetryCallState) -> None:
        moved = state.outcome is not None and getattr(state.outcome.exception(), "moved", False)
        self.number = 1 if moved else self.number + 1

    def too_many(self, state: RetryCallState) -> bool:
        return self.number >= TRIES

    def pause(self, state: RetryCallState) -> float:
        return min(2.0 ** (self.number - 1), 30.0)

    def tell(self, state: RetryCallState) -> None:
        click.echo(f"The connection was lost; trying again ({self.number}).", err=True)


def _runs(access: Session, pod: str) -> bool:
    answer = access.find("pods", pod)
    return (
        answer is not None
        and answer["status"].get("phase") == "Running"
        and "deletionTimestamp" not in answer["metadata"]
    )
