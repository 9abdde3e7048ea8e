"""The state and messages of a job, from the objects of the cluster. Some of these objects never occur on a small
cluster.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from vasevqa.backends.base import State
from vasevqa.backends.kubernetes.status import Asked, Seen, full_name, image_of, moment, note_of, outcome_of, state_of

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
ASKED = Asked("vasevqa/sft:1", {"cpu": "8", "nvidia.com/gpu": "2"}, "vases", "vasevqa", "gpus")


def job(condition: str = "", reason: str = "", **spec: Any) -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True", "reason": reason, "message": "why"}] if condition else []
    return {
        "metadata": {"name": "vase-sft-0123456789-1", "uid": "j"},
        "spec": spec,
        "status": {"conditions": conditions},
    }


def pod(
    phase: str = "Pending", state: dict[str, Any] | None = None, node: str = "", deleted: str = "", **status: Any
) -> dict[str, Any]:
    metadata = {"name": "p", "uid": "p", **({"deletionTimestamp": deleted} if deleted else {})}
    statuses = [{"name": "stage", "state": state}] if state is not None else []
    return {
        "metadata": metadata,
        "spec": {"nodeName": node},
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }


def ended(code: int, **how: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "startedAt": "2026-11-25T11:00:00Z", **how}}


RUNNING = {"running": {"startedAt": "2026-11-25T11:00:00Z"}}


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (Seen(None), State.GONE),
        (Seen(job()), State.PENDING),
        (Seen(job(), [pod()]), State.PENDING),
        (Seen(job(), [pod(node="n")]), State.STARTING),
        (Seen(job(), [pod("Running", RUNNING, "n")]), State.RUNNING),
        (Seen(None, [pod("Running", RUNNING, "n")]), State.RUNNING),  # the Job is deleted, and its pod is still ending
        (Seen(None, [pod("Failed", ended(143), "n")]), State.GONE),
        (Seen(job(), [pod("Succeeded", ended(0), "n")]), State.FINISHED),  # the condition of the Job is not needed
        (Seen(job(), [pod("Failed", ended(1), "n")]), State.RUNNING),  # another pod may follow
        (Seen(job("Failed"), [pod("Failed", ended(1), "n")]), State.FINISHED),
        (
            Seen(job("Failed"), [pod("Running", RUNNING, "n", "2026-11-25T11:59:50Z")]),
            State.RUNNING,
        ),  # within the grace period
        (
            Seen(job("Failed"), [pod("Running", RUNNING, "n", "2026-11-25T11:58:00Z")]),
            State.FINISHED,
        ),  # the node is lost
        (
            Seen(None, [pod("Pending", {"waiting": {"reason": "ImagePullBackOff"}}, "n", "2026-11-25T12:00:30Z")]),
            State.GONE,
        ),  # the pod never began
        (Seen(job("Failed")), State.FINISHED),
    ],
)
def test_each_job_has_the_right_state(seen: Seen, state: State) -> None:
    assert state_of(seen, NOW) is state


@pytest.mark.parametrize(
    ("given", "how"),
    [
        (
            pod("Failed", None, "n", reason="Evicted", message="The node was low on resource: memory."),
            "evicted: The node was low on resource: memory",
        ),
        (pod("Failed", ended(137), "n", reason="Preempting"), "preempted"),
        (pod("Failed", ended(143), "n", reason="Terminated"), "its node shut down"),
        (pod("Failed", None, "n", reason="OutOfcpu"), "its node had too few free resources"),
        (
            pod(
                "Failed",
                ended(143),
                "n",
                conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}],
            ),
            "its node was drained or was lost",
        ),
        (
            pod("Failed", ended(137), "n", deleted="2026-11-25T11:59:50Z"),
            "its pod was deleted by a drain or by a user",
        ),
    ],
)
def test_a_pod_that_was_removed_from_its_node_is_a_transient_failure(given: dict[str, Any], how: str) -> None:
    outcome = outcome_of(Seen(job("Failed", "BackoffLimitExceeded"), [given]))
    assert outcome.transient
    assert outcome.message == how


def test_the_exit_code_of_the_stage_takes_precedence() -> None:
    outcome = outcome_of(Seen(job("Failed"), [pod("Failed", ended(3), "n", deleted="2026-11-25T11:59:50Z")]))
    assert (outcome.exit_code, outcome.transient) == (3, False)


def test_other_outcomes() -> None:
    assert outcome_of(Seen(job("Failed"), [pod("Failed", ended(137, reason="OOMKilled"), "n")])).oom
    assert outcome_of(Seen(job("Failed", "DeadlineExceeded"), [pod("Failed", ended(143), "n")])).overdue
    assert outcome_of(Seen(job("Failed", "BackoffLimitExceeded"))).transient
    assert (
        outcome_of(
            Seen(job("Failed"), [pod("Failed", ended(128, reason="StartError", message="no tini"), "n")])
        ).message
        == "it can't be started: no tini"
    )


def test_waiting_in_a_queue_is_reported() -> None:
    preempted = pod("Failed", ended(143), "n", reason="Terminated")
    for pods in ([], [preempted]):
        assert note_of(Seen(job(suspend=True), pods), ASKED) == "The Job waits in the queue gpus to be admitted."
        assert state_of(Seen(job(suspend=True), pods)) is State.PENDING


def test_a_volume_that_is_attached_to_another_node_is_reported() -> None:
    event = {
        "reason": "FailedAttachVolume",
        "involvedObject": {"uid": "p"},
        "message": 'Multi-Attach error for volume "pvc-1"',
    }
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    assert "Multi-Attach error" in note_of(Seen(job(), [pod("Pending", waiting, "n")], [event]), ASKED)
    assert note_of(Seen(job(), [pod("Pending", waiting, "n")]), ASKED) == ""


def test_a_temporary_warning_is_not_reported() -> None:
    event = {"reason": "FailedCreate", "message": "Error creating: No API token found for service account"}
    assert note_of(Seen(job(), [], [event]), ASKED) == ""


@pytest.mark.parametrize(
    ("image_id", "asked", "reference"),
    [
        ("docker.io/museum/sft@sha256:1", "museum/sft:2", "docker.io/museum/sft@sha256:1"),
        ("docker-pullable://ghcr.io/museum/sft@sha256:1", "ghcr.io/museum/sft:2", "ghcr.io/museum/sft@sha256:1"),
        ("sha256:1", "museum/sft:2", ""),  # only this node knows the id
        (
            "docker.io/library/import-2026-11-25@sha256:1",
            "museum/sft:2",
            "",
        ),  # loaded from an archive: the name exists only on this node
    ],
)
def test_an_image_digest_is_used_only_with_its_own_repository(image_id: str, asked: str, reference: str) -> None:
    shown = pod("Running", RUNNING, "n")
    shown["status"]["containerStatuses"][0]["imageID"] = image_id
    assert image_of(shown, asked)[0] == reference


def test_names_and_times() -> None:
    assert [full_name(name) for name in ("sft", "museum/sft", "localhost:5000/sft", "ghcr.io/a/b")] == [
        "docker.io/library/sft",
        "docker.io/museum/sft",
        "localhost:5000/sft",
        "ghcr.io/a/b",
    ]
    assert moment("2026-11-25T12:00:00Z") == moment("2026-11-25T12:00:00.000000000Z") == NOW
