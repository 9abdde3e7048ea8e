"""evaluate: is the trained model better than the one it began with."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.evaluation.params import EvaluateOptions, EvaluateParams


def run(call: spec.StageCall[EvaluateParams, EvaluateOptions]) -> None:
    """Generate answers, measure, and write evaluation.json, comparison.md and comparison.png."""
    from vasevqa.evaluation import evaluate

    evaluate.evaluate(call)


STAGE = spec.Stage(
    "evaluate",
    1,
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
            "an encoder in a Hugging Face folder, for semantic similarity and the Fréchet distance",
            required=False,
        ),
        spec.Input(
            "captions",
            "--captions",
            "instead of models: caption files in the original's format; a file, or a folder of files",
            required=False,
        ),
        spec.Input("reference", "--reference", "the true captions in the same format, for --captions", required=False),
    ),
    "Compares base, SFT and GRPO model on held-out vases.",
    spec.Resources(cpus=4, memory="48Gi", gpus=1, gpu_memory="24G"),
    sources=(
        "vasevqa.journal",
        "vasevqa.dataset.rows",
        "vasevqa.evaluation.params",
        "vasevqa.evaluation.evaluate",
        "vasevqa.evaluation.metrics",
        "vasevqa.evaluation.captions",
        "vasevqa.evaluation.generation",
        "vasevqa.evaluation.encoders",
        "vasevqa.evaluation.comparison",
    ),
    run=run,
)
