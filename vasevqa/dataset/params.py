"""Parameters and options of build-dataset."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vasevqa import spec


class BuildParams(spec.Params):
    """What decides the rows."""

    views: Literal["best", "all"] = Field(
        "best", description="best: one view of each vase; all: every image that clip-filter accepted"
    )
    val_fraction: float = Field(0.1, ge=0, lt=0.5, description="part of the images for SFT's own validation")
    eval_fraction: float = Field(0.15, ge=0, lt=0.5, description="part of the images that is never seen in training")
    seed: int = Field(42, ge=0, description="the split of the vases, and the choice of questions")
    hash_distance: int = Field(
        8,
        ge=0,
        le=31,
        description="bits of 256 in which the hashes of near-duplicates may differ; they stay on one side",
    )
    group_duplicates: bool = Field(True, description="keep near-duplicate pictures on one side of the split")
    include_captions: bool = Field(
        True, description="also ask for whole captions (in SFT and evaluation; never in GRPO)"
    )
    max_questions: int | None = Field(
        None, ge=1, description="at most this many attribute questions per image, drawn by seed"
    )
    name_pattern: str | None = Field(
        None,
        description=(
            "regular expression for a file's stem with the groups vase and view; unset: <UUID>_<view>_ac<number>"
        ),
    )


class BuildOptions(spec.Options):
    """How the rows are made."""

    image_root: str | None = Field(
        None,
        description=(
            "folder above the output that the rows' image paths are relative to; unset: the volume, or the output"
        ),
    )
    workers: int = Field(0, ge=0, description="threads that read pictures; 0: as many as cores")
