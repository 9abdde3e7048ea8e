"""Views of vases: grouped by vase with the best first, what a report says of them, and which vases were lost."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.curation.file_names import parse_name
from vasevqa.curation.reports import read_report
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


def vase_row(vase: str, group: Sequence[View]) -> dict[str, Any]:
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
    return {
        "vase": vase,
        "best": best.name,
        "view": best.view,
        "similarity": best.similarity,
        "runner_up": runner_up.name if runner_up else None,
        "margin": margin,
        "reason": reason,
        "views": [{"name": view.name, "view": view.view, "similarity": view.similarity} for view in group],
    }


def lost_vases(
    kept: Container[str],
    rejected: Iterable[Mapping[str, Any]],
    unreadable: Iterable[Mapping[str, str]],
    classified: Path | None,
    pattern: re.Pattern[str],
) -> list[dict[str, Any]]:
    """Vases without an accepted view, each with the step that lost them last and their best image there, by vase.

    `rejected` and `unreadable` are rows of clip-filter's report; `classified` is classify's output, if it is known.
    """
    rows: list[tuple[str, str, float | None]] = [("clip-filter", row["name"], float(row["score"])) for row in rejected]
    unread = list(unreadable)
    if classified is not None:
        if (classified / "predictions.csv").is_file():
            with open(classified / "predictions.csv", newline="", encoding="utf-8") as stream:
                rows += [
                    ("classify", row["path"], float(row["probability"]))
                    for row in csv.DictReader(stream)
                    if row["class"] == "0" and row["probability"]
                ]
        unread += read_report(classified / "quarantined.json").get("quarantined", [])
    rows += [("unreadable", row["name"], None) for row in unread]
    lost: dict[str, dict[str, Any]] = {}
    order = {"clip-filter": 0, "classify": 1, "unreadable": 2}  # the step that a vase reached last names its loss
    for where, name, value in rows:
        parsed = parse_name(name, pattern)
        if parsed is None or parsed.vase in kept:
            continue
        entry = {"vase": parsed.vase, "lost_at": where, "best": name, "score": value}
        old = lost.get(parsed.vase)
        better = (
            old is not None and where == old["lost_at"] and (-(value or 0), name) < (-(old["score"] or 0), old["best"])
        )
        if old is None or order[where] < order[old["lost_at"]] or better:
            lost[parsed.vase] = entry
    return [lost[vase] for vase in sorted(lost)]


def view_statistics(
    views: Mapping[str, Sequence[View]], lost: Sequence[Mapping[str, Any]], unmatched: Sequence[str]
) -> dict[str, Any]:
    """How many views there are of how many vases, and how similar they are to descriptions of a complete vase.

    `views` holds at least one vase, the best view first.
    """
    images = sum(len(group) for group in views.values())
    return {
        "vases": len(views),
        "images": images,
        "reduction": 1 - len(views) / images,
        "lost_vases": len(lost),
        "unmatched": len(unmatched),
        "views_per_vase": dict(
            sorted(Counter(str(len(group)) for group in views.values()).items(), key=lambda item: int(item[0]))
        ),
        "view_distribution": dict(Counter(group[0].view for group in views.values() if group[0].matched).most_common()),
        "best_similarity": statistics([group[0].similarity for group in views.values()]),
        "all_similarity": statistics([view.similarity for group in views.values() for view in group]),
    }
