"""Show what a different threshold of clip-filter would keep and lose, in photographs and in vases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vasevqa.curation.reports import ScoredImage
from vasevqa.pipeline.calibrated import Calibration
from vasevqa.report.quality import Histogram

DIGITS = 4  # decimal places of a threshold, as in the setting


@dataclass(frozen=True)
class Trial:
    """The values behind the slider.

    `scores` are the scores of the photographs that no limit rejected, the highest first. `vases[n]` is the number of
    vases that the photographs of `scores[0]` to `scores[n]` show. `photographs` is the number of all photographs that
    clip-filter scored, and `every_vase` is the number of their vases. The slider goes from `low` to `high`. It begins
    at `start`, the threshold of the run.
    """

    low: float
    high: float
    start: float
    scores: tuple[float, ...]
    vases: tuple[int, ...]
    photographs: int
    every_vase: int
    labelled: Calibration | None = None

    def said(self) -> str:
        """Return what the run's own threshold keeps and loses."""
        kept = sum(score >= self.start for score in self.scores)
        vases = self.vases[kept - 1] if kept else 0
        return (
            f"Photographs: {kept:,} kept, {self.photographs - kept:,} lost."
            f" Vases: {vases:,} kept, {self.every_vase - vases:,} lost."
        )

    def lines(self, histogram: Histogram) -> dict[str, str]:
        """Return the lines of precision and recall over the histogram, each as the points of an SVG polyline.

        The value 0 is at the bottom of the histogram, and 1 is at its top. A line with only one point is left out.
        """
        found = {}
        candidates = [] if self.labelled is None else self.labelled.candidates
        for name in ("precision", "recall"):
            shares = [(one.threshold, getattr(one, name)) for one in candidates]
            points = [
                f"{histogram.at(threshold):g},{histogram.height * (1 - share.value):.1f}"
                for threshold, share in shares
                if share is not None and histogram.low <= threshold <= histogram.high
            ]
            if len(points) > 1:
                found[name] = " ".join(points)
        return found

    def data(self) -> dict[str, object]:
        """Return the values that the page's script reads."""
        labels = [] if self.labelled is None else self.labelled.candidates
        return {
            "start": self.start,
            "scores": self.scores,
            "vases": self.vases,
            "photographs": self.photographs,
            "everyVase": self.every_vase,
            "labels": [
                [one.threshold, *("" if share is None else share.said() for share in (one.precision, one.recall))]
                for one in labels
            ],
        }


def trial(
    rows: Sequence[ScoredImage], threshold: float, vases: Mapping[str, str], labelled: Calibration | None
) -> Trial | None:
    """Return the values behind the slider; None if there is no photograph that a threshold decides about.

    `vases` maps the names of photographs to vases.
    """
    decided = sorted((row for row in rows if not row.failed_check), key=lambda row: -row.score)
    if not decided:
        return None
    seen: set[str] = set()
    counts = []
    for row in decided:
        seen.add(vases.get(row.name, row.name))
        counts.append(len(seen))
    scores = [row.score for row in decided]
    unit = 10**DIGITS
    return Trial(
        low=math.floor(min([*scores, threshold]) * unit) / unit,
        high=math.ceil(max([*scores, threshold]) * unit) / unit,
        start=threshold,
        scores=tuple(scores),
        vases=tuple(counts),
        photographs=len(rows),
        every_vase=len({vases.get(row.name, row.name) for row in rows}),
        labelled=labelled,
    )
