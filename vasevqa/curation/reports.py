"""The reports that the curation stages write and that later stages read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator

from vasevqa.folders import PassedOver
from vasevqa.spec import Output, Report


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class QuarantinedFile(_Row):
    """A file that couldn't be read. `name` is relative to the input folder."""

    name: str
    reason: str = ""


class PassedOverFiles(_Row):
    """The files that were not read for one reason: the reason, the number of files, and the first names."""

    reason: str
    count: int
    names: list[str] = Field(default_factory=list)


class DataChecks(_Row):
    """The values that clip-filter measures for a photograph. The module curation.checks defines them.

    All values are None if the checks are off, if the report comes from an earlier version, or if the photograph can't
    be decoded at full size.
    """

    VERSION: ClassVar[int] = 1  # increased if a value's definition changes; values of other versions aren't used

    width: int | None = None  # of the upright photograph, in pixels
    height: int | None = None
    aspect: float | None = None  # width / height
    sharpness: float | None = None
    brightness: float | None = None
    clipped_dark: float | None = None
    clipped_bright: float | None = None
    frame: float | None = None
    colour_card_suspected: bool | None = None
    scale_bar_suspected: bool | None = None
    near_duplicate_of: str | None = None  # the first photograph that is nearly the same


class ScoredImage(DataChecks):
    """An image that clip-filter scored.

    The score is the similarity to the high prompts minus the similarity to the low prompts. An image with a
    `failed_check` is rejected, even if its score reaches the threshold.
    """

    name: str
    accepted: bool
    score: float = 0.0
    high_similarity: float = 0.0
    low_similarity: float = 0.0
    decided_by: str = ""  # the most similar prompt on the deciding side (high or low)
    failed_check: str = ""  # the limits of data checks that the image violates


class Recommendation(_Row):
    """A recommended threshold.

    `keeps` is the share of images at or above the threshold. `percentile` is the percentage of images below it.
    """

    name: str
    percentile: int
    threshold: float
    keeps: float


class ScoringModel(_Row):
    """The CLIP model that computed the scores, and its precision."""

    name: str = ""
    digest: str = ""
    precision: str = ""


class TimedScoringModel(ScoringModel):
    """A ScoringModel with the seconds that decoding and the model took."""

    seconds: dict[str, float]


class PromptLists(_Row):
    """Descriptions of images to keep (`high`) and of images to reject (`low`)."""

    high: list[str]
    low: list[str]


class FilteringAnalysis(Report):
    """The content of analysis.json: the statistics of the scores and the recommended thresholds."""

    FILE: ClassVar[str] = "analysis.json"

    model: SerializeAsAny[ScoringModel] = ScoringModel()
    prompts: PromptLists | None = None
    statistics: dict[str, float] = Field(default_factory=dict)
    recommendations: list[Recommendation] = Field(default_factory=list)
    threshold: float | None = None
    threshold_source: str = ""
    shape: str = ""  # of the scores: two groups, one group, few, constant
    advice: str = ""
    between: float | None = None  # the score between two groups
    limits: dict[str, float] = Field(default_factory=dict)  # of the data checks, by the parameter's name
    quarantined: list[QuarantinedFile] = Field(default_factory=list)
    passed_over: list[PassedOverFiles] = Field(default_factory=list)


class FilteringReport(FilteringAnalysis):
    """The content of filtering_report.json: clip-filter's decision about every image."""

    FILE: ClassVar[str] = "filtering_report.json"

    complete: bool = True  # False if a call was interrupted while it wrote these images
    images: list[ScoredImage] = Field(default_factory=list)
    earlier_images: list[ScoredImage] = Field(default_factory=list)  # from earlier calls with the same output folder

    @field_validator("images", "earlier_images", mode="before")
    @classmethod
    def _without_broken_rows(cls, rows: Any) -> Any:
        if not isinstance(rows, list):
            return rows
        mappings = [row for row in rows if isinstance(row, ScoredImage | dict)]
        return [
            row
            for row in mappings
            if isinstance(row, ScoredImage)
            or (isinstance(row.get("name"), str) and isinstance(row.get("accepted"), bool))
        ]


class ViewScore(_Row):
    """A view of a vase, and its similarity to descriptions of a complete vase."""

    name: str
    view: str
    similarity: float


class ViewChoice(_Row):
    """The best view of a vase, and the reason for the choice.

    `margin` is the similarity of the best view minus that of the second-best view. It is None if the vase has only one
    view.
    """

    vase: str
    best: str
    view: str = ""
    similarity: float = 0.0
    runner_up: str | None = None
    margin: float | None = None
    reason: str = ""
    views: list[ViewScore] = Field(default_factory=list)  # all views, the best first


class LostVase(_Row):
    """A vase without an accepted view.

    `lost_at` is the last step that rejected an image of the vase. `best` is the best image that this step rejected, and
    `score` is the score or the probability that this step gave it. If no step could read the vase's images, `lost_at`
    is 'unreadable', `best` is the first of these images by name, and `score` is None.
    """

    vase: str
    lost_at: str
    best: str
    score: float | None = None


class BestViewsReport(Report):
    """The views that select-views chose."""

    FILE: ClassVar[str] = "best_views_report.json"

    scores_from: str = ""
    named_by: list[str] | None = None  # the patterns for the vases' names; None in a report of an earlier version
    vases: list[ViewChoice] = Field(default_factory=list)
    unmatched: list[str] = Field(default_factory=list)  # images whose names don't match the pattern
    lost: list[LostVase] = Field(default_factory=list)
    quarantined: list[QuarantinedFile] = Field(default_factory=list)
    passed_over: list[PassedOverFiles] = Field(default_factory=list)


class ViewStatistics(Report):
    """The number of views per vase, and statistics of the similarities (see `scoring.statistics`)."""

    FILE: ClassVar[str] = "filtering_stats.json"

    vases: int
    images: int
    reduction: float
    lost_vases: int
    unmatched: int
    views_per_vase: dict[str, int]
    view_distribution: dict[str, int]
    best_similarity: dict[str, float]
    all_similarity: dict[str, float]


class Histogram(_Row):
    """Counts of probabilities in equal bins from 0 to 1."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    bins: int
    begin: float = Field(0, alias="from")
    end: float = Field(1, alias="to")
    counts: list[int]


class ClassificationReport(Report):
    """The classes that classify gave the images."""

    FILE: ClassVar[str] = "classification_report.json"

    images: int = 0
    high: int = 0
    low: int = 0
    confidence_threshold: float | None = None
    temperature: float | None = None
    bias: float | None = None
    arch: str = ""
    histogram: Histogram | None = None
    quarantined: list[QuarantinedFile] = Field(default_factory=list)
    passed_over: list[PassedOverFiles] = Field(default_factory=list)


class Quarantine(Report):
    """The content of quarantined.json: the files that classify couldn't read."""

    FILE: ClassVar[str] = "quarantined.json"

    quarantined: list[QuarantinedFile] = Field(default_factory=list)


class ClassifierMetrics(_Row):
    """Metrics of class 1 (high quality) on the test images.

    `roc_auc` is None if all test images have the same class. `intervals` maps the names of metrics to their 95%
    confidence intervals, which treat vases as the units. A metric with too few vases has no interval.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    roc_auc: float | None
    confusion_matrix: list[list[int]]  # [[tn, fp], [fn, tp]]
    baseline_accuracy: float | None = None  # of always predicting the more common class
    calibration_error: float | None = None
    mean_probability: float | None = None
    share_high: float | None = None
    images: int | None = None
    vases: int | None = None
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)


class SplitSize(_Row):
    """The number of images in a part of the split, and the number of high-quality images in this part."""

    images: int
    high: int


class TrainingResults(Report):
    """The result of train-classifier.

    `test` holds the metrics. The top level repeats the most important metrics, because the original project's file has
    the metrics at the top level.
    """

    FILE: ClassVar[str] = "training_results.json"

    test: ClassifierMetrics | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    roc_auc: float | None = None
    confusion_matrix: list[list[int]] | None = None
    temperature: float | None = None
    bias: float | None = None
    doubled: list[str] = Field(default_factory=list)  # pictures that occur in both classes
    best_epoch: int | None = None
    epochs: int | None = None
    splits: dict[str, SplitSize] = Field(default_factory=dict)
    history: list[dict[str, int | float]] = Field(default_factory=list)
    weights: str = ""
    device: str = ""
    quarantined: list[QuarantinedFile] = Field(default_factory=list)
    passed_over: list[PassedOverFiles] = Field(default_factory=list)


class _Unreadable(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def reason(self) -> str: ...


def quarantined_files(items: Iterable[_Unreadable]) -> list[QuarantinedFile]:
    """Return the unreadable files as entries of a report."""
    return [QuarantinedFile(name=item.name, reason=item.reason) for item in items]


def passed_over_files(others: PassedOver) -> list[PassedOverFiles]:
    """Return entries of a report that list the files that were not read."""
    return [
        PassedOverFiles(reason=reason, count=count, names=others.names[reason])
        for reason, count in sorted(others.counts.items())
    ]


def remove_ours(output: Output, name: str) -> None:
    """Remove a file that an earlier call of the stage wrote to the output folder.

    If `name` leads out of the output folder, no file is removed.
    """
    output.check()
    target = output.root / name
    if ".." not in Path(name).parts and not Path(name).is_absolute():
        target.unlink(missing_ok=True)
