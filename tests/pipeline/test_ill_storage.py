"""The storage fails while a job runs: the launcher keeps the job, its message and its deadlines."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from tests.pipeline.kit import FIRST, Background, Kit, of, wait_for
from tests.pipeline.test_deadlines import waiting
from vasevqa.artifacts.volume import Artifact
from vasevqa.backends.base import State
from vasevqa.errors import LeaseLost, TransientStorageError
from vasevqa.pipeline import executor, launcher
from vasevqa.pipeline.launcher import StepFailed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "pause", lambda kind, tries: 0.0)
    monkeypatch.setattr(launcher, "WATCH_SECONDS", 0.01)


def failing(call: Callable[..., Any], times: int, error: Exception | None = None) -> Callable[..., Any]:
    """Return `call`, which fails a number of times before it works."""
    left = [times]

    def maybe(*given: object, **how: object) -> object:
        if left[0]:
            left[0] -= 1
            raise error or OSError(errno.EIO, "Input/output error", "/volume/x")
        return call(*given, **how)

    return maybe


def test_a_job_that_can_not_be_watched_for_a_moment_stays_watched(kit: Kit) -> None:
    held = kit.hold("first")
    made = kit.launcher(selection=FIRST)
    background = Background(made)
    kit.wait_until_held("first")
    made.backend.watch = failing(made.backend.watch, 3)  # type: ignore[method-assign]
    wait_for(lambda: len(of(kit, "step-waiting", "first")) == 3, "the launcher to meet the errors")
    held.unlink()
    assert background.join() is None
    assert kit.attempts() == {"first": 1}
    assert all("/volume/x" in event["message"] for event in of(kit, "step-waiting", "first"))
    assert [event["event"] for event in kit.events].count("step-started") == 1
    assert not of(kit, "step-adopted")


def test_the_message_of_a_failed_stage_survives_an_error_of_the_storage(kit: Kit) -> None:
    kit.wish("first", "data")
    made = kit.launcher(selection=FIRST)
    made.backend.outcome = failing(made.backend.outcome, 2)  # type: ignore[method-assign]
    with pytest.raises(StepFailed, match="No word can be read") as failed:
        made.execute()
    assert failed.value.code == 3
    assert kit.attempts() == {"first": 1}


def test_a_deadline_that_passed_is_not_forgotten(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    made, backend = waiting(kit)
    submitted, submit = [], backend.submit

    def counted(task: Any) -> None:
        submitted.append(task.name)
        submit(task)

    monkeypatch.setattr(backend, "submit", counted)
    monkeypatch.setattr(executor, "revoke", failing(executor.revoke, 2))
    with pytest.raises(StepFailed, match="queue_deadline of 1 s") as failed:
        made.execute()
    assert failed.value.code == 69
    assert len(submitted) == len(backend.cancelled) == 1


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, 74), (errno.ENOMEM, 71)])
def test_a_job_is_stopped_when_the_launcher_gives_up(kit: Kit, number: int, code: int) -> None:
    kit.hold("first")
    made = kit.launcher(selection=FIRST)
    background = Background(made)
    kit.wait_until_held("first")
    ill = OSError(number, "it failed", "/volume/x")
    made.backend.watch = failing(made.backend.watch, 1000, ill)  # type: ignore[method-assign]
    error = background.join()
    assert isinstance(error, StepFailed)
    assert error.code == code
    assert f"({errno.errorcode[number]})" in str(error)
    [job] = kit.backend.existing("vase-first-")
    wait_for(lambda: kit.backend.state(job) is State.FINISHED, "the job to end")
    assert kit.backend.outcome(job).exit_code != 0
    assert kit.attempts() == {"first": 1}


def test_a_lease_that_could_not_be_touched_is_no_other_writer(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = LeaseLost("The lease could not be touched.", taken_over=False)
    monkeypatch.setattr(Artifact, "commit", failing(Artifact.commit, 2, lost))
    kit.execute(selection=FIRST)
    assert [event["message"] for event in of(kit, "step-waiting", "first")] == [str(lost)] * 2
    assert not of(kit, "step-elsewhere")


def test_a_log_that_can_not_be_shared_does_not_start_a_job_again(kit: Kit) -> None:
    made = kit.launcher(selection=FIRST)
    made.backend.log = failing(made.backend.log, 1, TransientStorageError("x"))  # type: ignore[method-assign]
    made.execute()
    assert kit.attempts() == {"first": 1}
    assert [event["event"] for event in kit.events].count("step-started") == 1
    assert not of(kit, "step-adopted")
