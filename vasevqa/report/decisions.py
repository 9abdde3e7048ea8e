"""The decisions of the curation's steps about one photograph, and the texts of these decisions."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from vasevqa.curation.neighbours import Neighbourhood
from vasevqa.curation.reports import FilteringReport, PromptLists, ScoredImage


class SetAside(BaseModel):
    """A step that did not process a photograph, and the reason."""

    step: str
    reason: str


class Classified(BaseModel):
    """The decision of classify.

    `probability` is the probability of high quality. It is None if an earlier call of classify made the decision.
    """

    high: bool
    probability: float | None
    threshold: float

    def said(self) -> str:
        """Return the decision as text."""
        side = "high" if self.high else "low"
        if self.probability is None:
            return f"{side} quality, by an earlier call"
        place = "at or above" if self.high else "below"
        return f"{side} quality: the probability {self.probability:.4f} is {place} the threshold {self.threshold:g}"


class Filtered(BaseModel):
    """The decision of clip-filter about a photograph.

    `decided_by` is the most similar description: one of high quality for an accepted photograph, and one of low quality
    for a rejected photograph.
    """

    accepted: bool
    score: float
    threshold: float | None
    threshold_source: str
    high_similarity: float
    low_similarity: float
    decided_by: str
    prompts: PromptLists | None

    def said(self) -> str:
        """Return the decision as text."""
        side = "accepted" if self.accepted else "rejected"
        if self.threshold is None:
            return f"{side}: the score is {self.score:+.4f}"
        place = "at or above" if self.accepted else "below"
        return f"{side}: the score {self.score:+.4f} is {place} the threshold {self.threshold:.4f}"


class Viewed(BaseModel):
    """The decision of select-views about the photograph's vase. `best` is the chosen view, or None for a lost vase."""

    vase: str
    chosen: bool
    best: str | None
    similarity: float | None = None
    best_similarity: float | None = None
    lost_at: str | None = None

    def said(self) -> str:
        """Return the decision as text."""
        if self.best is None:
            return f"vase {self.vase} lost every view; the last were lost at {self.lost_at}"
        if self.chosen:
            return f"the best view of vase {self.vase}"
        if self.similarity is None or self.best_similarity is None:
            return f"another view of vase {self.vase} was chosen: {self.best}"
        ahead = self.best_similarity - self.similarity
        return f"another view of vase {self.vase} was chosen, which is {ahead:.4f} ahead: {self.best}"


class Near(BaseModel):
    """A similar photograph, with its score from clip-filter and the cosine similarity of the two embeddings."""

    name: str
    score: float
    similarity: float


def filtered_of(row: ScoredImage, report: FilteringReport) -> Filtered:
    """Return clip-filter's decision about a photograph."""
    return Filtered(
        accepted=row.accepted,
        score=row.score,
        threshold=report.threshold,
        threshold_source=report.threshold_source,
        high_similarity=row.high_similarity,
        low_similarity=row.low_similarity,
        decided_by=row.decided_by,
        prompts=report.prompts,
    )


def near_of(
    around: Neighbourhood, name: str, accepted: bool, most: int, scored: Mapping[str, ScoredImage]
) -> list[Near]:
    """Return the accepted or the rejected photographs that are most similar to `name`, with their scores."""
    return [
        Near(name=one.name, score=scored[one.name].score, similarity=one.similarity)
        for one in around.nearest(name, accepted, most)
    ]
