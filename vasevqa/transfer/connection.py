"""Connect to the far end of a transfer, and connect again after a lost connection.

The far end runs in a pod that mounts the volume.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from vasevqa.backends.kubernetes.launcher_job import VOLUME, render_pod
from vasevqa.errors import ClusterError, ClusterUnreachable, ConfigError, ConnectionLost, DataError

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.process import Process
    from vasevqa.backends.kubernetes.session import Session

IDLE_SECONDS = 1800  # seconds without a request after which the pod ends by itself
SILENCE = 300.0  # seconds without an answer after which a connection is considered lost
TRIES = 6  # lost connections in a row without progress, after which a transfer fails


@contextlib.contextmanager
def volume_pod(access: Session, purpose: str = "move") -> Iterator[str]:
    """Start a pod that mounts the volume, yield its name, and remove it when the block ends."""
    access.require_claim()
    name = f"vasevqa-{purpose}-{os.urandom(4).hex()}"
    wait = ["tini", "--", "python", "-m", "vasevqa.transfer", "--wait", str(IDLE_SECONDS)]
    with access.pod(render_pod(name, purpose, access.cluster, [], wait)) as pod:
        yield pod


class Connection:
    """One connection to the far end."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._buffer, self._at = b"", 0  # the received bytes, and the number of bytes that were read
        self._needs: dict[str, Any] | None = None  # an answer whose payload is not complete yet

    def ask(self, payload: bytes = b"", **request: Any) -> None:
        """Send one request, followed by `payload`."""
        self.process.write(json.dumps(request).encode() + b"\n" + payload)

    def answers(self, wait: bool) -> Iterator[dict[str, Any]]:
        """Yield the answers that have arrived; with `wait`, wait for at least one answer.

        Raise ConnectionLost if no answer arrives in time. Raise ConfigError, DataError or ClusterError if the far end
        reports an error.
        """
        end = time.monotonic() + SILENCE
        while True:
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
                raise ConnectionLost(
                    f"The connection to pod {self.process.pod} was lost; run the same command again to resume."
                )

    def _next(self) -> dict[str, Any] | None:
        if self._needs is None:
            end = self._buffer.find(b"\n", self._at)
            if end < 0:
                return None
            self._needs, self._at = json.loads(self._buffer[self._at : end]), end + 1
        answer, stop = self._needs, self._at + int(self._needs.get("data", 0))
        if len(self._buffer) < stop:
            return None
        answer["bytes"], self._at, self._needs = self._buffer[self._at : stop], stop, None
        if "error" in answer:
            refusal = {2: ConfigError, 3: DataError}.get(answer.get("code", 1), ClusterError)
            raise refusal(answer["error"])
        return answer


def persistently(access: Session, work: Callable[[Connection], None]) -> None:
    """Call `work` with a new connection until `work` returns without an error.

    Raise ConnectionLost or ClusterUnreachable after TRIES lost connections in a row. If data
    was transferred before the loss (`moved` of the error is True), the count starts again.
    """
    losses = _Losses()
    again = Retrying(
        retry=retry_if_exception_type((ConnectionLost, ClusterUnreachable)),
        after=losses.count,
        stop=losses.too_many,
        wait=losses.pause,
        before_sleep=losses.tell,
        reraise=True,
    )
    pod = ""
    with contextlib.ExitStack() as stack:
        for attempt in again:
            with attempt:
                if not pod or not _runs(access, pod):
                    stack.close()
                    pod = stack.enter_context(volume_pod(access))
                process = access.open(pod, ["python", "-m", "vasevqa.transfer", VOLUME])
                try:
                    work(Connection(process))
                finally:
                    process.close()


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
