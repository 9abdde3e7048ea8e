"""Read the reports of the curation and of the dataset. Each file is read at most once, and only if it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from vasevqa.curation import predictions
from vasevqa.curation.predictions import Prediction
from vasevqa.curation.reports import (
    BestViewsReport,
    ClassificationReport,
    FilteringReport,
    PassedOverFiles,
    Quarantine,
    QuarantinedFile,
    TrainingResults,
)
from vasevqa.dataset.report import DatasetReport
from vasevqa.errors import DataError
from vasevqa.report.pictures import Thumbnails
from vasevqa.spec import Report

PARTS = {  # the folders of rejected photographs (by step), accepted photographs and best views
    "classify": "classify/0",
    "clip-filter": "clip-filter/rejected",
    "accepted": "clip-filter/accepted",
    "select-views": "select-views/best_views",
}
ReportT = TypeVar("ReportT", bound=Report)
_OfPhotographs = TrainingResults | ClassificationReport | FilteringReport | BestViewsReport | DatasetReport


@dataclass(frozen=True)
class Sources:
    """The reports of a run's artifacts. `artifacts` maps steps to folders.

    A property that returns the report of a step is None if the step has no report.
    """

    artifacts: Mapping[str, Path]
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    @cached_property
    def trained(self) -> TrainingResults | None:
        """The report of train-classifier."""
        return self._read("train-classifier", TrainingResults)

    @cached_property
    def classified(self) -> ClassificationReport | None:
        """The report of classify."""
        return self._read("classify", ClassificationReport)

    @cached_property
    def predictions(self) -> Sequence[Prediction]:
        """The predictions of classify; () if they are missing or can't be read, so that the report is still written."""
        try:
            return tuple(predictions.read(self.artifacts["classify"])) if "classify" in self.artifacts else ()
        except DataError:
            return ()

    @cached_property
    def filtered(self) -> FilteringReport | None:
        """The report of clip-filter."""
        return self._read("clip-filter", FilteringReport)

    @cached_property
    def views(self) -> BestViewsReport | None:
        """The report of select-views."""
        return self._read("select-views", BestViewsReport)

    @cached_property
    def dataset(self) -> DatasetReport | None:
        """The report of build-dataset."""
        return self._read("build-dataset", DatasetReport)

    @property
    def _of_photographs(self) -> Mapping[str, _OfPhotographs | None]:
        """The reports of the steps that read photographs."""
        return {
            "train-classifier": self.trained,
            "classify": self.classified,
            "clip-filter": self.filtered,
            "select-views": self.views,
            "build-dataset": self.dataset,
        }

    @cached_property
    def passed_over(self) -> Mapping[str, Sequence[PassedOverFiles]]:
        """The files that each step skipped without reading, by step in the order of the steps."""
        found = {step: report.passed_over if report else [] for step, report in self._of_photographs.items()}
        return {step: found[step] for step in self.artifacts if found.get(step)}

    @cached_property
    def unread(self) -> Mapping[str, Sequence[QuarantinedFile]]:
        """The files that each step could not read, by step in the order of the steps."""
        found = {step: report.quarantined if report else [] for step, report in self._of_photographs.items()}
        if not found["classify"]:
            quarantine = self._read("classify", Quarantine)
            found["classify"] = quarantine.quarantined if quarantine else []
        return {step: found[step] for step in self.artifacts if found.get(step)}

    def picture(self, place: str, name: str) -> str | None:
        """Return the thumbnail of a photograph as a data URI; None if there is none. `place` is a key of PARTS."""
        folder, _, part = PARTS.get(place, "").partition("/")
        if folder not in self.artifacts or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        return self.thumbnails.of(self.artifacts[folder] / part / name)

    def _read(self, step: str, kind: type[ReportT]) -> ReportT | None:
        return kind.read(self.artifacts[step]) if step in self.artifacts else None
