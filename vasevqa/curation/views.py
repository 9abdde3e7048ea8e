"""Group images by vase, choose the best view of each vase, and list the vases that were lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation import predictions
from vasevqa.curation.file_names import Naming, parse_name
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
    """An accepted image with its vase, view and similarity.

    If the file name matches no pattern, the name itself is the vase.
    """

    vase: str
    view: str
    name: str
    path: Path
    similarity: float
    matched: bool


def group_views(scored: Iterable[tuple[str, Path, float]], naming: Naming) -> dict[str, list[View]]:
    """Group images, given as (name, path, similarity), by vase. The best view of each vase comes first.

    If the name of an image matches no pattern, the image is the only view of a separate vase.
    """
    views: dict[str, list[View]] = defaultdict(list)
    for name, path, similarity in scored:
        parsed = parse_name(name, naming)
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
    """Return the report's entry for a vase. `group` holds the views of the vase, the best view first."""
    best = group[0]
    runner_up = group[1] if len(group) > 1 else None
    margin = None if runner_up is None else best.similarity - runner_up.similarity
    if runner_up is None:
        reason = "the only view" if best.matched else "the name doesn't match the pattern: treated as one vase"
    elif margin == 0:
        reason = "the first by name of several views with the same similarity"
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


# If several steps rejected images of a vase, the step with the lowest number is reported: the last of these steps.
ORDER = {"clip-filter": 0, "classify": 1, "unreadable": 2}


def lost_vases(
    kept: Container[str], filtered: FilteringReport | None, classified: Path | None, naming: Naming
) -> list[LostVase]:
    """Return the vases without an accepted view, sorted by vase.

    `kept` holds the vases with an accepted view. Each entry of the result names the last step that rejected an image of
    the vase, and the best image that this step rejected. `filtered` is clip-filter's report, and `classified` is the
    output folder of classify. Both are optional.
    """
    lost: dict[str, LostVase] = {}
    for where, name, value in losses(filtered, classified):
        parsed = parse_name(name, naming)
        if parsed is None or parsed.vase in kept:
            continue
        old = lost.get(parsed.vase)
        better = old is not None and where == old.lost_at and (-(value or 0), name) < (-(old.score or 0), old.best)
        if old is None or ORDER[where] < ORDER[old.lost_at] or better:
            lost[parsed.vase] = LostVase(vase=parsed.vase, lost_at=where, best=name, score=value)
    return [lost[vase] for vase in sorted(lost)]


def losses(filtered: FilteringReport | None, classified: Path | None) -> Iterator[tuple[str, str, float | None]]:
    """Yield (step, name, score) for each image that a step rejected or couldn't read.

    For an image that couldn't be read, `step` is 'unreadable' and `score` is None.
    """
    unread: list[QuarantinedFile] = []
    if filtered is not None:
        yield from (("clip-filter", row.name, row.score) for row in filtered.images if not row.accepted)
        unread += filtered.quarantined
    if classified is not None:
        for one in predictions.read(classified):
            if one.label == 0 and one.probability is not None:
                yield "classify", one.name, one.probability
        quarantine = Quarantine.read(classified)
        unread += quarantine.quarantined if quarantine else []
    yield from (("unreadable", file.name, None) for file in unread)


def view_statistics(
    views: Mapping[str, Sequence[View]], lost: Sequence[LostVase], unmatched: Sequence[str]
) -> ViewStatistics:
    """Count the views of each vase, and summarize the views' similarities to descriptions of a complete vase.

    `views` must hold at least one vase, and the views of each vase must begin with the best one.
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
