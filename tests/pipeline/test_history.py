"""The history of steps from the event log, for the launcher, `status`, the report and its costs."""

from __future__ import annotations

from typing import Any

import pytest

from vasevqa.pipeline.history import StepHistory, read_history, restore
from vasevqa.report.costs import costs

RESOURCES = {"cpus": 2, "memory": "4Gi", "gpus": 1}


def event(kind: str, time: float, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "time": time, **fields}


def started(time: float, attempt: int = 1) -> dict[str, Any]:
    job = f"vase-sft-abc-{attempt}"
    return event("step-started", time, step="sft", job=job, attempt=attempt, key="abc", resources=RESOURCES)


def running(time: float, kind: str = "step-running", **fields: Any) -> dict[str, Any]:
    return event(kind, time, step="sft", key="abc", **fields)


BEGIN = event(
    "run-started", 0, steps=["sft", "merge-sft"], skipped={"to-megatron": "skipped: passes through its model"}
)


def sft(*events: dict[str, Any]) -> StepHistory:
    return read_history([BEGIN, *events])["sft"]


def test_steps_are_in_the_order_of_the_plan_and_skipped_steps_have_a_reason() -> None:
    found = read_history([BEGIN])
    assert list(found) == ["sft", "merge-sft", "to-megatron"]
    assert [step.state for step in found.values()] == ["waiting", "waiting", "skipped"]
    assert found["to-megatron"].text == "skipped: passes through its model"
    assert found["sft"].to_json() == {"state": "waiting"}


def test_the_history_of_a_step_covers_start_to_artifact() -> None:
    step = sft(started(10), running(12), event("step-done", 30, step="sft", hit=False, seconds=20.0, summary="learnt"))
    assert (step.state, step.text, step.seconds, step.began, step.ended) == ("done", "learnt", 20.0, 10, 30)
    assert [(held.seconds, held.resources["gpus"]) for held in step.held] == [(18, 1)]


def test_existing_artifacts_are_up_to_date_and_new_artifacts_are_done() -> None:
    there = event("step-done", 5, step="sft", hit=True, key="abc", summary="learnt")
    assert sft(there).state == "up to date"
    assert sft(started(10), running(11), there).state == "done"  # the next launcher found the work of a killed launcher


@pytest.mark.parametrize("end", ["attempt-failed", "step-requeued", "step-failed", "step-cancelled"])
def test_resources_are_counted_while_an_attempt_runs_whatever_its_outcome(end: str) -> None:
    step = sft(started(0), running(100), running(1900, end, message="m", failure="transient"))
    assert [held.seconds for held in step.held] == [1800]
    cost = costs({"sft": step})["sft"]
    assert (cost.hours, cost.gpu_hours, cost.core_hours, cost.memory_hours) == (0.5, 0.5, 1.0, 2.0)


def test_a_step_on_the_cpu_uses_no_gpu_hours_whatever_it_requests() -> None:
    on_cpu = {**started(0), "device": "cpu"}
    cost = costs({"sft": sft(on_cpu, running(0), event("step-done", 3600, step="sft", hit=False, key="abc"))})["sft"]
    assert (cost.gpu_hours, cost.gpus, cost.core_hours) == (0, 0, 2.0)
    assert "GPU" not in cost.text()


def test_waiting_and_existing_artifacts_use_no_resources() -> None:
    assert costs(read_history([BEGIN, started(0), running(50, "step-failed", message="no place")])) == {}
    assert costs(read_history([BEGIN, event("step-done", 1, step="sft", hit=True)])) == {}


def test_a_launcher_restores_the_state_of_the_previous_launcher() -> None:
    events = [
        started(10),
        running(12),
        running(20, "attempt-failed", failure="host memory", raised={"memory": "6Gi"}),
        started(21, attempt=2),
        running(25),
        running(26, "stage-note", at=99.5),
    ]
    before = restore(events, "sft", "abc")
    assert (before.job, before.attempt, before.started, before.ran) == ("vase-sft-abc-2", 2, 21, 25)
    assert (before.failures, before.raised, before.last_event_time) == ({"host memory": 1}, {"memory": "6Gi"}, 99.5)
    other = restore(events, "sft", "another key")
    assert (other.job, other.failures, other.last_event_time) == ("", {}, 99.5)
