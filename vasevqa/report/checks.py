"""Show the results of clip-filter's data checks: distributions of values, findings, and the worst photographs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vasevqa.curation.reports import ScoredImage
from vasevqa.report.funnel import LISTED
from vasevqa.report.pictures import Picture
from vasevqa.report.sources import Sources

TINY = 448  # shorter side in pixels: twice the input size of the usual CLIP models
CLIPPED = 0.25  # share of the pixels
WORST = 24  # number of pictures


@dataclass(frozen=True)
class Spread:
    """The 5th, 50th and 95th percentile of a value over the photographs."""

    name: str
    low: str
    median: str
    high: str


@dataclass(frozen=True)
class Found:
    """A finding, and the number of photographs with this finding."""

    name: str
    count: int


@dataclass(frozen=True)
class DataQuality:
    """The section of the report about the quality of the photographs.

    `failed` lists the photographs (name, reason) that clip-filter rejected because of the `limits`. The list has at
    most LISTED entries, but `failures` counts all such photographs.
    """

    photographs: int
    spreads: tuple[Spread, ...]
    found: tuple[Found, ...]
    worst: tuple[Picture, ...]
    limits: str
    failures: int
    failed: tuple[tuple[str, str], ...]


def data_quality(sources: Sources) -> DataQuality | None:
    """Return the section about the quality of the photographs; None if clip-filter measured no photograph."""
    filtered = sources.filtered
    rows = [row for row in filtered.images if row.width and row.height] if filtered else []
    if filtered is None or not rows:
        return None
    failed = [(row.name, row.failed_check) for row in filtered.images if row.failed_check]
    ranked = sorted(rows, key=lambda row: (-len(_findings(row)), row.sharpness or 0.0, row.name))
    return DataQuality(
        len(rows),
        (
            _spread("Sharpness", [row.sharpness or 0.0 for row in rows]),
            _spread("Shorter side in pixels", [float(_side(row)) for row in rows]),
            _spread("Brightness (0 to 1)", [row.brightness or 0.0 for row in rows]),
            _spread("Plain frame", [row.frame or 0.0 for row in rows], share=True),
        ),
        tuple(_counts(rows)),
        tuple(_picture(sources, row) for row in ranked[:WORST]),
        ", ".join(f"{name} {value:g}" for name, value in filtered.limits.items()),
        len(failed),
        tuple(failed[:LISTED]),
    )


def _side(row: ScoredImage) -> int:
    return min(row.width or 0, row.height or 0)


def _clipped(row: ScoredImage) -> float:
    return max(row.clipped_dark or 0.0, row.clipped_bright or 0.0)


def _spread(name: str, values: Sequence[float], share: bool = False) -> Spread:
    ordered = sorted(values)
    shown = (ordered[round(part * (len(ordered) - 1))] for part in (0.05, 0.5, 0.95))
    low, median, high = (f"{value:.0%}" if share else f"{value:,.4g}" for value in shown)
    return Spread(name, low, median, high)


def _counts(rows: Sequence[ScoredImage]) -> Iterable[Found]:
    yield Found(f"clipped: more than {CLIPPED:.0%} of the pixels are black or white", _count(map(_is_clipped, rows)))
    yield Found(f"tiny: the shorter side is below {TINY} pixels", _count(_side(row) < TINY for row in rows))
    yield Found("a colour card is suspected", _count(row.colour_card_suspected for row in rows))
    yield Found("a scale bar is suspected", _count(row.scale_bar_suspected for row in rows))
    yield Found("near-duplicate of an earlier photograph", _count(row.near_duplicate_of for row in rows))


def _count(marks: Iterable[object]) -> int:
    return sum(bool(mark) for mark in marks)


def _is_clipped(row: ScoredImage) -> bool:
    return _clipped(row) > CLIPPED


def _findings(row: ScoredImage) -> list[str]:
    """Return the findings about a photograph, each in a few words."""
    return [
        *([f"{_clipped(row):.0%} clipped"] if _is_clipped(row) else []),
        *([f"{_side(row)} px"] if _side(row) < TINY else []),
        *(["colour card?"] if row.colour_card_suspected else []),
        *(["scale bar?"] if row.scale_bar_suspected else []),
        *([f"like {row.near_duplicate_of}"] if row.near_duplicate_of else []),
    ]


def _picture(sources: Sources, row: ScoredImage) -> Picture:
    caption = "; ".join([f"sharpness {row.sharpness or 0:.3g}", *_findings(row)])
    uri = sources.picture("accepted" if row.accepted else "clip-filter", row.name)
    return Picture(row.name, caption, uri, row.accepted)
