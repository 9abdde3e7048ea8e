"""build-dataset: make the rows for training and evaluation from views and annotations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vasevqa import spec
from vasevqa.curation.file_names import check_patterns
from vasevqa.dataset.params import BuildOptions, BuildParams


def run(call: spec.StageCall[BuildParams, BuildOptions]) -> None:
    """Build the dataset: write sft.jsonl, val.jsonl, grpo.jsonl, eval.jsonl, dataset_report.json and images/."""
    from vasevqa.dataset import build

    build.build(call, made_for())


def made_for() -> dict[str, object]:
    """Return the version of the method that computes a photograph's sketch.

    A stored sketch is used again only if it was computed by the same version.
    """
    return {"stage": STAGE.name, "version": STAGE.version, "way": "hash, 64 x 64 details"}


def check(inputs: Mapping[str, Path | None], params: BuildParams) -> None:
    """Raise ConfigError for an invalid name pattern."""
    check_patterns(params.name_pattern)


STAGE = spec.Stage(
    "build-dataset",
    3,
    BuildParams,
    BuildOptions,
    (
        spec.Input("images", "--input-dir", "select-views' output, or any folder of images", aliases=("--images-dir",)),
        spec.Input(
            "annotations",
            "--annotations",
            "attributes or conversations in JSON, JSON lines, CSV, .xlsx or Parquet; a file, or a folder of files",
            kind="file or folder",
        ),
        spec.Input("accepted", "--accepted-dir", "clip-filter's output, needed for --views all", required=False),
        spec.Input(
            "splits",
            "--splits",
            "a CSV file vase,side (train, val or eval), such as an earlier splits.csv; other vases are drawn by seed",
            required=False,
            kind="file",
        ),
        spec.Input(
            "questions", "--questions", "a YAML file with questions for each attribute", required=False, kind="file"
        ),
    ),
    "Joins views and annotations into the rows that training and evaluation read.",
    spec.Resources(cpus=2, memory="4Gi"),
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.decoding",
        "vasevqa.curation.colours",
        "vasevqa.folders",
        "vasevqa.curation.file_names",
        "vasevqa.curation.hashes",
        "vasevqa.curation.metadata",
        "vasevqa.curation.naming",
        "vasevqa.curation.neighbours",
        "vasevqa.dataset.params",
        "vasevqa.dataset.annotations",
        "vasevqa.dataset.asked",
        "vasevqa.dataset.columns",
        "vasevqa.dataset.formats",
        "vasevqa.dataset.json_texts",
        "vasevqa.dataset.problems",
        "vasevqa.dataset.tables",
        "vasevqa.dataset.talks",
        "vasevqa.dataset.workbooks",
        "vasevqa.dataset.questions",
        "vasevqa.dataset.splits",
        "vasevqa.dataset.assignment",
        "vasevqa.dataset.duplicates",
        "vasevqa.dataset.lookup",
        "vasevqa.dataset.texts",
        "vasevqa.dataset.build",
        "vasevqa.dataset.vases",
        "vasevqa.dataset.join",
        "vasevqa.dataset.rows",
        "vasevqa.dataset.sketches",
        "vasevqa.dataset.report",
    ),
    run=run,
    check=check,
)
