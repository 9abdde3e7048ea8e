"""The report of a run: one file, no network, everything escaped."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests import pictures
from vasevqa.artifacts.volume import Volume
from vasevqa.pipeline.events import EventLog
from vasevqa.report.html import write_report

NASTY = "<script>alert(1)</script>.jpg"


def test_a_run_becomes_one_file(volume_root: Path) -> None:
    run = volume_root / "runs/20260101-000000-demo-abcd"
    artifact = volume_root / "artifacts/clip-filter/k1"
    rows = []
    for number in range(30):
        accepted = number >= 12
        pictures.save(artifact / ("accepted" if accepted else "rejected") / f"{number:02}.jpg", number)
        rows.append({"name": f"{number:02}.jpg", "score": number / 30, "accepted": accepted})
    report = {
        "images": rows,
        "threshold": 0.4,
        "threshold_source": "given",
        "quarantined": [{"name": NASTY, "reason": "not an image"}],
    }
    (artifact / "filtering_report.json").write_text(json.dumps(report))
    (artifact / "artifact.json").write_text('{"summary": "kept 18"}')
    (run / "steps").mkdir(parents=True)
    (run / "steps/clip-filter").symlink_to(artifact)
    log = EventLog(run / "events.jsonl")
    log.append(
        "run-started", steps=["clip-filter", "select-views"], skipped={"classify": "skipped: passes through its images"}
    )
    log.append("step-started", step="clip-filter", attempt=1)
    log.append("step-done", step="clip-filter", hit=False, summary="kept 18", key="k1")
    log.append("step-failed", step="select-views", message="No <b>images</b>.")
    log.append("run-failed", step="select-views")
    html = write_report(run, Volume(volume_root)).read_text()

    assert not re.findall(r'(?:src|href)="(?!data:)', html), "nothing is loaded from elsewhere"
    assert NASTY not in html
    assert "&lt;script&gt;" in html
    assert "<b>images</b>" not in html
    for text in (
        "kept 18",
        "not an image",
        "skipped: passes through its images",
        "0.4000",
        "Accepted",
        "Borderline",
        "Rejected",
        "failed",
    ):
        assert text in html
    assert html.count("data:image/jpeg;base64,") == 12 + 12 + 12
    assert html.count("<rect") == 40


def test_a_report_says_what_each_step_held_its_failed_attempts_too(volume_root: Path) -> None:
    run = volume_root / "runs/20260101-000000-demo-abcd"
    run.mkdir(parents=True)
    asked = {"gpus": 2, "cpus": 4.0, "memory": "8Gi"}
    events = [
        {"event": "run-started", "time": 0, "steps": ["sft", "merge-sft", "grpo"], "skipped": {}},
        {"event": "step-started", "time": 0, "step": "sft", "attempt": 1, "resources": asked},
        {"event": "step-running", "time": 7200, "step": "sft"},  # two hours in the queue hold nothing
        {"event": "attempt-failed", "time": 9000, "step": "sft", "message": "evicted"},
        {"event": "step-started", "time": 9000, "step": "sft", "attempt": 2, "resources": asked},
        {"event": "step-running", "time": 9000, "step": "sft"},
        {"event": "step-requeued", "time": 10000, "step": "sft"},  # others took its place
        {"event": "step-running", "time": 11000, "step": "sft"},
        {"event": "step-done", "time": 13600, "step": "sft", "hit": False, "key": "k"},
        {
            "event": "step-started",
            "time": 12600,
            "step": "merge-sft",
            "attempt": 1,
            "resources": {"cpus": 2, "memory": "1Gi"},
        },
        {"event": "step-running", "time": 12600, "step": "merge-sft"},
        {"event": "step-done", "time": 14400, "step": "merge-sft", "hit": False, "key": "k"},
        {"event": "step-done", "time": 14401, "step": "grpo", "hit": True, "key": "k"},
    ]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    html = write_report(run, Volume(volume_root)).read_text()
    assert "held 3 GPU-hours (2 GPUs), 6 core-hours, 12 GiB-hours" in html
    assert "held 1 core-hours, 0.5 GiB-hours" in html
    assert html.count("held ") == 2  # what was up to date cost nothing
    assert re.search(r"<b>3</b><span>GPU-hours held</span>", html)


def test_a_run_that_did_nothing_yet_has_a_report_too(volume_root: Path) -> None:
    run = volume_root / "runs/20260101-000000-demo-abcd"
    run.mkdir(parents=True)
    assert "not started" in write_report(run, Volume(volume_root)).read_text()


def test_training_shows_its_curves_merges_and_answers(volume_root: Path) -> None:
    run = volume_root / "runs/20260101-000000-demo-abcd"
    (run / "steps").mkdir(parents=True)
    log = EventLog(run / "events.jsonl")
    log.append("run-started", steps=["sft", "merge-sft", "grpo", "evaluate"], skipped={})
    for step, rows in (
        ("sft", [{"loss": 8.5}, {"loss": 3.25}, {"eval_loss": 3.5}]),
        ("grpo", [{"reward": 0.125, "reward_std": 0.1}, {"reward": 0.75, "reward_std": 0.2}]),
    ):
        training = volume_root / f"artifacts/{step}/k/training"
        training.mkdir(parents=True)
        lines = [json.dumps({**row, "global_step/max_steps": f"{number}/9"}) for number, row in enumerate(rows, 1)]
        (training / "logging.jsonl").write_text("\n".join([*lines, json.dumps({**rows[-1], "loss": 99}), "{half"]))
        (run / "steps" / step).symlink_to(training.parent)
    answers = {
        "step": ["1", "1"],
        "prompt": ["<|im_start|>user\n<image>Which shape?<|im_end|>"] * 2,
        "completion": ["krater", NASTY],
        "solution": ["krater"] * 2,
        "VaseAccuracy": [1.0, 0.0],
    }
    (volume_root / "artifacts/grpo/k/training/completions.jsonl").write_text(json.dumps(answers) + "\n{half")
    merge = volume_root / "artifacts/merge-sft/k"
    merge.mkdir(parents=True)
    (merge / "merge_report.json").write_text(
        '{"agreement": 0.995, "max_difference": 0.0001, "checkpoint": "checkpoint-9", "torch_dtype": "bfloat16"}'
    )
    (run / "steps/merge-sft").symlink_to(merge)
    evaluation = volume_root / "artifacts/evaluate/k"
    evaluation.mkdir(parents=True)
    measured = {
        "rewards": {"value": 0.4567, "interval": [0.4, 0.5]},
        "attributes": {},
        "captions": {"overall": {"value": None, "reason": "needs a model"}},
    }
    (evaluation / "evaluation.json").write_text(
        json.dumps({"samples": 7, "models": {"sft": measured}, "same": {"grpo": "sft"}})
    )
    (run / "steps/evaluate").symlink_to(evaluation)
    html = write_report(run, Volume(volume_root)).read_text()
    assert html.count("<polyline") == 3
    for text in ("0.457 [0.400, 0.500]", "not available: needs a model", "grpo is the same model as sft"):
        assert text in html
    for text in ("8.5 → 3.25", "0.125 → 0.75", "99.50%", "Which shape?", "VaseAccuracy 1.00", "&lt;script&gt;"):
        assert text in html
    assert NASTY not in html
