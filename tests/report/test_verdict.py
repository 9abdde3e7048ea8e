"""The report begins with a verdict: what the run came to, why it failed, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path

from tests.report.kit import BEGUN, FILTERED, NASTY, RUN, SFT, verdict_of


def test_a_failed_run_begins_with_the_reason_the_remedy_and_the_end_of_the_log(volume_root: Path) -> None:
    lines = verdict_of(volume_root, [BEGUN, FILTERED, *SFT])
    assert lines[:4] == [
        "The run failed at sft",
        "sft is out of <GPU> memory.",
        "Use a larger GPU, or lower max_pixels or max_length. Then run it again: finished steps are not repeated.",
        "1 of 2 steps are done.",
    ]
    log = lines.index("The last 40 lines of sft-1.log")
    assert lines[log + 1 : log + 41] == [*(f"line {number}" for number in range(60, 99)), NASTY]
    assert f"vasevqa logs {RUN} sft --volume {volume_root}" in "\n".join(lines)
    assert lines[-1].endswith(f"vasevqa run {volume_root}/runs/{RUN}/recipe.yaml --volume {volume_root}")


def test_a_failure_of_an_unknown_step_and_code_says_how_to_go_on(volume_root: Path) -> None:
    lines = verdict_of(volume_root, [BEGUN, {"event": "run-failed", "time": 1, "step": "sft", "exit_code": 75}])
    assert lines[:3] == [
        "The run failed at sft",
        "The log says why.",
        "Run it again: it resumes, and finished steps are not repeated.",
    ]


def test_the_verdict_on_an_interrupted_and_on_a_resumed_run(volume_root: Path) -> None:
    assert verdict_of(volume_root, [BEGUN, FILTERED])[:2] == ["The run was interrupted", "1 of 2 steps are done."]
    resumed = verdict_of(volume_root, [BEGUN, FILTERED, *SFT, {**BEGUN, "time": 100}])
    assert resumed[0] == "The run was interrupted"
    assert "out of" not in " ".join(resumed)
    cancelled = verdict_of(volume_root, [BEGUN, {"event": "run-cancelled", "time": 9}], backend="docker")
    assert cancelled[0] == "The run was cancelled"
    assert cancelled[-1].endswith("--backend docker")


def test_the_verdict_on_a_finished_run_names_photographs_vases_and_the_paired_difference(volume_root: Path) -> None:
    rows = [{"name": f"{number}.jpg", "score": number, "accepted": number > 1} for number in range(5)]
    views = {
        "vases": [{"vase": "a", "best": "2.jpg"}, {"vase": "b", "best": "4.jpg"}],
        "lost": [{"vase": "c", "lost_at": "clip-filter", "best": "1.jpg", "score": 1.0}],
    }
    sentence = "sft - base = +0.867 [+0.815, +0.919]: better, shown with 60 vases"
    pair = {"model": "sft", "other": "base", "attribute": "", "sentence": sentence, "shown": True}
    for step, file, written in (
        ("clip-filter", "filtering_report.json", {"images": rows, "quarantined": [{"name": "x", "reason": "empty"}]}),
        ("select-views", "best_views_report.json", views),
        ("evaluate", "evaluation.json", {"samples": 9, "models": {"base": {}, "sft": {}}, "pairs": [pair]}),
        ("merge-sft", "merge_report.json", {}),
    ):
        artifact = volume_root / "artifacts" / step / "k"
        artifact.mkdir(parents=True)
        (artifact / file).write_text(json.dumps(written))
        links = volume_root / "runs" / RUN / "steps"
        links.mkdir(parents=True, exist_ok=True)
        (links / step).symlink_to(artifact)
    steps = ["clip-filter", "select-views", "merge-sft", "evaluate"]
    done = [{"event": "step-done", "time": 9, "step": step, "hit": step == "clip-filter", "key": "k"} for step in steps]
    events = [{**BEGUN, "steps": steps}, *done, {"event": "run-finished", "time": 9}]
    lines = verdict_of(volume_root, events)
    assert lines[:4] == [
        "The run is done",
        "All 4 steps are done; 1 of them was up to date.",
        "Of 6 photographs, 3 were accepted; they show 2 vases, and 1 was lost.",
        f"Reward on held-out rows: {sentence}.",
    ]
    assert f"cp -rL {volume_root}/runs/{RUN}/steps/merge-sft model" in lines[5]
    in_cluster = verdict_of(volume_root, events, backend="kubernetes")
    assert f"vasevqa download {RUN} steps/merge-sft model --cluster cluster.yaml" in in_cluster[5]
