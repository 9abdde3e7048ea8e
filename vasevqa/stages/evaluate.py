"""evaluate: compare the trained models with the base model on held-out vases."""

from __future__ import annotations

from vasevqa import reward, spec
from vasevqa.evaluation.params import EvaluateOptions, EvaluateParams


def run(call: spec.StageCall[EvaluateParams, EvaluateOptions]) -> None:
    """Generate answers, compute metrics, and write evaluation.json, comparison.md and comparison.png."""
    from vasevqa.evaluation import evaluate

    evaluate.evaluate(call)


STAGE = spec.Stage(
    "evaluate",
    3,
    EvaluateParams,
    EvaluateOptions,
    (
        spec.Input(
            "dataset",
            "--dataset-dir",
            "folder that build-dataset wrote; the questions come from its eval.jsonl",
            required=False,
            aliases=("--dataset",),
        ),
        spec.Input("base", "--base", "the model before training", required=False, hub=True),
        spec.Input("sft", "--sft", "the merged fine-tuned model", required=False),
        spec.Input("grpo", "--grpo", "the merged model after GRPO", required=False),
        spec.Input(
            "clip_model", "--clip-model", "a CLIP model, for CLIP similarity and retrieval", required=False, hub=True
        ),
        spec.Input(
            "sentence_model",
            "--sentence-model",
            "a sentence encoder (Hugging Face folder), for semantic similarity and the Fréchet distance",
            required=False,
        ),
        spec.Input(
            "vocabulary",
            "--vocabulary",
            "a folder with your own words for the scores (shape.yaml, place.yaml, ...)",
            required=False,
        ),
        spec.Input(
            "captions",
            "--captions",
            "caption files in the original's format, instead of models; a file, or a folder of files",
            required=False,
            kind="file or folder",
        ),
        spec.Input(
            "reference",
            "--reference",
            "the true captions in the same format, for --captions",
            required=False,
            kind="file or folder",
        ),
    ),
    "Compares the base, SFT and GRPO models on held-out vases.",
    spec.Resources(cpus=4, memory="48Gi", gpus=1, gpu_memory="24G"),
    sources=(
        "vasevqa.journal",
        "vasevqa.dataset.rows",
        "vasevqa.evaluation.params",
        "vasevqa.evaluation.evaluate",
        "vasevqa.evaluation.metrics",
        "vasevqa.evaluation.baselines",
        "vasevqa.evaluation.mistakes",
        "vasevqa.evaluation.pairs",
        "vasevqa.evaluation.original",
        "vasevqa.evaluation.caption_metrics",
        "vasevqa.evaluation.confidence",
        "vasevqa.statistics",
        *reward.SOURCES,
        "vasevqa.evaluation.captions",
        "vasevqa.evaluation.generation",
        "vasevqa.curation.decoding",
        "vasevqa.curation.colours",
        "vasevqa.evaluation.encoders",
        "vasevqa.evaluation.comparison",
    ),
    run=run,
)
