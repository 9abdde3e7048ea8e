"""The reports of the curation stages: what each writes about its images and later ones read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator

from vasevqa.spec import Output, Report


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class QuarantinedFile(_Row):
    """A file that couldn't be read, by its name in the input folder."""

    name: str
    reason: str = ""


class ScoredImage(_Row):
    """One image of clip-filter. Its score is its similarity to the high prompts minus that to the low prompts."""

    name: str
    accepted: bool
    score: float = 0.0
    high_similarity: float = 0.0
    low_similarity: float = 0.0
    decided_by: str = ""  # the nearest prompt of the side that it fell on


class Recommendation(_Row):
    """A threshold to choose: `keeps` is the part of the images at or above it, `percentile` that of those below."""

    name: str
    percentile: int
    threshold: float
    keeps: float


class ScoringModel(_Row):
    """The CLIP model that scored, and in which precision."""

    name: str = ""
    digest: str = ""
    precision: str = ""


class TimedScoringModel(ScoringModel):
    """The same with the seconds that decoding and the model took."""

    seconds: dict[str, float]


class PromptLists(_Row):
    """Descriptions of what is kept and of what is not."""

    high: list[str]
    low: list[str]


class FilteringAnalysis(Report):
    """What clip-filter found out about scores: the whole of analysis.json."""

    FILE: ClassVar[str] = "analysis.json"

    model: SerializeAsAny[ScoringModel] = ScoringModel()
    prompts: PromptLists | None = None
    statistics: dict[str, float] = Field(default_factory=dict)
    recommendations: list[Recommendation] = Field(default_factory=list)
    threshold: float | None = None
    threshold_source: str = ""
    quarantined: list[QuarantinedFile] = Field(default_factory=list)


class FilteringReport(FilteringAnalysis):
    """What clip-filter decided about every image."""

    FILE: ClassVar[str] = "filtering_report.json"

    complete: bool = True  # false: an interrupted call was about to place these images
    images: list[ScoredImage] = Field(default_factory=list)
    earlier_images: list[ScoredImage] = Field(default_factory=list)  # of other calls into the same folder

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
    """The best view of a vase, by how much it won (none without a rival) and why."""

    vase: str
    best: str
    view: str = ""
    similarity: float = 0.0
    runner_up: str | None = None
    margin: float | None = None
    reason: str = ""
    views: list[ViewScore] = Field(default_factory=list)  # all of them, the best first


class LostVase(_Row):
    """A vase without an accepted view: the step that lost it last, and its best image there with that step's score."""

    vase: str
    lost_at: str
    best: str
    score: float | None = None


class BestViewsReport(Report):
    """What select-views chose."""

    FILE: ClassVar[str] = "best_views_report.json"

    scores_from: str = ""
    vases: list[ViewChoice] = Field(default_factory=list)
    unmatched: list[str] = Field(default_factory=list)  # images whose names match no pattern
    lost: list[LostVase] = Field(default_factory=list)
    quarantined: list[QuarantinedFile] = Field(default_factory=list)


class ViewStatistics(Report):
    """How many views there are of how many vases; similarities as `scoring.statistics` has them."""

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
    """How classify sorted the images."""

    FILE: ClassVar[str] = "classification_report.json"

    images: int = 0
    high: int = 0
    low: int = 0
    confidence_threshold: float | None = None
    temperature: float | None = None
    arch: str = ""
    histogram: Histogram | None = None
    quarantined: list[QuarantinedFile] = Field(default_factory=list)


class Quarantine(Report):
    """quarantined.json: what classify couldn't read."""

    FILE: ClassVar[str] = "quarantined.json"

    quarantined: list[QuarantinedFile] = Field(default_factory=list)


class ClassifierMetrics(_Row):
    """Of class 1 (high quality) on the test images; `roc_auc` is None where they are all of one class."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    roc_auc: float | None
    confusion_matrix: list[list[int]]  # [[tn, fp], [fn, tp]]


class SplitSize(_Row):
    """Images of a part of the split, and how many of them are of high quality."""

    images: int
    high: int


class TrainingResults(Report):
    """What train-classifier learnt. The metrics stand in `test`, and as in the original beside it."""

    FILE: ClassVar[str] = "training_results.json"

    test: ClassifierMetrics | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    roc_auc: float | None = None
    confusion_matrix: list[list[int]] | None = None
    temperature: float | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    splits: dict[str, SplitSize] = Field(default_factory=dict)
    history: list[dict[str, int | float]] = Field(default_factory=list)
    weights: str = ""
    device: str = ""
    quarantined: list[QuarantinedFile] = Field(default_factory=list)


class _Unreadable(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def reason(self) -> str: ...


def quarantined_files(items: Iterable[_Unreadable]) -> list[QuarantinedFile]:
    """Files that couldn't be read, as reports list them."""
    return [QuarantinedFile(name=item.name, reason=item.reason) for item in items]


def remove_ours(output: Output, name: str) -> None:
    """Remove a file that an earlier report says we placed at `name`; nothing outside the output folder."""
    output.check()
    target = output.root / name
    if ".." not in Path(name).parts and not Path(name).is_absolute():
        target.unlink(missing_ok=True)
