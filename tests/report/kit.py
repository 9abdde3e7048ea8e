"""A finished run with small artifacts, and what a reader sees of its report."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

from torch import Tensor

from vasevqa.artifacts.volume import Volume
from vasevqa.curation import embeddings
from vasevqa.report.html import write_report

NASTY = "<script>alert(1)</script>.jpg"

RUN = "20260101-000000-demo-abcd"

BEGUN = {"event": "run-started", "time": 0, "steps": ["clip-filter", "sft"], "skipped": {}}

LOG = "\n".join(['{"event": "progress", "time": 1}', *(f"line {number}" for number in range(99)), NASTY])

FILTERED = {"event": "step-done", "time": 60, "step": "clip-filter", "hit": False, "key": "k"}

SFT = [
    {"event": "step-started", "time": 60, "step": "sft", "attempt": 1},
    {"event": "step-failed", "time": 90, "step": "sft", "message": "sft is out of <GPU> memory.", "exit_code": 4,
     "log": "/elsewhere/runs/x/logs/sft-1.log"},
    {"event": "run-failed", "time": 90, "step": "sft", "message": "sft is out of <GPU> memory.", "exit_code": 4},
]  # fmt: skip

CURATED: dict[str, dict[str, object]] = {
    "classify/classification_report.json": {
        "images": 7,
        "high": 5,
        "low": 2,
        "confidence_threshold": 0.6,
        "quarantined": [{"name": NASTY, "reason": "cut off"}],
    },
    "clip-filter/filtering_report.json": {
        "threshold": 0.2,
        "images": [
            {"name": f"a_{view}.jpg", "score": view / 10, "accepted": view >= 2, "decided_by": "a <sherd>"}
            for view in range(5)
        ],
    },
    "select-views/best_views_report.json": {
        "vases": [
            {
                "vase": "a",
                "best": "a_4.jpg",
                "similarity": 0.9,
                "views": [{"name": f"a_{view}.jpg", "view": "", "similarity": 0.5 + view / 10} for view in (4, 3, 2)],
            }
        ],
        "lost": [{"vase": "b", "lost_at": "classify", "best": "b_0.jpg", "score": 0.5}],
    },
    "build-dataset/dataset_report.json": {
        "rows": {"sft": 6, "val": 1, "grpo": 6, "eval": 2},
        "problems": {"empty row": 300},
        "problem_list": {"empty row": [{"where": "row 7", "what": "it has neither"}]},
    },
}


def section(html: str, name: str) -> str:
    """Return the section with this id, up to the next heading of its level."""
    return html.split(f'id="{name}"')[1].split("<h2", maxsplit=1)[0]


def seen(html: str, tag: str) -> list[str]:
    """Return the texts of all elements of this name, as a reader sees them."""
    found = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, flags=re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", one)).split()) for one in found]


def verdict_of(volume_root: Path, events: list[dict[str, object]], **place: str) -> list[str]:
    """Return what a reader sees of the verdict, line by line."""
    run = volume_root / "runs" / RUN
    (run / "logs").mkdir(parents=True, exist_ok=True)
    (run / "logs/sft-1.log").write_text(LOG)
    (run / "place.json").write_text(json.dumps(place))
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    html = write_report(run, Volume(volume_root)).read_text()
    shown = re.sub(r"<[^>]+>", "", html.split('id="verdict"')[1].split("</section>")[0].partition(">")[2])
    return [unescape(line) for line in shown.splitlines() if line.strip()]


def curated(volume_root: Path, reports: dict[str, dict[str, object]]) -> Path:
    """Make a finished run with these reports, and return its folder."""
    run = volume_root / "runs" / RUN
    (run / "steps").mkdir(parents=True)
    events: list[dict[str, object]] = [{**BEGUN, "steps": [name.partition("/")[0] for name in reports]}]
    for name, report in reports.items():
        step, _, file = name.partition("/")
        artifact = volume_root / "artifacts" / step / "k"
        (artifact / file).parent.mkdir(parents=True)
        (artifact / file).write_text(json.dumps(report))
        (run / "steps" / step).symlink_to(artifact)
        events.append({"event": "step-done", "time": 9, "step": step, "hit": False, "key": "k"})
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return run


def embedded(writing: embeddings.Writer, names: list[str], features: Tensor) -> None:
    """Write clip-filter's embeddings (N, D) of photographs."""
    embeddings.save(writing, embeddings.FILE, names, [embeddings.Row("", feature) for feature in features], {})
