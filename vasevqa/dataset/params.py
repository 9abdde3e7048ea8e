"""The parameters and options of build-dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from vasevqa import spec
from vasevqa.curation.file_names import DESCRIPTION, UNMATCHED_DESCRIPTION, NamePattern
from vasevqa.dataset.columns import FIELDS, read_columns
from vasevqa.errors import ConfigError


class BuildParams(spec.Params):
    """The parameters that determine the content of the rows."""

    views: Literal["best", "all"] = Field(
        "best", description="best: one view of each vase; all: every image that clip-filter accepted"
    )
    val_fraction: float = Field(0.1, ge=0, lt=0.5, description="part of the vases for SFT's own validation")
    eval_fraction: float = Field(0.15, ge=0, lt=0.5, description="part of the vases that is never seen in training")
    seed: int = Field(42, ge=0, description="seed for the split of the vases and the choice of questions")
    hash_distance: int = Field(
        8,
        ge=0,
        le=31,
        description="pictures are near-duplicates if their 256-bit hashes differ in at most this many bits",
    )
    group_duplicates: bool = Field(True, description="keep near-duplicate pictures in the same part of the split")
    include_captions: bool = Field(
        True, description="also ask for whole captions (in SFT and evaluation; never in GRPO)"
    )
    max_questions: int | None = Field(
        None, ge=1, description="maximum number of attribute questions per image, chosen at random by seed"
    )
    name_pattern: NamePattern = Field(
        None, description=f"{DESCRIPTION}; for a folder of select-views, unset means select-views' pattern"
    )
    unmatched: Literal["error", "own-vase"] = Field(
        "error", description=f"{UNMATCHED_DESCRIPTION}; not needed if an annotation names the file or its stem"
    )
    allow_unmatched: bool = Field(
        False,
        description="build the dataset even if most photographs or most annotations have no counterpart",
    )

    columns: dict[str, str] = Field(
        default_factory=dict,
        description=(
            'headings of your table by field, such as shape="Object Name",date="Object Date"; fields: '
            + ", ".join(FIELDS)
        ),
    )
    records: str | None = Field(
        None, description="name of the list of records inside a JSON object, such as data or response.docs"
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _columns(cls, given: object) -> object:
        texts = [given] if isinstance(given, str) else given
        if isinstance(texts, list) and len(texts) == 1 and str(texts[0]).startswith("{"):
            texts = given = json.loads(texts[0])  # JSON from a launcher's command line
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return read_columns(texts)
        if isinstance(given, dict) and all(isinstance(text, str) for pair in given.items() for text in pair):
            return read_columns(given)
        return given


class BuildOptions(spec.Options):
    """The options that don't change the content of the rows."""

    image_root: str | None = Field(
        None,
        description=(
            "folder that contains the output; image paths in rows are relative to it; unset: the volume, or the output"
        ),
    )
    workers: int = Field(0, ge=0, description="number of threads that read pictures; 0: one per core")


def photograph_folder(params: BuildParams, inputs: Mapping[str, Path]) -> Path:
    """Return the folder of the photographs.

    Raise ConfigError if the parameter `views` is "all" and `inputs` doesn't hold the output of clip-filter.
    """
    if params.views == "all":
        if "accepted" not in inputs:
            raise ConfigError("--views all needs --accepted-dir; give clip-filter's output or any folder of images.")
        base, inner = inputs["accepted"], "accepted"
    else:
        base, inner = inputs["images"], "best_views"
    return base / inner if (base / inner).is_dir() else base
