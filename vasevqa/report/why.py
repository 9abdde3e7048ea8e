"""Tell why a photograph was kept or lost: what each step decided, and which photographs CLIP sees as most similar."""

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
    FilteringReport,
    PassedOverFiles,
    PromptLists,
    ScoredImage,
)
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.runs import Run
from vasevqa.report.funnel import HALF, Sources
from vasevqa.report.pictures import Thumbnails
from vasevqa.report.quality import quarantined
from vasevqa.text import nearest

NEAREST = 3  # photographs on each side
LISTED = 10  # names in a message
NO_NUMPY = (
    "The nearest photographs are left out, because numpy or safetensors is not installed here;"
    ' `pip install "vasevqa[curation]"` installs both.'
)
UNKNOWN = "clip-filter did not score this photograph, so its nearest photographs are not known."
NO_EMBEDDINGS = "clip-filter's embeddings are missing or damaged, so the nearest photographs are not known."


class SetAside(BaseModel):
    """A step that did not look at the photograph, and its reason."""

    step: str
    reason: str


class Classified(BaseModel):
    """The decision of classify. `probability` is that of high quality; None if an earlier call decided."""

    high: bool
    probability: float | None
    threshold: float

    def said(self) -> str:
        """Return the decision in words."""
        side = "high" if self.high else "low"
        if self.probability is None:
            return f"{side} quality, by an earlier call"
        place = "at or above" if self.high else "below"
        return f"{side} quality: the probability {self.probability:.4f} is {place} the threshold {self.threshold:g}"


class Filtered(BaseModel):
    """The decision of clip-filter. `decided_by` is the most similar description on the deciding side."""

    accepted: bool
    score: float
    threshold: float | None
    threshold_source: str
    high_similarity: float
    low_similarity: float
    decided_by: str
    prompts: PromptLists | None

    def said(self) -> str:
        """Return the decision in words."""
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
        """Return the decision in words."""
        if self.best is None:
            return f"vase {self.vase} lost every view; the last were lost at {self.lost_at}"
        if self.chosen:
            return f"the best view of vase {self.vase}"
        if self.similarity is None or self.best_similarity is None:
            return f"another view of vase {self.vase} was chosen: {self.best}"
        ahead = self.best_similarity - self.similarity
        return f"another view of vase {self.vase} was chosen, which is {ahead:.4f} ahead: {self.best}"


class Near(BaseModel):
    """A similar photograph, with clip-filter's score and the cosine similarity of the embeddings."""

    name: str
    score: float
    similarity: float


class Why(BaseModel):
    """What the steps of a run decided about one photograph. A step that did not see it is None."""

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
    """Return what the run decided about the photograph `text`, a relative name or a unique part of one.

    Raise ConfigError if no photograph of the run has this name, or if several have it.
    """
    sources = Sources.read(run.artifacts(), Thumbnails())
    labels = _predictions(sources.artifacts)
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


def _predictions(artifacts: Mapping[str, Path]) -> dict[str, predictions.Prediction]:
    if "classify" in artifacts:
        with contextlib.suppress(DataError):  # a damaged file; the other steps' decisions are told all the same
            return {one.name: one for one in predictions.read(artifacts["classify"])}
    return {}


def _set_aside(sources: Sources) -> Iterator[tuple[str, SetAside]]:
    """Yield the files that a step could not read or passed over, by name."""
    for row in quarantined(dict(sources.artifacts)):
        if row["step"] != "train-classifier":  # its photographs are others
            yield row["name"], SetAside(step=row["step"], reason=f"can't be read: {row['reason']}")
    passed: dict[str, list[PassedOverFiles]] = {
        "classify": sources.classified.passed_over if sources.classified else [],
        "clip-filter": sources.filtered.passed_over if sources.filtered else [],
        "select-views": sources.views.passed_over if sources.views else [],
    }
    for step, groups in passed.items():
        for group in groups:
            yield from ((name, SetAside(step=step, reason=f"passed over: {group.reason}")) for name in group.names)


def _view_names(views: BestViewsReport | None) -> set[str]:
    return set() if views is None else {view.name for choice in views.vases for view in choice.views}


def _classified(one: predictions.Prediction, report: ClassificationReport | None) -> Classified:
    threshold = report.confidence_threshold if report else None
    return Classified(
        high=one.label == 1, probability=one.probability, threshold=HALF if threshold is None else threshold
    )


def _viewed(name: str, report: BestViewsReport | None) -> Viewed | None:
    """Return what select-views decided about the vase of a photograph, whether it saw the photograph or not."""
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
    with contextlib.suppress(ConfigError):  # a pattern that another version of vasevqa wrote
        parsed = parse_name(name, naming.recorded(report.named_by or []))
        return parsed.vase if parsed else None
    return None


def _state(decided: Why) -> str:
    """Return what became of the photograph."""
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
    sides = {"nearest_accepted": True, "nearest_rejected": False}
    return {
        key: [
            Near(name=one.name, score=scored[one.name].score, similarity=one.similarity)
            for one in around.nearest(name, side, NEAREST)
        ]
        for key, side in sides.items()
    }
