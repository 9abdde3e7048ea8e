"""dataset_report.json: what build-dataset made, and what it left out and why."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from vasevqa.curation.reports import QuarantinedFile
from vasevqa.spec import Report


class ListedProblem(BaseModel):
    """Where in the annotations or pictures, and what."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    where: str
    what: str


class DatasetReport(Report):
    """Counts by file of rows (sft, val, grpo, eval), and everything that is in none of them."""

    FILE: ClassVar[str] = "dataset_report.json"

    image_root: str = "."  # from the dataset's folder to where the rows' image paths begin
    rows: dict[str, int] = Field(default_factory=dict)
    attributes: dict[str, dict[str, int]] = Field(default_factory=dict)
    vases: dict[str, int] = Field(default_factory=dict)
    vase_ids: dict[str, list[str]] = Field(default_factory=dict)
    images: int = 0
    near_duplicates: list[tuple[str, str]] = Field(default_factory=list)
    near_duplicate_pairs: int = 0
    problems: dict[str, int] = Field(default_factory=dict)  # kind -> how often, also of those that aren't listed
    problem_list: dict[str, list[ListedProblem]] = Field(default_factory=dict)
    quarantined: list[QuarantinedFile] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
