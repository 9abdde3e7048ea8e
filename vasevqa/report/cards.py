"""Make cards that explain why clip-filter rejected photographs.

A card gives the score, the most similar description, and the most similar accepted and rejected photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vasevqa.curation.neighbours import Neighbourhood
from vasevqa.curation.reports import FilteringReport, ScoredImage
from vasevqa.report.decisions import Near, filtered_of, near_of
from vasevqa.report.pictures import Card, Picture

NO_NUMPY = (
    "The nearest photographs are left out, because the machine that wrote this report has no numpy or safetensors;"
    " `vasevqa report` on a machine with vasevqa[curation] adds them."
)


class Cards:
    """Makes the cards of photographs that clip-filter scored.

    `filtered` is clip-filter's report, and `folder` holds clip-filter's embeddings. `picture(place, name)` returns the
    thumbnail of a photograph; `place` is a key of sources.PARTS. If numpy or safetensors is missing, the cards have
    no nearest photographs, and `note` says so. Otherwise `note` is ''.
    """

    def __init__(self, filtered: FilteringReport, folder: Path, picture: Callable[[str, str], str | None]) -> None:
        self._filtered, self._picture = filtered, picture
        self._scored = {row.name: row for row in filtered.images}
        self._around: Neighbourhood | None = None
        self.note = ""
        try:
            self._around = Neighbourhood.read(folder, {name: row.accepted for name, row in self._scored.items()})
        except ModuleNotFoundError:  # the launcher has no numpy
            self.note = NO_NUMPY

    def of(self, row: ScoredImage) -> Card:
        """Return the card of a photograph."""
        said = filtered_of(row, self._filtered).said()
        lines = [f"{said[:1].upper()}{said[1:]}."]
        if row.decided_by:
            lines.append(f"Most similar description: {row.decided_by}.")
        around = self._around
        if around is None or row.name not in around:
            return Card(tuple(lines))
        sides = [(near_of(around, row.name, side, 1, self._scored), side) for side in (True, False)]
        nearest = tuple(self._near(one, side) for near, side in sides for one in near)
        return Card((*lines, "Nearest photographs on both sides, by the similarity of their embeddings:"), nearest)

    def _near(self, one: Near, accepted: bool) -> Picture:
        uri = self._picture("accepted" if accepted else "clip-filter", one.name)
        side = "accepted" if accepted else "rejected"
        return Picture(one.name, f"{side} {one.score:+.4f}, similarity {one.similarity:.2f}", uri, accepted)
