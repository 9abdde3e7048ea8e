"""Explain why no photograph of a vase was accepted, by the decision about the vase's best photograph."""

from __future__ import annotations

from collections.abc import Sequence

from vasevqa.curation.reports import LostVase, ScoredImage
from vasevqa.report.decisions import Classified, filtered_of
from vasevqa.report.sources import Sources

HALF = 0.5  # the threshold of classify for reports that don't record a threshold


def reasons_of(lost: Sequence[LostVase], sources: Sources) -> dict[str, str]:
    """Return, for each vase, why its best photograph was rejected.

    A vase without a known reason is left out.
    """
    scored = {row.name: row for row in (sources.filtered.images if sources.filtered else [])}
    unread = {file.name: file.reason for files in sources.unread.values() for file in files} if lost else {}
    found = {
        vase.vase: unread.get(vase.best, "") if vase.lost_at == "unreadable" else _reason(vase, sources, scored)
        for vase in lost
    }
    return {vase: reason for vase, reason in found.items() if reason}


def _reason(vase: LostVase, sources: Sources, scored: dict[str, ScoredImage]) -> str:
    row, filtered = scored.get(vase.best), sources.filtered
    if vase.lost_at == "clip-filter" and filtered is not None and row is not None:
        most = f"; most similar description: {row.decided_by}" if row.decided_by else ""
        return filtered_of(row, filtered).said() + most
    if vase.lost_at == "classify" and vase.score is not None:
        threshold = sources.classified.confidence_threshold if sources.classified else None
        return Classified(high=False, probability=vase.score, threshold=HALF if threshold is None else threshold).said()
    return ""
