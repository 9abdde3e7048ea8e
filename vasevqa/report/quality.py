"""Report on the curation steps: score histogram, contact sheets and quarantined files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.curation.reports import FilteringReport, Recommendation, ScoredImage
from vasevqa.report.pictures import Picture, thumbnail

SHEET = 12  # pictures per contact sheet
BINS = 40
WIDTH, HEIGHT = 720, 180  # of the histogram, in SVG units


@dataclass(frozen=True)
class Sheet:
    """A row of pictures under one heading."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Bar:
    """One bin of the histogram, in SVG units. `label` gives the number of images in the bin."""

    x: float
    y: float
    width: float
    height: float
    label: str
    accepted: bool


@dataclass(frozen=True)
class Histogram:
    """Histogram of the scores of all images, with the threshold."""

    bars: tuple[Bar, ...]
    threshold_x: float
    threshold: float
    low: float
    high: float
    top: int  # images in the tallest bar
    marks: tuple[tuple[float, str], ...] = ()  # x and name of each recommended threshold
    width: int = WIDTH
    height: int = HEIGHT


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; {} if it is missing or invalid.

    If the value is not a mapping, return {"items": value}.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {"items": loaded}


def histogram(
    rows: Iterable[ScoredImage], threshold: float, recommended: Iterable[Recommendation] = ()
) -> Histogram | None:
    """Return the histogram of the rows' scores, with bins of equal width; None without rows."""
    scores = [row.score for row in rows]
    if not scores:
        return None
    low, high = min([*scores, threshold]), max([*scores, threshold])
    span = (high - low) or 1e-6
    counts = [0] * BINS
    for score in scores:
        counts[min(int((score - low) / span * BINS), BINS - 1)] += 1
    top = max(counts)
    step = WIDTH / BINS
    bars = tuple(
        Bar(
            round(index * step + 1, 1),
            round(HEIGHT - count / top * HEIGHT, 1),
            round(step - 2, 1),
            round(count / top * HEIGHT, 1),
            f"{count} images from {low + index * span / BINS:.4f} to {low + (index + 1) * span / BINS:.4f}",
            low + (index + 0.5) * span / BINS >= threshold,
        )
        for index, count in enumerate(counts)
    )
    marks = tuple(
        (round((one.threshold - low) / span * WIDTH, 1), one.name.replace("_", " "))
        for one in recommended
        if low <= one.threshold <= high
    )
    return Histogram(bars, round((threshold - low) / span * WIDTH, 1), threshold, low, high, top, marks)


@dataclass(frozen=True)
class Choice:
    """A recommended threshold, how many photographs it keeps, and how that differs from the run's threshold."""

    name: str
    threshold: float
    kept: int
    more: int
    setting: str


def choices(filtered: FilteringReport) -> list[Choice]:
    """Return the recommended thresholds with what they keep; [] without scores."""
    accepted = sum(row.accepted for row in filtered.images)
    found = []
    for one in filtered.recommendations:
        kept = sum(row.score >= one.threshold and not row.failed_check for row in filtered.images)
        setting = f"--set clip-filter.threshold={one.threshold:.4f}"
        found.append(Choice(one.name.replace("_", " "), one.threshold, kept, kept - accepted, setting))
    return found if filtered.images else []


def _sheet(title: str, note: str, folder: Path, rows: list[ScoredImage]) -> Sheet:
    pictures = []
    for row in rows:
        where = folder / ("accepted" if row.accepted else "rejected") / row.name
        uri = thumbnail(where)
        if uri is not None:
            pictures.append(Picture(row.name, f"{row.score:+.4f}", uri, row.accepted))
    return Sheet(title, note, tuple(pictures))


def contact_sheets(folder: Path, rows: list[ScoredImage], threshold: float) -> list[Sheet]:
    """Return the contact sheets of clip-filter: accepted, borderline and rejected images.

    The accepted images are chosen evenly over the range of scores. The borderline images are those nearest to the
    threshold. The rejected images are those with the lowest scores.
    """
    by_score = sorted(rows, key=lambda row: (row.score, row.name))
    accepted = [row for row in by_score if row.accepted][::-1]
    rejected = [row for row in by_score if not row.accepted and not row.failed_check]
    spread = accepted[:: max(1, len(accepted) // SHEET)][:SHEET]
    borderline = sorted(rows, key=lambda row: (abs(row.score - threshold), row.name))[:SHEET]
    borderline.sort(key=lambda row: -row.score)
    sheets = [
        _sheet("Accepted", f"{len(spread)} of {len(accepted)}, from the highest score down", folder, spread),
        _sheet("Borderline", "nearest to the threshold, on both sides", folder, borderline),
        _sheet(
            "Rejected",
            f"{min(SHEET, len(rejected))} of {len(rejected)}, the lowest scores first",
            folder,
            rejected[:SHEET],
        ),
    ]
    return [sheet for sheet in sheets if sheet.pictures]


def quarantined(artifacts: dict[str, Path]) -> list[dict[str, str]]:
    """Return every file that a step could not read, with the reason; each file appears once per step."""
    files: dict[str, dict[str, str]] = {}
    reports = (
        "training_results.json",
        "quarantined.json",
        "filtering_report.json",
        "best_views_report.json",
        "dataset_report.json",
    )
    for step, folder in artifacts.items():
        for report in reports:
            content = read_json(folder / report)
            listed = content.get("quarantined", content.get("items", []) if report == "quarantined.json" else [])
            for row in listed if isinstance(listed, list) else []:
                files.setdefault(f"{step}:{row['name']}", {"name": row["name"], "reason": row["reason"], "step": step})
    return list(files.values())
