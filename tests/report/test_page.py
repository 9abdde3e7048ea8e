"""The report is one file: it loads nothing, escapes everything, and has its sections in order."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

from tests import pictures
from tests.report.kit import BEGUN, CURATED, FILTERED, NASTY, RUN, SFT, curated, section, seen, verdict_of
from vasevqa.artifacts.volume import Volume
from vasevqa.pipeline.events import EventLog
from vasevqa.report.html import script_digest, write_report


def test_the_report_of_a_run_is_one_file(volume_root: Path) -> None:
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

    assert not re.findall(r'(?:src|href)="(?!data:|#)', html), "the report loads a file from elsewhere"
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
    assert section(html, "threshold").count("data:image/jpeg;base64,") == 12 + 30 + 12
    assert section(html, "funnel").count("data:image/jpeg;base64,") == 12  # all rejected images
    assert html.count("<rect") == 40


def test_a_run_without_any_step_has_a_report(volume_root: Path) -> None:
    run = volume_root / "runs/20260101-000000-demo-abcd"
    run.mkdir(parents=True)
    assert "The run has not started" in write_report(run, Volume(volume_root)).read_text()


def test_the_page_allows_only_its_own_script_and_loads_nothing(volume_root: Path) -> None:
    verdict_of(volume_root, [BEGUN, FILTERED, *SFT])
    html = (volume_root / "runs" / RUN / "report.html").read_text()
    policy = html.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src '{script_digest(scripts[0])}'",
    ]
    assert not re.search(r"https?://|@import|url\(", html)


def test_the_sections_come_in_the_order_in_which_a_reader_asks(volume_root: Path) -> None:
    run = curated(
        volume_root,
        CURATED
        | {
            "sft/training/logging.jsonl": {},
            "evaluate/evaluation.json": {"samples": 2, "models": {"sft": {"rewards": {"value": 1.0}}}},
        },
    )
    lines = [{"loss": loss, "global_step/max_steps": f"{step}/2"} for step, loss in ((1, 3.0), (2, 2.0))]
    (volume_root / "artifacts/sft/k/training/logging.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (run / "recipe.yaml").write_text("name: <demo>\n")
    (volume_root / "artifacts/sft/k/artifact.json").write_text('{"key": "k"}')
    unread = {"quarantined": [{"name": NASTY, "reason": "cut off"}]}
    (volume_root / "artifacts/classify/k/quarantined.json").write_text(json.dumps(unread))
    html = write_report(run, Volume(volume_root)).read_text()
    assert re.findall(r'<(?:section|h2)[^>]*\bid="([a-z]+)"', html) == [
        "verdict",
        "headline",
        "funnel",
        "views",
        "threshold",
        "dataset",
        "training",
        "evaluation",
        "steps",
        "files",
        "provenance",
        "recipe",
    ]
    assert "name: &lt;demo&gt;" in section(html, "recipe")
    links = re.findall(r'<a href="#([a-z]+)">', html)
    assert links == re.findall(r'<h2 id="([a-z]+)"', html)[1:]  # all sections after the verdict


def test_the_provenance_names_key_host_image_seed_and_packages(volume_root: Path) -> None:
    full = {
        "key": "ab12",
        "stage": "merge",
        "stage_version": 3,
        "run": "<run>",
        "host": "node-7",
        "seed": 0,
        "image": "x@sha256:1",
        "versions": {"torch": "2.6.0", "peft": "0.15"},
    }
    run = curated(
        volume_root,
        {
            "merge-sft/artifact.json": full,
            "merge-grpo/artifact.json": full,
            "sft/artifact.json": {"key": "c"},
            "grpo/artifact.json": {},
        },
    )
    shown = section(write_report(run, Volume(volume_root)).read_text(), "provenance")
    assert seen(shown, "td")[:7] == ["merge-sft", "merge 3", "ab12", "<run>", "node-7", "0", "x@sha256:1"]
    assert seen(shown, "td")[-7:] == ["sft", "", "c", "", "", "", ""]
    assert seen(shown, "p") == ["merge-sft, merge-grpo: torch 2.6.0, peft 0.15."]


def test_each_file_of_an_artifact_is_read_once_for_a_report(volume_root: Path) -> None:
    evaluation = {"samples": 2, "models": {"sft": {"rewards": {"value": 1.0}}}}
    reports = CURATED | {"sft/training_summary.json": {}, "evaluate/evaluation.json": evaluation}
    run = curated(volume_root, reports)
    for name in reports:
        (volume_root / "artifacts" / name.partition("/")[0] / "k/artifact.json").write_text('{"key": "k"}')
    table = "path,probability,class\nb_0.jpg,0.5,0\na_0.jpg,0.9,1\n"
    (volume_root / "artifacts/classify/k/predictions.csv").write_text(table)
    opened: list[str] = []
    watched = [f"{volume_root}/artifacts/", str(run / "events.jsonl")]

    def see(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and watched and str(arguments[0]).startswith(tuple(watched)):
            opened.append(str(arguments[0]))

    sys.addaudithook(see)
    html = write_report(run, Volume(volume_root)).read_text()
    watched.clear()  # a hook can't be removed
    assert len(opened) > len(reports)
    assert [path for path, count in Counter(opened).items() if count > 1] == []
    assert "b_0.jpg" in html


def test_each_lost_vase_is_listed_once_with_or_without_its_picture(volume_root: Path) -> None:
    lost = [{"vase": f"v{number:03}", "lost_at": "classify", "best": "x.jpg", "score": 0.5} for number in range(100)]
    views = {"vases": [{"vase": "a", "best": "a.jpg"}], "lost": lost}
    html = write_report(curated(volume_root, {"select-views/best_views_report.json": views}), Volume(volume_root))
    names = re.findall(r"\bv\d{3}\b", html.read_text())
    assert sorted(names) == [f"v{number:03}" for number in range(100)]


def test_files_that_were_not_read_are_listed_with_the_reason_and_the_step(volume_root: Path) -> None:
    passed = [{"reason": "hidden", "count": 1200, "names": [".a", ".b", ".c", ".d"]}]
    classified = {"images": 7, "quarantined": [{"name": "cut.jpg", "reason": "cut <off>"}]}
    run = curated(
        volume_root,
        {
            "classify/classification_report.json": classified,
            "clip-filter/filtering_report.json": {"passed_over": passed},
        },
    )
    shown = section(write_report(run, Volume(volume_root)).read_text(), "files")
    assert seen(shown, "td") == ["cut.jpg", "cut <off>", "classify", "hidden", "1,200", ".a, .b, .c", "clip-filter"]
    assert seen(shown, "p")[0].startswith("Files: 1. ")
