"""The report begins with a verdict: what the run came to, why it failed, and what to do next."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.report.kit import BEGUN, FILTERED, NASTY, RUN, SFT, curated, seen, verdict_of
from vasevqa.artifacts.volume import Volume
from vasevqa.curation.reports import FilteringReport
from vasevqa.report.html import write_report, write_with_verdict
from vasevqa.report.quality import choices


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


def exact(one: float, two: float) -> dict[str, object]:
    """Return the evaluation of a model that was asked 3 questions about shape and 6 about technique."""
    shares = {"shape": (one, 3), "technique": (two, 6)}
    return {
        "attributes": {name: {"exact": {"value": value, "samples": count}} for name, (value, count) in shares.items()}
    }


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
        (
            "evaluate",
            "evaluation.json",
            {
                "samples": 9,
                "models": {"base": exact(0.0, 0.1), "sft": exact(0.5, 0.8)},
                "baselines": {"majority": exact(0.2, 0.2), "sft without picture": exact(0.25, 0.25)},
                "pairs": [pair],
            },
        ),
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
    assert lines[:5] == [
        "The run is done",
        "All 4 steps are done; 1 of them was up to date.",
        "Of 6 photographs, 3 were accepted; they show 2 vases, and 1 was lost.",
        "Exact answers to held-out questions: base 7%, sft 70%, sft without picture 25%.",
        f"Reward on held-out rows: {sentence}.",
    ]
    assert f"cp -rL {volume_root}/runs/{RUN}/steps/merge-sft model" in lines[6]
    _, verdict = write_with_verdict(volume_root / "runs" / RUN, Volume(volume_root))
    assert [*verdict.lines()] == [
        *lines[1:5],
        f"Copy the model: cp -rL {volume_root}/runs/{RUN}/steps/merge-sft model",
    ]
    in_cluster = verdict_of(volume_root, events, backend="kubernetes")
    assert f"vasevqa download {RUN} steps/merge-sft model --cluster cluster.yaml" in in_cluster[6]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({}, None),  # no recommendations, as in older reports
        (
            {"between": 0.625},
            "Try a different threshold (between the two groups), which keeps 3 photographs instead of 8",
        ),
        (
            {"recommendations": [("conservative", 0.125), ("balanced", 0.5), ("strict", 0.75)]},
            "Try a different threshold (balanced), which keeps 5 photographs instead of 8",
        ),
        ({"recommendations": [("moderate", 0.2), ("none", 2.0)]}, None),  # the same photographs, and none at all
    ],
)
def test_another_threshold_comes_from_the_scores_and_changes_something(
    report: dict[str, object], expected: str | None, volume_root: Path
) -> None:
    scores = [0.0, 0.1, 0.25, 0.3, 0.4, 0.50004, 0.55, 0.7, 0.8, 0.9]
    images = [{"name": f"{score}.jpg", "score": score, "accepted": score >= 0.2} for score in scores]
    advice = report.get("recommendations", [])
    assert isinstance(advice, list)
    told = [{"name": name, "percentile": 0, "threshold": threshold, "keeps": 0} for name, threshold in advice]
    run = curated(
        volume_root,
        {
            "clip-filter/filtering_report.json": {
                "images": images, "threshold": 0.2, "between": report.get("between"), "recommendations": told,
            }
        },
    )  # fmt: skip
    with (run / "events.jsonl").open("a") as stream:
        stream.write(json.dumps({"event": "run-finished", "time": 9}) + "\n")
    shown = write_report(run, Volume(volume_root)).read_text().split('id="verdict"')[1].split("</section>")[0]
    found = [purpose for purpose in seen(shown, "dt") if "threshold" in purpose]
    assert found == ([expected] if expected else [])
    settings = re.findall(r"clip-filter.threshold=\S+", " ".join(seen(shown, "code")))
    assert settings == [f"clip-filter.threshold={0.625 if 'between' in report else 0.5:.4f}" for _ in found]


def test_a_recommended_threshold_keeps_what_its_setting_keeps() -> None:
    images = [{"name": "a", "score": 0.12344, "accepted": True}, {"name": "b", "score": 0.12346, "accepted": True}]
    advice = [{"name": "x", "percentile": 50, "threshold": 0.12346, "keeps": 0.5}]
    report = FilteringReport.model_validate({"images": images, "recommendations": advice})
    assert [(one.setting, one.kept) for one in choices(report)] == [("--set clip-filter.threshold=0.1235", 0)]


def test_a_skipped_evaluation_is_not_promised(volume_root: Path) -> None:
    begun = {**BEGUN, "steps": ["clip-filter"], "skipped": {"evaluate": "skip"}}
    assert "The recipe evaluates no model." in verdict_of(volume_root, [begun, FILTERED])
    assert "The models are not evaluated yet." in verdict_of(volume_root, [{**BEGUN, "steps": ["evaluate"]}])


@pytest.mark.parametrize(
    ("trainings", "seed", "expected"),
    [(("sft", "grpo"), 42, "sft.seed=1"), (("sft",), 1, "sft.seed=2"), (("grpo",), 1, "grpo.seed=2"), ((), 0, None)],
)
def test_another_seed_is_one_that_the_run_did_not_use(
    trainings: tuple[str, ...], seed: int, expected: str | None, volume_root: Path
) -> None:
    record = {"key": "k", "seed": seed}
    run = curated(volume_root, {f"{step}/artifact.json": record for step in (*trainings, "merge-sft")})
    with (run / "events.jsonl").open("a") as stream:
        stream.write(json.dumps({"event": "run-finished", "time": 9}) + "\n")
    html = write_report(run, Volume(volume_root)).read_text()
    assert re.findall(r"--set (\S+seed=\d+)", html) == ([expected] if expected else [])
