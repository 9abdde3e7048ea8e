"""Views of vases: grouped by vase with the best first, what a report says of them, and which vases were lost."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation.file_names import parse_name
from vasevqa.curation.reports import (
    FilteringReport,
    LostVase,
    Quarantine,
    QuarantinedFile,
    ViewChoice,
    ViewScore,
    ViewStatistics,
)
from vasevqa.curation.scoring import statistics


@dataclass(frozen=True)
class View:
    """One accepted image: its vase (its own name where the name doesn't match the pattern), view and similarity."""

    vase: str
    view: str
    name: str
    path: Path
    similarity: float
    matched: bool


def group_views(scored: Iterable[tuple[str, Path, float]], pattern: re.Pattern[str]) -> dict[str, list[View]]:
    """The views of every vase, the best first, of images as (name, path, similarity).

    An image whose name doesn't match the pattern is a vase of its own.
    """
    views: dict[str, list[View]] = defaultdict(list)
    for name, path, similarity in scored:
        parsed = parse_name(name, pattern)
        view = (
            View(parsed.vase, parsed.view, name, path, similarity, True)
            if parsed
            else View(name, "", name, path, similarity, False)
        )
        views[view.vase].append(view)
    for group in views.values():
        group.sort(key=lambda view: (-view.similarity, view.name))
    return views


def choose_view(vase: str, group: Sequence[View]) -> ViewChoice:
    """What the report says of a vase: its best view, by how much it won and why, and all its views, the best first."""
    best = group[0]
    runner_up = group[1] if len(group) > 1 else None
    margin = None if runner_up is None else best.similarity - runner_up.similarity
    if runner_up is None:
        reason = "the only view" if best.matched else "the name matches no pattern: kept as a vase of its own"
    elif margin == 0:
        reason = "equal similarity: the first by name"
    else:
        reason = "the highest similarity to descriptions of a complete vase"
    return ViewChoice(
        vase=vase,
        best=best.name,
        view=best.view,
        similarity=best.similarity,
        runner_up=runner_up.name if runner_up else None,
        margin=margin,
        reason=reason,
        views=[ViewScore(name=view.name, view=view.view, similarity=view.similarity) for view in group],
    )


ORDER = {"clip-filter": 0, "classify": 1, "unreadable": 2}  # the step that a vase reached last names its loss


def lost_vases(
    kept: Container[str], filtered: FilteringReport | None, classified: Path | None, pattern: re.Pattern[str]
) -> list[LostVase]:
    """Vases without an accepted view, each with the step that lost them last and their best image there, by vase.

    `filtered` is clip-filter's report and `classified` the folder of classify's output, if they are known.
    """
    lost: dict[str, LostVase] = {}
    for where, name, value in _losses(filtered, classified):
        parsed = parse_name(name, pattern)
        if parsed is None or parsed.vase in kept:
            continue
        old = lost.get(parsed.vase)
        better = old is not None and where == old.lost_at and (-(value or 0), name) < (-(old.score or 0), old.best)
        if old is None or ORDER[where] < ORDER[old.lost_at] or better:
            lost[parsed.vase] = LostVase(vase=parsed.vase, lost_at=where, best=name, score=value)
    return [lost[vase] for vase in sorted(lost)]


def _losses(filtered: FilteringReport | None, classified: Path | None) -> Iterator[tuple[str, str, float | None]]:
    """(step, name, score) of each image that a step rejected or couldn't read."""
    unread: list[QuarantinedFile] = []
    if filtered is not None:
        yield from (("clip-filter", row.name, row.score) for row in filtered.images if not row.accepted)
        unread += filtered.quarantined
    if classified is not None:
        if (classified / "predictions.csv").is_file():
            with open(classified / "predictions.csv", newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    if row["class"] == "0" and row["probability"]:
                        yield "classify", row["path"], float(row["probability"])
        quarantine = Quarantine.read(classified)
        unread += quarantine.quarantined if quarantine else []
    yield from (("unreadable", file.name, None) for file in unread)


def view_statistics(
    views: Mapping[str, Sequence[View]], lost: Sequence[LostVase], unmatched: Sequence[str]
) -> ViewStatistics:
    """How many views there are of how many vases, and how similar they are to descriptions of a complete vase.

    `views` holds at least one vase, the best view first.
    """
    images = sum(len(group) for group in views.values())
    return ViewStatistics(
        vases=len(views),
        images=images,
        reduction=1 - len(views) / images,
        lost_vases=len(lost),
        unmatched=len(unmatched),
        views_per_vase=dict(
            sorted(Counter(str(len(group)) for group in views.values()).items(), key=lambda item: int(item[0]))
        ),
        view_distribution=dict(Counter(group[0].view for group in views.values() if group[0].matched).most_common()),
        best_similarity=statistics([group[0].similarity for group in views.values()]),
        all_similarity=statistics([view.similarity for group in views.values() for view in group]),
    )
