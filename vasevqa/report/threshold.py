"""Show what a different threshold of clip-filter would keep and lose, in photographs and in vases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vasevqa.curation.reports import ScoredImage
from vasevqa.report.quality import Histogram

DIGITS = 4  # decimal places of a threshold, as in the setting


class Share(BaseModel):
    """An estimated share with its 95% interval. The interval is missing if too few vases have labels."""

    value: float
    low: float | None = None
    high: float | None = None

    def said(self) -> str:
        """Return the share as text, such as '0.93 [0.88, 0.97]'."""
        return f"{self.value:.2f}" + (
            "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        )


class LabelledThreshold(BaseModel):
    """A threshold, its precision and recall on labelled photographs, and the photographs and vases that it loses."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    threshold: float
    precision: Share | None = None
    recall: Share | None = None
    lost_photographs: int = 0
    lost_vases: int = 0


class Labelled(BaseModel):
    """What labels show about thresholds, as it is in the file that `vasevqa review --calibrate` writes."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    question: str
    labels: int
    labelled_vases: int
    candidates: list[LabelledThreshold] = Field(default_factory=list)
    chosen: float | None = None
    says: str = ""

    @classmethod
    def read(cls, path: Path) -> Labelled | None:
        """Return the content of a file; None if the file is missing or can't be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def lines(self, histogram: Histogram) -> dict[str, str]:
        """Return the lines of precision and recall over the histogram, each as the points of an SVG polyline.

        The value 0 is at the bottom of the histogram, and 1 is at its top. A line with only one point is left out.
        """
        found = {}
        for name in ("precision", "recall"):
            shares = [(one.threshold, getattr(one, name)) for one in self.candidates]
            points = [
                f"{histogram.at(threshold):g},{histogram.height * (1 - share.value):.1f}"
                for threshold, share in shares
                if share is not None and histogram.low <= threshold <= histogram.high
            ]
            if len(points) > 1:
                found[name] = " ".join(points)
        return found


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
    labelled: Labelled | None = None

    def said(self) -> str:
        """Return what the run's own threshold keeps and loses."""
        kept = sum(score >= self.start for score in self.scores)
        vases = self.vases[kept - 1] if kept else 0
        return (
            f"Photographs: {kept:,} kept, {self.photographs - kept:,} lost."
            f" Vases: {vases:,} kept, {self.every_vase - vases:,} lost."
        )

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
    rows: Sequence[ScoredImage], threshold: float, vases: Mapping[str, str], labelled: Labelled | None
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
