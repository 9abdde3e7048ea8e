"""Follow the photographs from the input to the rows of the dataset, with every loss and its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vasevqa.curation.reports import (
    BestViewsReport,
    ClassificationReport,
    FilteringReport,
    LostVase,
    QuarantinedFile,
    ScoredImage,
    ViewScore,
)
from vasevqa.dataset.problems import NOTHING_LOST
from vasevqa.dataset.report import DatasetReport
from vasevqa.report.cards import Cards
from vasevqa.report.lost import HALF, reasons_of
from vasevqa.report.pictures import Card, Picture, chosen
from vasevqa.report.sources import Sources

LISTED = 200  # maximum number of names that are listed without a picture


@dataclass(frozen=True)
class Loss:
    """Photographs or vases that are lost between two levels, or problems in the annotations.

    `pictures` shows some of the lost photographs or vases, the borderline cases first. `subtracted` is False if the
    loss counts something else than the level above it. For example, it counts lost vases below a level of photographs.
    """

    count: int
    title: str
    reason: str
    pictures: tuple[Picture, ...] = ()
    names: tuple[tuple[str, str], ...] = ()  # name, reason
    subtracted: bool = True

    @property
    def shown(self) -> str:
        """A text such as '60 of 9,812 are shown.'; '' if all are shown."""
        shown = len(self.pictures) + len(self.names)
        return f"{shown:,} of {self.count:,} are shown." if shown < self.count else ""


@dataclass(frozen=True)
class Level:
    """The number of photographs, vases or rows that are left after a step.

    `width` is the length of the level's bar in percent.
    """

    count: int
    label: str
    width: float
    losses: tuple[Loss, ...] = ()


def funnel(sources: Sources) -> list[Level]:
    """Return the levels from the photographs to the rows; [] if no curation step has a report."""
    levels: list[tuple[int, str, list[Loss]]] = []
    _photographs(sources, levels)
    _vases(sources, levels)
    _rows(sources, levels)
    most = max((count for count, label, _ in levels if label != "rows"), default=0) or 1
    return [
        Level(
            count,
            label if count != 1 else label.removesuffix("s"),
            0.0 if label == "rows" else round(100 * count / most, 1),
            tuple(loss for loss in losses if loss.count),
        )
        for count, label, losses in levels
    ]


def _photographs(sources: Sources, levels: list[tuple[int, str, list[Loss]]]) -> None:
    """Add the levels that count photographs."""
    classified, filtered = sources.classified, sources.filtered
    if classified is not None:
        unread = sources.unread.get("classify", [])
        levels.append((classified.images + len(unread), "photographs", [_unreadable(unread)]))
        levels.append((classified.images, "readable", [_low(sources, classified)]))
        levels.append((classified.high, "of high quality", []))
    elif filtered is not None:
        unread = filtered.quarantined
        levels.append((len(filtered.images) + len(unread), "photographs", [_unreadable(unread)]))
        levels.append((len(filtered.images), "readable", []))
    if filtered is not None:
        later = [_unreadable(filtered.quarantined)] if classified is not None else []
        levels[-1][2].extend([*later, _rejected(sources, filtered), _outside_limits(filtered)])
        levels.append((sum(row.accepted for row in filtered.images), "accepted", []))


def _vases(sources: Sources, levels: list[tuple[int, str, list[Loss]]]) -> None:
    views = sources.views
    if views is None:
        return
    if not levels:
        images = sum(len(choice.views) for choice in views.vases)
        levels.append((images + len(views.quarantined), "photographs", []))
    levels[-1][2].extend([_unreadable(views.quarantined), _other_views(sources, views), _lost(sources, views.lost)])
    levels.append((len(views.vases), "vases", []))


def _rows(sources: Sources, levels: list[tuple[int, str, list[Loss]]]) -> None:
    dataset = sources.dataset
    if dataset is None or not levels:
        return
    levels[-1][2].extend([_undecoded(dataset.quarantined), *_problems(dataset)])
    kept = {name: count for name, count in dataset.rows.items() if name != "grpo"}  # grpo repeats rows of sft
    levels.append((sum(kept.values()), "rows", []))


def _unreadable(files: Sequence[QuarantinedFile]) -> Loss:
    names = tuple((file.name, file.reason) for file in files[:LISTED])
    return Loss(len(files), "can't be read", "A file that can't be read is not scored.", names=names)


def _undecoded(files: Sequence[QuarantinedFile]) -> Loss:
    title = f"photograph{'s' if len(files) != 1 else ''} that can't be read"
    reason = "A photograph that build-dataset can't read has no rows."
    return replace(_unreadable(files), title=title, reason=reason, subtracted=False)


def _low(sources: Sources, classified: ClassificationReport) -> Loss:
    threshold = classified.confidence_threshold if classified.confidence_threshold is not None else HALF
    # An image without a probability was classified by an earlier call. The report's counts don't include such images.
    low = [one for one in sources.predictions if one.label == 0 and one.probability is not None]
    pictures = tuple(
        Picture(
            one.name,
            _number(one.probability),
            sources.picture("classify", one.name),
            accepted=False,
            order=one.probability,
        )
        for one in chosen(low, lambda one: threshold - (one.probability or 0.0))
    )
    reason = f"The classifier's probability of high quality is below {threshold:g}. It is shown under each picture."
    return Loss(classified.low, "of low quality", reason, pictures)


def _rejected(sources: Sources, filtered: FilteringReport) -> Loss:
    rejected = [row for row in filtered.images if not row.accepted and not row.failed_check]
    threshold = filtered.threshold

    def distance(row: ScoredImage) -> float:
        return -row.score if threshold is None else threshold - row.score

    shown = chosen(rejected, distance)
    cards = Cards(filtered, sources.artifacts["clip-filter"], sources.picture) if shown else None
    pictures = tuple(
        Picture(
            row.name,
            f"{row.score:+.4f}" + (f", {row.decided_by}" if row.decided_by else ""),
            sources.picture("clip-filter", row.name),
            accepted=False,
            card=cards.of(row) if cards else None,
            order=row.score,
        )
        for row in shown
    )
    below = "The score is too low" if threshold is None else f"The score is below the threshold {threshold:.4f}"
    reason = f"{below}. The score is shown under each picture, with the most similar description."
    reason += f" {cards.note}" if cards and cards.note else ""
    return Loss(len(rejected), "rejected by CLIP", reason, pictures)


def _outside_limits(filtered: FilteringReport) -> Loss:
    failed = [(row.name, row.failed_check) for row in filtered.images if row.failed_check]
    reason = "A value of the photograph's data is outside the limits of clip-filter, whatever its score."
    return Loss(len(failed), "rejected by data checks", reason, names=tuple(failed[:LISTED]))


def _other_views(sources: Sources, views: BestViewsReport) -> Loss:
    others: list[tuple[str, ViewScore, float]] = [
        (choice.vase, view, choice.similarity - view.similarity)
        for choice in views.vases
        for view in choice.views
        if view.name != choice.best
    ]
    pictures = tuple(
        Picture(view.name, f"{vase}, {behind:.4f} behind", sources.picture("accepted", view.name))
        for vase, view, behind in chosen(others, lambda other: other[2])
    )
    return Loss(
        len(others),
        "further views",
        "A different view of the same vase has a higher similarity and was chosen.",
        pictures,
    )


def _lost(sources: Sources, lost: Sequence[LostVase]) -> Loss:
    def place(vase: LostVase) -> str:
        return vase.lost_at + ("" if vase.score is None else f" {_number(vase.score)}")

    shown = chosen(lost, lambda vase: -(vase.score or 0.0))
    reasons = reasons_of(lost, sources)
    pictures = tuple(
        Picture(
            vase.best,
            f"{vase.vase}, {place(vase)}",
            sources.picture(vase.lost_at, vase.best),
            accepted=False,
            card=Card((_sentence(reasons[vase.vase]),)) if vase.vase in reasons else None,
            order=vase.score,
        )
        for vase in shown
    )
    reason = "No photograph of these vases was accepted. The best one is shown, with the step that rejected it."
    title = f"vase{'s' if len(lost) != 1 else ''} lost at an earlier step"
    pictured = {vase.vase for vase in shown}
    others = [vase for vase in lost if vase.vase not in pictured][:LISTED]
    names = tuple((vase.vase, f"{reasons.get(vase.vase) or place(vase)}, {vase.best}") for vase in others)
    return Loss(len(lost), title, reason, pictures, names, subtracted=False)


def _problems(dataset: DatasetReport) -> Iterable[Loss]:
    for kind in dataset.problems:
        if kind not in NOTHING_LOST:
            yield _problem(dataset, kind, f"left out of the dataset: {kind}", "build-dataset lists each place.")


def remarks(dataset: DatasetReport | None) -> list[Loss]:
    """Return the problems in the annotations that remove nothing from the dataset."""
    if dataset is None:
        return []
    return [_problem(dataset, kind, kind, NOTHING_LOST[kind]) for kind in dataset.problems if kind in NOTHING_LOST]


def _problem(dataset: DatasetReport, kind: str, title: str, reason: str) -> Loss:
    listed = dataset.problem_list.get(kind, [])[:LISTED]
    names = tuple((problem.where, problem.what) for problem in listed)
    return Loss(dataset.problems[kind], title, reason, names=names, subtracted=False)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
