"""Explain why a photograph was kept or lost, by the decision of each step and by the most similar photographs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from vasevqa.curation import naming, predictions
from vasevqa.curation.file_names import parse_name
from vasevqa.curation.neighbours import Neighbourhood
from vasevqa.curation.reports import (
    BestViewsReport,
    ClassificationReport,
    ScoredImage,
)
from vasevqa.errors import ConfigError
from vasevqa.pipeline.runs import Run
from vasevqa.report.decisions import Classified, Filtered, Near, SetAside, Viewed, filtered_of, near_of
from vasevqa.report.lost import HALF
from vasevqa.report.sources import Sources
from vasevqa.text import nearest

STEPS = ("classify", "clip-filter", "select-views")
NEAREST = 3  # photographs on each side
NO_NUMPY = (
    "The nearest photographs are left out, because numpy or safetensors is not installed here;"
    ' `pip install "vasevqa[curation]"` installs both.'
)
LISTED = 10  # maximum number of names in a message
UNKNOWN = "clip-filter did not score this photograph, so its nearest photographs are not known."
NO_EMBEDDINGS = "clip-filter's embeddings are missing or damaged, so the nearest photographs are not known."


class Why(BaseModel):
    """The decisions of a run's steps about one photograph; None for a step that did not see the photograph."""

    run: str
    photograph: str
    state: str
    set_aside: list[SetAside]
    classify: Classified | None
    clip_filter: Filtered | None
    select_views: Viewed | None
    nearest_accepted: list[Near] = []
    nearest_rejected: list[Near] = []
    note: str = ""  # why there are no nearest photographs


def why(run: Run, text: str) -> Why:
    """Return the decisions about a photograph. `text` is its relative name, or a part of this name.

    Raise ConfigError if no photograph of the run matches `text`, or if several match.
    """
    sources = Sources(run.artifacts())
    labels = {one.name: one for one in sources.predictions}
    scored = {row.name: row for row in (sources.filtered.images if sources.filtered else [])}
    aside = list(_set_aside(sources))
    names = {*labels, *scored, *(name for name, _ in aside), *_view_names(sources.views)}
    name = _found(names, text, run)
    classified, filtered = labels.get(name), sources.filtered
    decided = Why(
        run=run.name,
        photograph=name,
        state="",
        set_aside=[step for other, step in aside if other == name],
        classify=None if classified is None else _classified(classified, sources.classified),
        clip_filter=filtered_of(scored[name], filtered) if filtered and name in scored else None,
        select_views=_viewed(name, sources.views),
    )
    found = {"state": _state(decided), **_nearest(name, scored, sources.artifacts.get("clip-filter"))}
    return decided.model_copy(update=found)


def _found(names: Iterable[str], text: str, run: Run) -> str:
    known = sorted(names)
    if text in known:
        return text
    matches = [name for name in known if text.casefold() in name.casefold()] if text else []
    if len(matches) == 1:
        return matches[0]
    if not known:
        raise ConfigError(f"No step of {run.name} has looked at photographs yet; wait for classify or clip-filter.")
    if not matches:
        hint = nearest(text, known)
        remedy = " Give its path relative to the folder of the photographs, or a part of it."
        listed = len(known) <= LISTED or "Did you mean" in hint
        raise ConfigError(f"No photograph of {run.name} is called '{text}'.{hint if listed else remedy}")
    more = f" and {len(matches) - LISTED} more" if len(matches) > LISTED else ""
    raise ConfigError(
        f"{len(matches)} photographs of {run.name} have '{text}' in their names ({', '.join(matches[:LISTED])}{more});"
        " give more of the name."
    )


def _set_aside(sources: Sources) -> Iterator[tuple[str, SetAside]]:
    """Yield the name of each file that a step could not read or skipped, with the step and the reason."""
    for step, unread in sources.unread.items():
        if step != "train-classifier":  # train-classifier reads different photographs
            yield from ((file.name, SetAside(step=step, reason=f"can't be read: {file.reason}")) for file in unread)
    for step, groups in sources.passed_over.items():
        for group in groups if step in STEPS else ():
            yield from ((name, SetAside(step=step, reason=f"passed over: {group.reason}")) for name in group.names)


def _view_names(views: BestViewsReport | None) -> set[str]:
    return set() if views is None else {view.name for choice in views.vases for view in choice.views}


def _classified(one: predictions.Prediction, report: ClassificationReport | None) -> Classified:
    threshold = report.confidence_threshold if report else None
    return Classified(
        high=one.label == 1, probability=one.probability, threshold=HALF if threshold is None else threshold
    )


def _viewed(name: str, report: BestViewsReport | None) -> Viewed | None:
    """Return what select-views decided about the vase of a photograph; None if select-views doesn't know the vase.

    select-views may know the vase even if it didn't see this photograph.
    """
    if report is None:
        return None
    vase = _vase_of(name, report)
    for choice in report.vases:
        similarities = {view.name: view.similarity for view in choice.views}
        if name in similarities or choice.vase == vase:
            return Viewed(
                vase=choice.vase,
                chosen=choice.best == name,
                best=choice.best,
                similarity=similarities.get(name),
                best_similarity=choice.similarity,
            )
    for lost in report.lost:
        if vase == lost.vase or name == lost.best:
            return Viewed(vase=lost.vase, chosen=False, best=None, lost_at=lost.lost_at)
    return None


def _vase_of(name: str, report: BestViewsReport) -> str | None:
    with contextlib.suppress(ConfigError):  # the report may contain a pattern of a different version of vasevqa
        parsed = parse_name(name, naming.recorded(report.named_by or []))
        return parsed.vase if parsed else None
    return None


def _state(decided: Why) -> str:
    """Return the final state of the photograph as text."""
    if decided.set_aside:
        return f"set aside by {decided.set_aside[0].step}"
    if decided.classify is not None and not decided.classify.high:
        return "rejected by classify"
    if decided.clip_filter is not None and not decided.clip_filter.accepted:
        return "rejected by clip-filter"
    if decided.select_views is not None and decided.select_views.best is not None:
        return "chosen by select-views" if decided.select_views.chosen else "not chosen by select-views"
    return "accepted"


def _nearest(name: str, scored: Mapping[str, ScoredImage], folder: Path | None) -> dict[str, object]:
    if folder is None or name not in scored:
        return {"note": UNKNOWN}
    try:
        around = Neighbourhood.read(folder, {other: row.accepted for other, row in scored.items()})
    except ModuleNotFoundError:
        return {"note": NO_NUMPY}
    if around is None or name not in around:
        return {"note": NO_EMBEDDINGS}
    return {
        "nearest_accepted": near_of(around, name, True, NEAREST, scored),
        "nearest_rejected": near_of(around, name, False, NEAREST, scored),
    }
