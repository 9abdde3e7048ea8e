"""build-dataset: views and annotations become the rows that training and evaluation read."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.dataset.params import BuildOptions, BuildParams


def run(call: spec.StageCall[BuildParams, BuildOptions]) -> None:
    """Read, join, split, and write sft.jsonl, val.jsonl, grpo.jsonl, eval.jsonl, dataset_report.json and images/."""
    from vasevqa.dataset import build

    build.build(call)


STAGE = spec.Stage(
    "build-dataset",
    1,
    BuildParams,
    BuildOptions,
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
        "vasevqa.dataset.params",
        "vasevqa.dataset.annotations",
        "vasevqa.dataset.questions",
        "vasevqa.dataset.splits",
        "vasevqa.dataset.build",
        "vasevqa.dataset.join",
        "vasevqa.dataset.rows",
        "vasevqa.dataset.report",
    ),
    run=run,
)
