"""Failures: the class and the remedy of each outcome."""

from __future__ import annotations

import signal

import pytest

from vasevqa.backends.base import Outcome
from vasevqa.pipeline.failures import LONGEST_PAUSE, RETRIES, Failure, Kind, classify, final, pause, remedy
from vasevqa.spec import Resources


@pytest.mark.parametrize(
    ("outcome", "kind", "exit_code"),
    [
        (Outcome(1), Kind.BUG, 1),
        (Outcome(126, message="it can't be started"), Kind.BUG, 1),
        (Outcome(2), Kind.PERMANENT, 2),
        (Outcome(3), Kind.PERMANENT, 3),
        (Outcome(4), Kind.GPU_MEMORY, 4),
        (Outcome(5), Kind.PERMANENT, 5),
        (Outcome(6), Kind.PERMANENT, 6),
        (Outcome(71), Kind.HOST_MEMORY, 71),
        (Outcome(74), Kind.VOLUME, 74),
        (Outcome(75), Kind.TRANSIENT, 75),
        (Outcome(143), Kind.TRANSIENT, 75),
        (Outcome(None, signal.SIGTERM), Kind.TRANSIENT, 75),
        (Outcome(137), Kind.UNKNOWN_KILL, 137),
        (Outcome(None, signal.SIGKILL), Kind.UNKNOWN_KILL, 137),
        (Outcome(137, oom=True), Kind.HOST_MEMORY, 137),
        (Outcome(None, signal.SIGKILL, oom=True), Kind.HOST_MEMORY, 137),
        (Outcome(135), Kind.SHARED_MEMORY, 135),
        (Outcome(None, signal.SIGBUS), Kind.SHARED_MEMORY, 135),
        (Outcome(None, signal.SIGSEGV), Kind.BUG, 139),
    ],
)
def test_each_outcome_has_its_class_of_failure(outcome: Outcome, kind: Kind, exit_code: int) -> None:
    failure = classify(outcome, "", "sft")
    assert (failure.kind, failure.exit_code) == (kind, exit_code)
    assert "sft" in failure.message


def test_a_transient_storage_failure_has_its_own_class_and_pauses() -> None:
    failure = classify(Outcome(75), "Could not read /x.", "classify", "TransientStorageError")
    assert (failure.kind, failure.exit_code, failure.message) == (Kind.STORAGE, 75, "Could not read /x.")
    assert [pause(Kind.STORAGE, tries) for tries in (0, 1, 2, 9)] == [1, 2, 4, LONGEST_PAUSE]
    assert len(attempts(Kind.STORAGE, Resources())) == 10
    assert final(failure).exit_code == 74
    assert final(classify(Outcome(75), "", "classify")).exit_code == 75


def test_the_user_gets_the_message_of_the_stage() -> None:
    assert classify(Outcome(3), "There is no usable image.", "classify").message == "There is no usable image."


def attempts(kind: Kind, resources: Resources, enforces_limits: bool = True) -> list[Resources]:
    """Return the requested resources of each further attempt."""
    asked: list[Resources] = []
    failure = Failure(kind, "", 1)
    while (resources_or_none := remedy(failure, resources, len(asked), enforces_limits)) is not None:
        resources = resources_or_none
        asked.append(resources)
    return asked


@pytest.mark.parametrize("kind", [Kind.BUG, Kind.PERMANENT, Kind.GPU_MEMORY, Kind.VOLUME])
def test_failures_that_a_retry_can_not_fix_are_not_retried(kind: Kind) -> None:
    assert attempts(kind, Resources()) == []


def test_interruptions_have_their_own_cap_and_growing_pauses() -> None:
    resources = Resources(memory="3Gi")
    assert attempts(Kind.TRANSIENT, resources) == [resources] * 10
    pauses = [pause(Kind.TRANSIENT, tries) for tries in range(RETRIES[Kind.TRANSIENT])]
    assert pauses[:4] == [0, 1, 2, 4]
    assert pauses[-1] == LONGEST_PAUSE


def test_an_unexplained_kill_is_retried_once() -> None:
    assert len(attempts(Kind.UNKNOWN_KILL, Resources())) == 1


def test_memory_is_raised_by_50_percent_up_to_its_limit() -> None:
    raised = [step.memory for step in attempts(Kind.HOST_MEMORY, Resources(memory="4Gi", memory_limit="10Gi"))]
    assert raised == ["6144Mi", "9216Mi", "10240Mi"]
    assert [step.memory for step in attempts(Kind.HOST_MEMORY, Resources(memory="4Gi"))] == ["6144Mi", "8192Mi"]


def test_shared_memory_is_doubled() -> None:
    assert [step.shm for step in attempts(Kind.SHARED_MEMORY, Resources(shm="1Gi"))] == [
        "2048Mi",
        "4096Mi",
        "8192Mi",
        "16384Mi",
    ]


def test_without_a_limit_per_job_more_memory_is_no_remedy() -> None:
    assert attempts(Kind.HOST_MEMORY, Resources(), enforces_limits=False) == []
    assert attempts(Kind.SHARED_MEMORY, Resources(), enforces_limits=False) == []
