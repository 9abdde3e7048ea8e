"""The three deadlines: for the time in the queue, for the first line of output, for the whole attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.kit import FIRST, Kit
from vasevqa.artifacts.lease import Lease
from vasevqa.backends.base import State, Update
from vasevqa.errors import ClusterUnreachable
from vasevqa.pipeline import launcher as launching
from vasevqa.pipeline.failures import Failure, Kind
from vasevqa.pipeline.launcher import Cancelled, Launcher, StepFailed
from vasevqa.pipeline.runs import Run
from vasevqa.pipeline.step_run import StepRun
from vasevqa.spec import Resources

LIMITS = Resources(queue_deadline=100, start_deadline=30, run_deadline=1000)


def work(kit: Kit, **seen: float | bool | str) -> StepRun:
    """Return a step whose attempt was submitted at second 1000."""
    made = StepRun(kit.plan(selection=FIRST).steps[0], LIMITS, {})
    made.begin("vase-first-0123456789-1", 1)
    made.started = 1000.0
    for name, value in seen.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("seen", "now", "kind", "says"),
    [
        ({}, 1099, None, ""),
        ({}, 1101, Kind.CLUSTER, "queue_deadline of 100 s"),
        ({"note": "No node has 9 GPUs."}, 1101, Kind.CLUSTER, "in the queue (No node has 9 GPUs); request fewer"),
        ({"placed": 5000.0}, 5029, None, ""),
        (
            {"placed": 5000.0, "note": "There is no such image."},
            5031,
            Kind.CLUSTER,
            "start_deadline of 30 s (There is no such image)",
        ),
        ({"placed": 5000.0, "ran": 5020.0}, 5049, None, ""),
        ({"placed": 5000.0, "ran": 5020.0}, 5051, Kind.CLUSTER, "printed nothing within its start_deadline"),
        ({"placed": 5000.0, "ran": 5020.0, "spoke": True}, 6019, None, ""),
        (
            {"placed": 5000.0, "ran": 5020.0, "spoke": True},
            6021,
            Kind.PERMANENT,
            "ran longer than its run_deadline of 1000 s",
        ),
    ],
)
def test_each_deadline_has_its_own_start(
    kit: Kit, seen: dict[str, float | bool | str], now: float, kind: Kind | None, says: str
) -> None:
    late: Failure | None = work(kit, **seen).late(now)
    assert (late.kind if late else None) is kind
    assert says in (late.message if late else "")
    if late is not None:
        assert late.exit_code == (69 if kind is Kind.CLUSTER else 75)


class Queueing:
    """A backend on which every job stays in the queue."""

    enforces_limits = True

    def __init__(self) -> None:
        self.jobs: dict[str, State] = {}
        self.cancelled: list[str] = []
        self.whose: str | None = None
        self.away = 0  # number of requests to cancel that get no answer

    def image(self, stage: str) -> str:
        return f"registry.example.org/{stage}@sha256:12"

    def submit(self, task: object) -> None:
        self.jobs[task.name] = State.PENDING  # type: ignore[attr-defined]

    def existing(self, prefix: str) -> list[str]:
        return [name for name in self.jobs if name.startswith(prefix)]

    def state(self, name: str) -> State:
        return self.jobs.get(name, State.GONE)

    def owner(self, name: str) -> str | None:
        return self.whose

    def watch(self, names: list[str], seconds: float) -> list[Update]:
        return [Update(name, self.state(name), note="No node has 9 GPUs.") for name in names]

    def log(self, name: str) -> Path | None:
        return None

    def cancel(self, name: str, grace: float) -> None:
        if self.away:
            self.away -= 1
            raise ClusterUnreachable("The cluster doesn't answer.")
        self.cancelled.append(name)
        self.jobs.pop(name, None)

    def remove(self, name: str) -> None:
        self.jobs.pop(name, None)

    def forget_run(self, run: str) -> None:
        pass

    def gone(self, pod: str) -> bool:
        return False

    def close(self) -> None:
        pass


def waiting(kit: Kit, deadline: int = 1) -> tuple[Launcher, Queueing]:
    """Return a launcher of the first step. On its backend, the job stays in the queue."""
    launcher = kit.launcher(selection=FIRST, overrides=[f"first.resources.queue_deadline={deadline}"])
    backend = Queueing()
    launcher.backend = launcher._executor.backend = backend
    return launcher, backend


def test_a_job_that_waits_too_long_is_cancelled_and_the_reason_is_reported(kit: Kit) -> None:
    launcher, backend = waiting(kit)
    with pytest.raises(StepFailed, match="No node has 9 GPUs") as caught:
        launcher.execute()
    assert caught.value.code == 69
    assert len(backend.cancelled) == 1
    assert backend.jobs == {}
    waited = [event for event in kit.events if event["event"] == "step-waiting"]
    assert [event["message"] for event in waited] == ["No node has 9 GPUs."]
    images = [event["image"] for event in kit.events if event["event"] == "run-image"]
    assert images == ["registry.example.org/copying@sha256:12"]


def test_a_job_of_another_run_is_not_stopped_at_a_deadline_of_this_run(kit: Kit) -> None:
    launcher, backend = waiting(kit)
    backend.whose = "another"
    lease = Lease.acquire(Run(kit.volume, "another").lease, "launcher-1")
    with pytest.raises(
        StepFailed, match=r"queue_deadline of 1 s .*run another started vase-first-.* is still running"
    ) as caught:
        launcher.execute()
    lease.release()
    assert caught.value.code == 69
    assert backend.cancelled == []
    assert list(backend.jobs.values()) == [State.PENDING]


def test_a_job_without_a_launcher_is_stopped_at_a_deadline(kit: Kit) -> None:
    launcher, backend = waiting(kit)
    backend.whose = "another"
    with pytest.raises(StepFailed, match="queue_deadline of 1 s"):
        launcher.execute()
    assert (len(backend.cancelled), backend.jobs) == (1, {})


@pytest.mark.parametrize("wish", [False, True])
def test_an_unreachable_cluster_is_asked_again_to_stop_a_job(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, wish: bool
) -> None:
    monkeypatch.setattr(launching, "WATCH_SECONDS", 0.01)
    launcher, backend = waiting(kit, deadline=100 if wish else 1)
    backend.away = 3
    if wish:
        launcher._listen = lambda event: (
            launcher.run.cancel_file.touch() if event["event"] == "step-waiting" else kit.events.append(event)
        )
    with pytest.raises(Cancelled if wish else StepFailed):
        launcher.execute()
    assert (backend.away, len(backend.cancelled), backend.jobs) == (0, 1, {})
    assert [event["event"] for event in kit.events].count("step-cancelled") == wish
