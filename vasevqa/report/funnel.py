"""Follow the photographs from the input to the rows of the dataset, with every loss and its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation import predictions
from vasevqa.curation.predictions import Prediction
from vasevqa.curation.reports import (
    BestViewsReport,
    ClassificationReport,
    FilteringReport,
    LostVase,
    Quarantine,
    QuarantinedFile,
    ScoredImage,
    ViewScore,
)
from vasevqa.dataset.report import DatasetReport
from vasevqa.errors import DataError
from vasevqa.report.pictures import Picture, chosen, thumbnail

HALF = 0.5  # classify's threshold in reports that don't record it
PARTS = {  # where photographs lie: by the step that rejected them, accepted ones, and best views
    "classify": "classify/0",
    "clip-filter": "clip-filter/rejected",
    "accepted": "clip-filter/accepted",
    "select-views": "select-views/best_views",
}
LISTED = 200  # names without a picture


@dataclass(frozen=True)
class Loss:
    """What is lost between two levels. `pictures` shows some of it, the borderline cases first.

    `subtracted` is False if the loss counts other things than the level above it.
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
    """A number of things that are left at one point. `width` is the length of its bar in percent."""

    count: int
    label: str
    width: float
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True)
class Sources:
    """The reports of the curation and of the dataset; None for a step without an artifact."""

    artifacts: Mapping[str, Path]
    classified: ClassificationReport | None
    filtered: FilteringReport | None
    views: BestViewsReport | None
    dataset: DatasetReport | None

    @classmethod
    def read(cls, artifacts: Mapping[str, Path]) -> Sources:
        """Read the reports of a run's artifacts."""
        folder = artifacts.get
        return cls(
            artifacts,
            ClassificationReport.read(artifacts["classify"]) if folder("classify") else None,
            FilteringReport.read(artifacts["clip-filter"]) if folder("clip-filter") else None,
            BestViewsReport.read(artifacts["select-views"]) if folder("select-views") else None,
            DatasetReport.read(artifacts["build-dataset"]) if folder("build-dataset") else None,
        )

    def picture(self, place: str, name: str) -> str | None:
        """Return the picture of a photograph in a folder of PARTS; None if there is none."""
        folder, _, part = PARTS.get(place, "").partition("/")
        if folder not in self.artifacts or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        return thumbnail(self.artifacts[folder] / part / name)


def funnel(sources: Sources) -> list[Level]:
    """Return the levels from the photographs to the rows; [] without a report of the curation."""
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
        quarantine = Quarantine.read(sources.artifacts["classify"])
        unread = classified.quarantined or (quarantine.quarantined if quarantine else [])
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
    levels[-1][2].extend(_problems(dataset))
    kept = {name: count for name, count in dataset.rows.items() if name != "grpo"}  # GRPO asks the rows of sft again
    levels.append((sum(kept.values()), "rows", []))


def _unreadable(files: Sequence[QuarantinedFile]) -> Loss:
    names = tuple((file.name, file.reason) for file in files[:LISTED])
    return Loss(len(files), "can't be read", "A file that can't be read is not scored.", names=names)


def _low(sources: Sources, classified: ClassificationReport) -> Loss:
    threshold = classified.confidence_threshold if classified.confidence_threshold is not None else HALF
    low = [one for one in _predictions(sources.artifacts["classify"]) if one.label == 0]
    pictures = tuple(
        Picture(one.name, _number(one.probability), sources.picture("classify", one.name), accepted=False)
        for one in chosen(low, lambda one: threshold - (one.probability or 0.0))
    )
    reason = f"The classifier's probability of high quality is below {threshold:g}. It stands under each picture."
    return Loss(classified.low, "of low quality", reason, pictures)


def _predictions(folder: Path) -> list[Prediction]:
    try:
        return list(predictions.read(folder))
    except DataError:
        return []


def _rejected(sources: Sources, filtered: FilteringReport) -> Loss:
    rejected = [row for row in filtered.images if not row.accepted and not row.failed_check]
    threshold = filtered.threshold

    def distance(row: ScoredImage) -> float:
        return -row.score if threshold is None else threshold - row.score

    pictures = tuple(
        Picture(
            row.name,
            f"{row.score:+.4f}" + (f", {row.decided_by}" if row.decided_by else ""),
            sources.picture("clip-filter", row.name),
            accepted=False,
        )
        for row in chosen(rejected, distance)
    )
    below = "The score is too low" if threshold is None else f"The score is below the threshold {threshold:.4f}"
    reason = f"{below}. It stands under each picture, with the most similar description."
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
    return Loss(len(others), "further views", "Another view of the same vase is more similar to a vase.", pictures)


def _lost(sources: Sources, lost: Sequence[LostVase]) -> Loss:
    def caption(vase: LostVase) -> str:
        return f"{vase.vase}, {vase.lost_at}" + ("" if vase.score is None else f" {_number(vase.score)}")

    shown = chosen(lost, lambda vase: -(vase.score or 0.0))
    pictures = tuple(
        Picture(vase.best, caption(vase), sources.picture(vase.lost_at, vase.best), accepted=False) for vase in shown
    )
    reason = "No photograph of these vases was accepted. The best one is shown, with the step that rejected it."
    title = f"vase{'s' if len(lost) != 1 else ''} lost at an earlier step"
    return Loss(len(lost), title, reason, pictures, subtracted=False)


def _problems(dataset: DatasetReport) -> Iterable[Loss]:
    for kind, count in dataset.problems.items():
        listed = dataset.problem_list.get(kind, [])[:LISTED]
        yield Loss(
            count,
            f"left out of the dataset: {kind}",
            "build-dataset lists each place.",
            names=tuple((problem.where, problem.what) for problem in listed),
            subtracted=False,
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
