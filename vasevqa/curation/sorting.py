"""Decide about scored photographs, and sort them into accepted/ and rejected/."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa.curation.reports import FilteringAnalysis, FilteringReport, ScoredImage, remove_ours

if TYPE_CHECKING:
    from vasevqa.curation.scoring import Prompts, Scores
    from vasevqa.spec import Output, Progress


def decisions(names: Sequence[str], scores: Scores, prompts: Prompts, threshold: float) -> list[ScoredImage]:
    """Return the decision about each image. An image is accepted if its score is at least the threshold."""
    rows = []
    for index, (name, value) in enumerate(zip(names, scores.score, strict=True)):
        accepted = bool(value >= threshold)
        decided = prompts.high[scores.nearest_high[index]] if accepted else prompts.low[scores.nearest_low[index]]
        rows.append(
            ScoredImage(
                name=name,
                score=float(value),
                high_similarity=float(scores.high[index]),
                low_similarity=float(scores.low[index]),
                accepted=accepted,
                decided_by=decided,
            )
        )
    return rows


def sort(
    paths: Mapping[str, Path],
    rows: list[ScoredImage],
    analysis: FilteringAnalysis,
    output: Output,
    progress: Progress,
) -> float:
    """Copy or link every image into accepted/ or rejected/, and return how many seconds this took.

    If an earlier call with the same output folder made the opposite decision about an image, the image is moved.
    """
    began = time.perf_counter()
    before = FilteringReport.read(output.root) or FilteringReport()
    earlier = {row.name: row for row in (*before.earlier_images, *before.images)}
    now = {row.name for row in rows}
    kept = [row for name, row in earlier.items() if name not in now]
    report = FilteringReport(**dict(analysis), images=rows, earlier_images=kept, complete=False)
    # The report is also written before any file moves. After a kill, the report lists all files and decisions.
    report.write(output)
    progress.start("sorting", len(rows))
    for row in rows:
        output.place(paths[row.name], f"{_side(row)}/{row.name}")
        decided = earlier.get(row.name)
        if decided is not None and decided.accepted != row.accepted:
            remove_ours(output, f"{_side(decided)}/{row.name}")
        progress.advance()
    report.model_copy(update={"complete": True}).write(output)
    return time.perf_counter() - began


def _side(row: ScoredImage) -> str:
    return "accepted" if row.accepted else "rejected"
