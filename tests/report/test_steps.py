"""The report shows the time and the resources of each step."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.report.kit import BEGUN, RUN, SFT, curated, section, seen, verdict_of
from vasevqa.artifacts.volume import Volume
from vasevqa.report.html import write_report


def steps_of(volume_root: Path, events: list[dict[str, object]]) -> dict[str, list[tuple[str, float, float]]]:
    """Return the bars of each step: kind, left and width in percent."""
    verdict_of(volume_root, events)
    shown = section((volume_root / "runs" / RUN / "report.html").read_text(), "steps")
    rows = re.findall(r'<p class="name"><b>(.*?)</b>.*?<div class="track">(.*?)</div>', shown, flags=re.DOTALL)
    bar = re.compile(r'class="([a-z-]+)" style="left: ([\d.]+)%; width: ([\d.]+)%"')
    return {name: [(kind, float(left), float(width)) for kind, left, width in bar.findall(row)] for name, row in rows}


def test_a_report_shows_the_resources_of_each_step_and_of_failed_attempts(volume_root: Path) -> None:
    run = volume_root / "runs/20260101-000000-demo-abcd"
    run.mkdir(parents=True)
    asked = {"gpus": 2, "cpus": 4.0, "memory": "8Gi"}
    events = [
        {"event": "run-started", "time": 0, "steps": ["sft", "merge-sft", "grpo"], "skipped": {}},
        {"event": "step-started", "time": 0, "step": "sft", "attempt": 1, "resources": asked},
        {"event": "step-running", "time": 7200, "step": "sft"},  # two hours in the queue use no resources
        {"event": "attempt-failed", "time": 9000, "step": "sft", "message": "evicted"},
        {"event": "step-started", "time": 9000, "step": "sft", "attempt": 2, "resources": asked},
        {"event": "step-running", "time": 9000, "step": "sft"},
        {"event": "step-requeued", "time": 10000, "step": "sft"},  # another job preempted it
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
    assert "used 3 GPU-hours (2 GPUs), 6 core-hours, 12 GiB-hours" in html
    assert "used 1 core-hours, 0.5 GiB-hours" in html
    assert len(re.findall(r"used \d", html)) == 2  # an artifact that was up to date used no resources
    assert re.search(r"<b>3</b><span>GPU-hours used</span>", html)


def test_the_timeline_shows_waiting_running_failed_attempts_and_retries(volume_root: Path) -> None:
    def event(kind: str, time: float, step: str, **fields: object) -> dict[str, object]:
        return {"event": kind, "time": time, "step": step, **fields}

    events = [
        BEGUN,
        event("step-started", 0, "clip-filter", attempt=1),
        event("step-running", 10, "clip-filter"),
        event("step-done", 20, "clip-filter", hit=False),
        event("step-started", 20, "sft", attempt=1),
        event("step-waiting", 21, "sft", message="no free GPU"),
        event("step-running", 40, "sft"),
        event("attempt-failed", 60, "sft", attempt=1, message="evicted <now>", retry=True),
        event("step-started", 60, "sft", attempt=2),
        event("step-running", 70, "sft"),
        event("stage-progress", 80, "sft"),  # the launcher ended here, and a day later another one went on
        event("step-started", 86480, "sft", attempt=3),
        event("step-running", 86490, "sft"),
        event("step-done", 86500, "sft", hit=False),
        {"event": "run-finished", "time": 86500},
    ]
    assert steps_of(volume_root, events) == {
        "clip-filter": [("starting", 0, 10), ("running", 10, 10)],
        "sft": [
            ("waiting", 20, 20),
            ("failed-attempt", 40, 20),
            ("starting", 60, 10),
            ("running", 70, 10),
            ("starting", 80, 10),
            ("running", 90, 10),
        ],
    }
    shown = section((volume_root / "runs" / RUN / "report.html").read_text(), "steps")
    assert "Attempt 1 failed and was tried again: evicted &lt;now&gt;" in shown
    assert re.findall(r'<p class="took">(.*?)</p>', shown) == ["20 s", "1:20"]
    page = (volume_root / "runs" / RUN / "report.html").read_text()
    assert "1970-01-01 00:00 UTC, 24:01:40, of which steps were active for 1:40" in page
    assert "Pauses of 24:00:00, in which no step was active, are left out." in shown
    assert seen(shown, "span")[-5:] == ["0 s", "25 s", "50 s", "1:15", "1:40"]


def test_a_step_that_failed_is_marked_on_the_timeline_and_one_never_reached_has_no_bar(volume_root: Path) -> None:
    bars = steps_of(volume_root, [{**BEGUN, "steps": ["sft", "grpo"]}, *SFT])
    assert bars == {"sft": [("failed-attempt", 0, 100)], "grpo": []}


def test_many_hours_are_written_out(volume_root: Path) -> None:
    asked = {"gpus": 8, "cpus": 4, "memory": "1Gi"}
    events = [
        {**BEGUN, "steps": ["sft"]},
        {"event": "step-started", "time": 0, "step": "sft", "attempt": 1, "resources": asked},
        {"event": "step-running", "time": 0, "step": "sft"},
        {"event": "step-done", "time": 3600 * 200, "step": "sft", "hit": False, "key": "k"},
    ]
    steps_of(volume_root, events)
    html = (volume_root / "runs" / RUN / "report.html").read_text()
    assert "used 1,600 GPU-hours (8 GPUs), 800 core-hours, 200 GiB-hours" in html
    assert "<b>1,600</b><span>GPU-hours used</span>" in html


def test_an_attempt_whose_launcher_ended_costs_what_it_used_up_to_its_last_event(volume_root: Path) -> None:
    def event(kind: str, time: int, **fields: object) -> dict[str, object]:
        return {"event": kind, "time": time, "step": "sft", "resources": {"cpus": 1, "memory": "1Gi"}, **fields}

    events = [
        {**BEGUN, "steps": ["sft"]},
        event("step-started", 0, attempt=1),
        event("step-running", 0),
        event("stage-progress", 3600),  # the launcher and the attempt ended some time after this event
        event("step-started", 36000, attempt=2),
        event("step-running", 36000),
        event("stage-progress", 43200),
    ]
    steps_of(volume_root, events)
    html = (volume_root / "runs" / RUN / "report.html").read_text()
    assert "used 3 core-hours, 3 GiB-hours" in html
    steps_of(volume_root, [*events, event("step-done", 46800, hit=False, key="k")])
    html = (volume_root / "runs" / RUN / "report.html").read_text()
    assert "used 4 core-hours, 4 GiB-hours" in html


def test_what_a_step_used_stands_beside_what_it_asked_for(volume_root: Path) -> None:
    run = curated(volume_root, {"sft/artifact.json": {"key": "k"}, "grpo/artifact.json": {"key": "k"}})

    def event(kind: str, time: int, step: str, **fields: object) -> dict[str, object]:
        return {"event": kind, "time": time, "step": step, **fields}

    asked = {"cpus": 4, "memory": "16Gi", "gpus": 1}
    events = [
        {**BEGUN, "steps": ["sft", "grpo", "evaluate"]},
        event("step-started", 0, "sft", attempt=1, resources=asked, device="cuda"),
        event("step-running", 0, "sft"),
        event("step-done", 3600, "sft", hit=False, key="k"),
        event("step-started", 3600, "grpo", attempt=1, resources=asked, device="auto"),
        event("step-running", 3600, "grpo"),
        event("step-done", 7200, "grpo", hit=False, key="k"),
        event("step-started", 7200, "evaluate", attempt=1, resources=asked, device="cpu"),
        event("step-running", 7200, "evaluate"),
        event("step-done", 10800, "evaluate", hit=False, key="k"),
    ]
    (run / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    used = {"seconds": 3600, "cpu_seconds": 9000, "memory": 3 << 30}
    for step, gpu in (("sft", {"gpu_memory": 5 << 30, "gpu": True}), ("grpo", {"gpu_memory": None, "gpu": False})):
        record = {"key": "k", "usage": {**used, **gpu}}
        (volume_root / "artifacts" / step / "k/artifact.json").write_text(json.dumps(record))
    html = write_report(run, Volume(volume_root)).read_text()
    table = html.split('id="used"')[1].split("</table>")[0]
    assert [seen(row, "td") for row in re.findall(r"<tr>(?!<th)(.*?)</tr>", table, re.DOTALL)] == [
        ["sft", "1:00:00", "2.5", "4", "3 GiB", "16Gi", "5 GiB", "1", "1"],
        ["grpo", "1:00:00", "2.5", "4", "3 GiB", "16Gi", "", "1", ""],  # the machine showed it no GPU
        ["evaluate", "", "", "4", "", "16Gi", "", "0", ""],  # on a CPU, whatever the recipe asks for
    ]
    assert re.findall(r"<b>([\d.]+)</b><span>GPU-hours used</span>", html) == ["1"]
