"""List the vases that lost every view, each with its best photograph and the reason of its loss."""

from __future__ import annotations

from dataclasses import dataclass

from vasevqa.curation.reports import LostVase, ScoredImage
from vasevqa.report.decisions import Classified, filtered_of
from vasevqa.report.funnel import HALF, Sources
from vasevqa.report.pictures import chosen
from vasevqa.report.quality import quarantined


@dataclass(frozen=True)
class Lost:
    """A lost vase, why its best photograph was rejected, and the photograph's thumbnail if it is shown."""

    vase: LostVase
    reason: str
    uri: str | None


def lost_vases(sources: Sources) -> list[Lost]:
    """Return the vases that lost every view. The photographs that the funnel shows have a thumbnail."""
    lost = sources.views.lost if sources.views else []
    shown = {vase.vase for vase in chosen(lost, lambda vase: -(vase.score or 0.0))}
    scored = {row.name: row for row in (sources.filtered.images if sources.filtered else [])}
    unread = {row["name"]: row["reason"] for row in quarantined(dict(sources.artifacts))} if lost else {}
    return [
        Lost(
            vase,
            unread.get(vase.best, "") if vase.lost_at == "unreadable" else _reason(vase, sources, scored),
            sources.picture(vase.lost_at, vase.best) if vase.vase in shown else None,
        )
        for vase in lost
    ]


def _reason(vase: LostVase, sources: Sources, scored: dict[str, ScoredImage]) -> str:
    row, filtered = scored.get(vase.best), sources.filtered
    if vase.lost_at == "clip-filter" and filtered is not None and row is not None:
        most = f"; most similar description: {row.decided_by}" if row.decided_by else ""
        return filtered_of(row, filtered).said() + most
    if vase.lost_at == "classify" and vase.score is not None:
        threshold = sources.classified.confidence_threshold if sources.classified else None
        return Classified(high=False, probability=vase.score, threshold=HALF if threshold is None else threshold).said()
    return ""
