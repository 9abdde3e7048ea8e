"""Show the best view of each vase beside its second-best view, with the smallest margins first."""

from __future__ import annotations

from dataclasses import dataclass

from vasevqa.curation.reports import ViewChoice
from vasevqa.report.pictures import MOST, Picture, chosen
from vasevqa.report.sources import Sources

FEW = MOST // 2  # maximum number of vases; each has two pictures


@dataclass(frozen=True)
class BestView:
    """A vase with its best view, its second-best view, and a sentence about the choice."""

    vase: str
    best: Picture
    runner_up: Picture | None
    text: str


@dataclass(frozen=True)
class BestViews:
    """The vases that are shown, and the number of all vases."""

    shown: tuple[BestView, ...]
    count: int
    unmatched: int


def best_views(sources: Sources) -> BestViews | None:
    """Return the best views, the smallest margin first; None without a report of select-views."""
    report = sources.views
    if report is None or not report.vases:
        return None
    nearest = chosen(report.vases, lambda choice: float("inf") if choice.margin is None else choice.margin, FEW)
    return BestViews(tuple(_best_view(sources, choice) for choice in nearest), len(report.vases), len(report.unmatched))


def _best_view(sources: Sources, choice: ViewChoice) -> BestView:
    similarities = {view.name: view.similarity for view in choice.views}
    best = Picture(choice.best, f"best: {choice.similarity:.4f}", sources.picture("select-views", choice.best))
    if choice.runner_up is None:
        reason = choice.reason or "the only view"
        return BestView(choice.vase, best, None, f"{reason[:1].upper()}{reason[1:]}.")
    score = f" {similarities[choice.runner_up]:.4f}" if choice.runner_up in similarities else ""
    second = Picture(choice.runner_up, f"second:{score}", sources.picture("accepted", choice.runner_up), accepted=False)
    views = f" of {len(choice.views)} views" if choice.views else " view"
    return BestView(choice.vase, best, second, f"{choice.margin or 0:.4f} above the second{views}.")
