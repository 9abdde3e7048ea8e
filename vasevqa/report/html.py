"""One HTML file a run: summary, steps, quality histogram, contact sheets, quarantined files.

No network needed to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.artifacts.volume import Volume
from vasevqa.pipeline.events import EventLog
from vasevqa.pipeline.history import StepHistory, read_history
from vasevqa.report import quality, training
from vasevqa.report.costs import costs
from vasevqa.text import duration


def write_report(folder: Path, volume: Volume) -> Path:
    """Write `report.html` of the run in `folder` and return its path. Shows what there is, whatever the run's state."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vasevqa.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    target = folder / "report.html"
    files.write_text(target, environment.get_template("report.html.j2").render(content(folder)))
    return target


def content(folder: Path) -> dict[str, Any]:
    """Everything the template shows, from the event log and the artifacts that the run points to."""
    events = list(EventLog(folder / "events.jsonl").read())
    links = folder / "steps"
    artifacts = {entry.name: entry.resolve() for entry in links.iterdir() if entry.is_dir()} if links.is_dir() else {}
    history = read_history(events)
    steps = _steps(history, artifacts)
    ordered = {step["name"]: artifacts[step["name"]] for step in steps if step["name"] in artifacts}
    ends = [
        event["event"].removeprefix("run-")
        for event in events
        if event["event"] in ("run-finished", "run-failed", "run-cancelled", "run-started")
    ]
    times = [event["time"] for event in events]
    filtered = quality.read_json(ordered["clip-filter"] / "filtering_report.json") if "clip-filter" in ordered else {}
    rows, threshold = filtered.get("images", []), filtered.get("threshold")
    recipe = folder / "recipe.yaml"
    return {
        "run": folder.name,
        "name": "-".join(folder.name.split("-")[2:-1]) or folder.name,
        "state": {"started": "running or interrupted"}.get(ends[-1], ends[-1]) if ends else "not started",
        "took": f"{datetime.fromtimestamp(times[0], UTC):%Y-%m-%d %H:%M} UTC, {duration(times[-1] - times[0])}"
        if times
        else "",
        "tiles": _tiles(ordered, filtered, sum(cost.gpu_hours for cost in costs(history).values())),
        "steps": steps,
        "histogram": quality.histogram(rows, threshold) if threshold is not None else None,
        "threshold_source": filtered.get("threshold_source", ""),
        "sheets": quality.contact_sheets(ordered["clip-filter"], rows, threshold)
        if rows and threshold is not None
        else [],
        "quarantined": quality.quarantined(ordered),
        "curves": training.curves(ordered),
        "completions": training.completions(ordered),
        "merges": training.merges(ordered),
        "evaluation": training.evaluated(ordered),
        "recipe": recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
    }


LABELS = {"waiting": "not reached"}  # where the report's word is another than `status`'


def _steps(history: Mapping[str, StepHistory], artifacts: Mapping[str, Path]) -> list[dict[str, Any]]:
    spent = costs(history)
    first = min((step.began for step in history.values() if step.began), default=0.0)
    span = max([step.ended or 0 for step in history.values()] + [first + 1e-3]) - first
    shown = []
    for name, step in history.items():
        took = step.ended - step.began if step.began is not None and step.ended is not None else None
        record = quality.read_json(artifacts[name] / "artifact.json") if name in artifacts else {}
        attempts = f" ({step.attempt} attempts)" if step.attempt > 1 else ""
        shown.append(
            {
                "name": name,
                "state": "hit" if step.state == "up to date" else step.state,
                "label": LABELS.get(step.state, step.state) + attempts,
                "took": "" if took is None else duration(took),
                "left": 0 if took is None else round(100 * ((step.began or 0.0) - first) / span, 2),
                "width": None if took is None else round(100 * took / span, 2),
                "text": step.text or record.get("summary", ""),
                "speed": step.speed,
                "cost": spent[name].text() if name in spent else "",
            }
        )
    return shown


def _tiles(artifacts: dict[str, Path], filtered: dict[str, Any], gpu_hours: float) -> list[dict[str, str]]:
    tiles: list[dict[str, str]] = []

    def tile(value: Any, label: str) -> None:
        if value is not None:
            tiles.append({"value": f"{value:,}" if isinstance(value, int) else str(value), "label": label})

    if "train-classifier" in artifacts:
        accuracy = quality.read_json(artifacts["train-classifier"] / "training_results.json").get("accuracy")
        tile(f"{accuracy:.0%}" if accuracy is not None else None, "classifier accuracy")
    if "classify" in artifacts:
        report = quality.read_json(artifacts["classify"] / "classification_report.json")
        tile(report.get("images"), "photographs classified")
        tile(report.get("high"), "of high quality")
    if filtered:
        tile(sum(row["accepted"] for row in filtered.get("images", [])), "accepted by CLIP")
    if "select-views" in artifacts:
        stats = quality.read_json(artifacts["select-views"] / "filtering_stats.json")
        tile(stats.get("vases"), "vases with a best view")
        tile(stats.get("lost_vases"), "vases lost")
    tile(f"{gpu_hours:.2g}" if gpu_hours else None, "GPU-hours held")
    return tiles
