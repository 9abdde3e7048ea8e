"""Report on the curation steps: score histogram, contact sheets and quarantined files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.curation.reports import ScoredImage

SHEET = 12  # thumbnails a contact sheet
THUMBNAIL = 112  # pixels, the longer side
BINS = 40
WIDTH, HEIGHT = 720, 180  # of the histogram, in SVG units


@dataclass(frozen=True)
class Thumbnail:
    """One image of a contact sheet, as a data URI, so that the report is a single file."""

    name: str
    caption: str
    uri: str
    accepted: bool = True


@dataclass(frozen=True)
class Sheet:
    """A row of thumbnails under one heading."""

    title: str
    note: str
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Bar:
    """One bin of the histogram, in SVG units; `label` says how many images it holds."""

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
    width: int = WIDTH
    height: int = HEIGHT


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; {} if it is missing or invalid.

    A value that is no mapping is returned as {"items": value}.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {"items": loaded}


def histogram(rows: Iterable[ScoredImage], threshold: float) -> Histogram | None:
    """The distribution of the rows' scores in equal bins; None without rows."""
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
    return Histogram(bars, round((threshold - low) / span * WIDTH, 1), threshold, low, high)


def thumbnail(path: Path) -> str | None:
    """Return the image as a data URI with a JPEG of at most THUMBNAIL pixels per side; None if it can't be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.draft("RGB", (THUMBNAIL, THUMBNAIL))
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
    except (OSError, ValueError, SyntaxError):
        return None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sheet(title: str, note: str, folder: Path, rows: list[ScoredImage]) -> Sheet:
    thumbnails = []
    for row in rows:
        where = folder / ("accepted" if row.accepted else "rejected") / row.name
        uri = thumbnail(where)
        if uri is not None:
            thumbnails.append(Thumbnail(row.name, f"{row.score:+.4f}", uri, row.accepted))
    return Sheet(title, note, tuple(thumbnails))


def contact_sheets(folder: Path, rows: list[ScoredImage], threshold: float) -> list[Sheet]:
    """Accepted (evenly over the scores), borderline (nearest to the threshold) and rejected (lowest first) images of
    clip-filter.
    """
    by_score = sorted(rows, key=lambda row: (row.score, row.name))
    accepted = [row for row in by_score if row.accepted][::-1]
    rejected = [row for row in by_score if not row.accepted]
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
    return [sheet for sheet in sheets if sheet.thumbnails]


def quarantined(artifacts: dict[str, Path]) -> list[dict[str, str]]:
    """Return every file that a step could not read, with the reason; each file once per step."""
    found: dict[str, dict[str, str]] = {}
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
                found.setdefault(f"{step}:{row['name']}", {"name": row["name"], "reason": row["reason"], "step": step})
    return list(found.values())
