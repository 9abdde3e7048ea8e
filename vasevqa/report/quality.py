"""Report on the curation steps: score histogram, contact sheets and quarantined files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.curation.reports import FilteringReport, Recommendation, ScoredImage
from vasevqa.report.charts import ticks
from vasevqa.report.pictures import Picture
from vasevqa.report.sources import Sources

SHEET = 12  # pictures per contact sheet
BORDERLINE = 48  # pictures near the threshold; those that change sides show while the reader tries thresholds
BINS = 40
WIDTH, HEIGHT = 720, 180  # size of the histogram in SVG units
LOWEST = 1.0  # minimum height of a bar that isn't empty, so that a bar for few images is visible


@dataclass(frozen=True)
class Sheet:
    """A row of pictures under one heading."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Bar:
    """One bar of the histogram, in SVG units.

    `label` is a text with the number of images in the bar, and with the lowest and the highest score of the bar.
    `middle` is the score in the middle between these two.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    accepted: bool
    middle: float


@dataclass(frozen=True)
class Mark:
    """A recommended threshold on the histogram.

    `x` is the threshold's position in SVG units, and `number` is its number in the table of thresholds.
    """

    x: float
    number: int
    name: str


@dataclass(frozen=True)
class Histogram:
    """Histogram of the scores of all images, with the threshold.

    `across` and `up` are the axes: positions in percent of the width and the height, with labels.
    """

    bars: tuple[Bar, ...]
    threshold_x: float
    threshold: float
    low: float
    high: float
    top: int  # images in the tallest bar
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    marks: tuple[Mark, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT

    def at(self, score: float) -> float:
        """Return the x of a score in SVG units."""
        return round((score - self.low) / ((self.high - self.low) or 1e-6) * self.width, 1)


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; {} if the file is missing or invalid.

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
    """Return the histogram of the rows' scores, with bins of equal width; None if there are no rows."""
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
    heights = [max(LOWEST, round(count / top * HEIGHT, 1)) if count else 0.0 for count in counts]
    bars = tuple(
        Bar(
            round(index * step + 1, 1),
            round(HEIGHT - heights[index], 1),
            round(step - 2, 1),
            heights[index],
            f"{count:,} image{'s' if count != 1 else ''}"
            f" from {low + index * span / BINS:.4f} to {low + (index + 1) * span / BINS:.4f}",
            low + (index + 0.5) * span / BINS >= threshold,
            low + (index + 0.5) * span / BINS,
        )
        for index, count in enumerate(counts)
    )
    marks = tuple(
        Mark(round((one.threshold - low) / span * WIDTH, 1), number, one.name.replace("_", " "))
        for number, one in enumerate(recommended, 1)
        if low <= one.threshold <= high
    )
    across = tuple(
        (round(100 * (at - low) / span, 2), f"{at:g}") for at in map(_even, ticks(low, high, 6)) if low <= at <= high
    )
    up = tuple((round(100 * at / top, 2), f"{at:,.0f}") for at in ticks(0, top, 3) if at <= top and at == round(at))
    return Histogram(bars, round((threshold - low) / span * WIDTH, 1), threshold, low, high, top, across, up, marks)


def _even(value: float) -> float:
    """Return a value rounded to 10 significant digits.

    `ticks` multiplies to get its values, so a value may be 0.30000000000000004. It becomes 0.3 here.
    """
    return float(f"{value:.10g}")


@dataclass(frozen=True)
class Choice:
    """A threshold that the run could use instead of its own.

    `kept` is the number of photographs that the threshold keeps. `more` is `kept` minus the number of photographs that
    the run's own threshold keeps. `setting` is the command-line option that sets the threshold.
    """

    name: str
    threshold: float
    kept: int
    more: int
    setting: str


def choices(filtered: FilteringReport) -> list[Choice]:
    """Return the recommended thresholds with the number of photographs that each keeps; [] without scores."""
    if not filtered.images:
        return []
    return [_choice(filtered, one.name.replace("_", " "), one.threshold) for one in filtered.recommendations]


def other_threshold(filtered: FilteringReport) -> Choice | None:
    """Return a different threshold that is worth trying; None if the scores suggest none.

    The result keeps at least one photograph, and it keeps more or fewer photographs than the run's own threshold. If
    the scores form two groups, the threshold between the groups is preferred. Otherwise the result is the
    recommended threshold whose number of kept photographs is closest to half of all photographs.
    """
    between = [] if filtered.between is None else [_choice(filtered, "between the two groups", filtered.between)]
    half = len(filtered.images) / 2
    by_half = sorted(choices(filtered), key=lambda choice: abs(choice.kept - half))
    return next((choice for choice in [*between, *by_half] if choice.more and choice.kept), None)


def _choice(filtered: FilteringReport, name: str, threshold: float) -> Choice:
    written = f"{threshold:.4f}"
    # Count with the rounded threshold, because the setting contains this value.
    kept = sum(row.score >= float(written) and not row.failed_check for row in filtered.images)
    more = kept - sum(row.accepted for row in filtered.images)
    return Choice(name, float(written), kept, more, f"--set clip-filter.threshold={written}")


def _sheet(title: str, note: str, sources: Sources, rows: Sequence[ScoredImage], every: int | None = None) -> Sheet:
    """Return a sheet with the readable pictures of `rows`.

    `every` is the number of images from which the rows were chosen. If it is given, the note says how many are shown.
    """
    pictures = []
    for row in rows:
        uri = sources.picture("accepted" if row.accepted else "clip-filter", row.name)
        if uri is not None:
            order = None if row.failed_check else row.score  # a limit rejects, whatever the threshold
            pictures.append(Picture(row.name, f"{row.score:+.4f}", uri, row.accepted, order=order))
    counts = "" if every is None else f"{len(pictures):,} of {every:,}, "
    return Sheet(title, counts + note, tuple(pictures))


def _evenly(rows: Sequence[ScoredImage], most: int) -> list[ScoredImage]:
    """Return at most `most` rows at equal distances, including the first and the last row."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]


def contact_sheets(sources: Sources, rows: list[ScoredImage], threshold: float) -> list[Sheet]:
    """Return the contact sheets of clip-filter: accepted, borderline and rejected images.

    The accepted images are chosen evenly over the range of scores. The borderline images are the images nearest to the
    threshold, accepted or not. The rejected images are those with the lowest scores.
    """
    by_score = sorted(rows, key=lambda row: (row.score, row.name))
    accepted = [row for row in by_score if row.accepted][::-1]
    rejected = [row for row in by_score if not row.accepted and not row.failed_check]
    borderline = sorted(rows, key=lambda row: (abs(row.score - threshold), row.name))[:BORDERLINE]
    borderline.sort(key=lambda row: -row.score)
    sheets = [
        _sheet(
            "Accepted", "from the highest score down to the lowest", sources, _evenly(accepted, SHEET), len(accepted)
        ),
        _sheet("Borderline", "the nearest to the threshold", sources, borderline, len(rows)),
        _sheet("Rejected", "the lowest scores first", sources, rejected[:SHEET], len(rejected)),
    ]
    return [sheet for sheet in sheets if sheet.pictures]


@dataclass(frozen=True)
class Unread:
    """A file that a step could not read, with the reason."""

    name: str
    reason: str
    step: str


def quarantined(sources: Sources) -> list[Unread]:
    """Return every file that a step could not read. If several steps could not read a file, each has an entry."""
    unread = ((step, file) for step, files in sources.unread.items() for file in files)
    return list({(step, file.name): Unread(file.name, file.reason, step) for step, file in unread}.values())
