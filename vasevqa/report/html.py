"""Writes the report of a run as one HTML file, which can be read without a network.

It shows a summary, the steps, the curation of images, the training, the merges and the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vasevqa import files
from vasevqa.artifacts.volume import Volume
from vasevqa.curation.reports import ClassificationReport, FilteringReport, TrainingResults, ViewStatistics
from vasevqa.pipeline.events import EventLog
from vasevqa.pipeline.history import StepHistory, read_history
from vasevqa.report import quality, training
from vasevqa.report.costs import costs
from vasevqa.text import duration


def write_report(folder: Path, volume: Volume) -> Path:
    """Write `report.html` of the run in `folder` and return its path.

    The run may be in any state: the report shows the results that exist.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vasevqa.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    target = folder / "report.html"
    files.write_text(target, environment.get_template("report.html.j2").render(content(folder)))
    return target


def content(folder: Path) -> dict[str, object]:
    """Return the values for the template, from the event log and the artifacts that the run points to."""
    events = list(EventLog(folder / "events.jsonl").read())
    links = folder / "steps"
    artifacts = {entry.name: entry.resolve() for entry in links.iterdir() if entry.is_dir()} if links.is_dir() else {}
    history = read_history(events)
    steps = _steps(history, artifacts)
    ordered = {step.name: artifacts[step.name] for step in steps if step.name in artifacts}
    ends = [
        event["event"].removeprefix("run-")
        for event in events
        if event["event"] in ("run-finished", "run-failed", "run-cancelled", "run-started")
    ]
    times = [event["time"] for event in events]
    filtered = FilteringReport.read(ordered["clip-filter"]) if "clip-filter" in ordered else None
    filtered = filtered or FilteringReport()
    rows, threshold = filtered.images, filtered.threshold
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
        "threshold_source": filtered.threshold_source,
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


LABELS = {"waiting": "not reached"}  # states that the report and `status` name differently


@dataclass(frozen=True)
class StepRow:
    """One row of the table of steps; `left` and `width` place its bar, in percent of the run's time."""

    name: str
    state: str
    label: str
    took: str
    left: float
    width: float | None
    text: str
    speed: str
    cost: str


def _steps(history: Mapping[str, StepHistory], artifacts: Mapping[str, Path]) -> list[StepRow]:
    spent = costs(history)
    first = min((step.began for step in history.values() if step.began), default=0.0)
    span = max([step.ended or 0 for step in history.values()] + [first + 1e-3]) - first
    shown = []
    for name, step in history.items():
        took = step.ended - step.began if step.began is not None and step.ended is not None else None
        record = quality.read_json(artifacts[name] / "artifact.json") if name in artifacts else {}
        attempts = f" ({step.attempt} attempts)" if step.attempt > 1 else ""
        shown.append(
            StepRow(
                name=name,
                state="hit" if step.state == "up to date" else step.state,
                label=LABELS.get(step.state, step.state) + attempts,
                took="" if took is None else duration(took),
                left=0 if took is None else round(100 * ((step.began or 0.0) - first) / span, 2),
                width=None if took is None else round(100 * took / span, 2),
                text=step.text or record.get("summary", ""),
                speed=step.speed,
                cost=spent[name].text() if name in spent else "",
            )
        )
    return shown


def _tiles(artifacts: Mapping[str, Path], filtered: FilteringReport, gpu_hours: float) -> list[dict[str, str]]:
    tiles: list[dict[str, str]] = []

    def tile(value: int | str | None, label: str) -> None:
        if value is not None:
            tiles.append({"value": f"{value:,}" if isinstance(value, int) else value, "label": label})

    if "train-classifier" in artifacts and (trained := TrainingResults.read(artifacts["train-classifier"])):
        tile(f"{trained.accuracy:.0%}" if trained.accuracy is not None else None, "classifier accuracy")
    if "classify" in artifacts and (classified := ClassificationReport.read(artifacts["classify"])):
        tile(classified.images, "photographs classified")
        tile(classified.high, "of high quality")
    if filtered.images:
        tile(sum(row.accepted for row in filtered.images), "accepted by CLIP")
    if "select-views" in artifacts and (views := ViewStatistics.read(artifacts["select-views"])):
        tile(views.vases, "vases with a best view")
        tile(views.lost_vases, "vases lost")
    tile(f"{gpu_hours:.2g}" if gpu_hours else None, "GPU-hours held")
    return tiles
