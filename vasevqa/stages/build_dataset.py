"""build-dataset: views and annotations become the rows that training and evaluation read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from vasevqa import spec


class Params(spec.Params):
    """What decides the rows."""

    views: Literal["best", "all"] = Field(
        "best", description="best: one view of each vase; all: every image that clip-filter accepted"
    )
    val_fraction: float = Field(0.1, ge=0, lt=0.5, description="part of the images for SFT's own validation")
    eval_fraction: float = Field(0.15, ge=0, lt=0.5, description="part of the images that is never seen in training")
    seed: int = Field(42, ge=0, description="which vases go where, and which question is asked")
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
        None, ge=1, description="at most so many attribute questions an image, drawn by seed"
    )
    name_pattern: str | None = Field(
        None,
        description=(
            "regular expression for a file's stem with the groups vase and view; unset: <UUID>_<view>_ac<number>"
        ),
    )


class Options(spec.Options):
    """How the rows are made."""

    image_root: str | None = Field(
        None,
        description=(
            "folder above the output that the rows' image paths are relative to; unset: the volume, or the output"
        ),
    )
    workers: int = Field(0, ge=0, description="threads that read pictures; 0: as many as cores")


def run(
    params: Params, options: Options, inputs: Mapping[str, Path], output: spec.Output, progress: spec.Progress
) -> None:
    """Read, join, split, and write sft.jsonl, val.jsonl, grpo.jsonl, eval.jsonl, dataset_report.json and images/."""
    from vasevqa.dataset import build

    build.build(params.model_dump(), options.model_dump(), inputs, output, progress)


STAGE = spec.Stage(
    "build-dataset",
    1,
    Params,
    Options,
    (
        spec.Input(
            "images", "--input-dir", "what select-views wrote, or any folder of images", aliases=("--images-dir",)
        ),
        spec.Input(
            "annotations",
            "--annotations",
            "JSON, JSON lines or CSV of attributes or conversations; a file, or a folder of files",
        ),
        spec.Input("accepted", "--accepted-dir", "what clip-filter wrote, needed for --views all", required=False),
        spec.Input("questions", "--questions", "a YAML file with questions for each attribute", required=False),
    ),
    "Joins views and annotations into the rows that training and evaluation read.",
    spec.Resources(cpus=2, memory="4Gi"),
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.file_names",
        "vasevqa.dataset.annotations",
        "vasevqa.dataset.questions",
        "vasevqa.dataset.splits",
        "vasevqa.dataset.build",
        "vasevqa.dataset.join",
        "vasevqa.dataset.rows",
    ),
    run=run,
)
