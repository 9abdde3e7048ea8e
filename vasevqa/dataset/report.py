"""The types of dataset_report.json, which describes a dataset and says what was dropped from its inputs, and why."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from vasevqa.curation.reports import PassedOverFiles, QuarantinedFile
from vasevqa.spec import Report


class ListedProblem(BaseModel):
    """A problem in the annotations or pictures, with its place and its description."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    where: str
    what: str


class DatasetReport(Report):
    """The content of dataset_report.json.

    The report counts the rows, attributes and vases for each file of rows (sft, val, grpo, eval). It also lists the
    problems and the unreadable files.
    """

    FILE: ClassVar[str] = "dataset_report.json"

    image_root: str = "."  # relative path from the dataset's folder to the root of the image paths in rows
    rows: dict[str, int] = Field(default_factory=dict)
    attributes: dict[str, dict[str, int]] = Field(default_factory=dict)
    vases: dict[str, int] = Field(default_factory=dict)
    vase_ids: dict[str, list[str]] = Field(default_factory=dict)
    images: int = 0
    near_duplicates: list[tuple[str, str]] = Field(default_factory=list)
    near_duplicate_pairs: int = 0
    problems: dict[str, int] = Field(default_factory=dict)  # kind -> count, including problems that aren't listed
    problem_list: dict[str, list[ListedProblem]] = Field(default_factory=dict)
    lenient: dict[str, int] = Field(default_factory=dict)  # matches that ignored a difference, by kind of difference
    cleaned: dict[str, int] = Field(default_factory=dict)  # number of changed texts, by the kind of removed content
    quarantined: list[QuarantinedFile] = Field(default_factory=list)
    passed_over: list[PassedOverFiles] = Field(default_factory=list)
    columns: dict[str, str] = Field(default_factory=dict)  # heading -> its field
    unused_columns: dict[str, int] = Field(default_factory=dict)  # heading -> number of rows
    rights: dict[str, int] = Field(default_factory=dict)  # licence, credit line, source -> pictures
    notes: list[str] = Field(default_factory=list)
