"""evaluate: is the trained model better than the one it began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from vasevqa import spec


class Params(spec.Params):
    """What decides the figures."""

    max_new_tokens: int = Field(256, ge=1, description="tokens of an answer, at most")
    max_samples: int | None = Field(None, ge=1, description="only so many held-out rows")
    max_pixels: int = Field(
        1003520, ge=784, description="larger images are scaled down to so many pixels, as in training"
    )
    torch_dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="precision of the models")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="what generates the answers (vllm needs its package)"
    )
    fuzzy_threshold: float = Field(
        0.8, ge=0, le=1, description="an answer whose reward reaches it counts as right in fuzzy accuracy"
    )
    bootstrap: int = Field(1000, ge=0, description="resamples of the 95% intervals")
    seed: int = Field(42, ge=0, description="the resamples' seed")


class Options(spec.Options):
    """How the evaluation runs."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; one that isn't there is an error")
    batch_size: int = Field(8, ge=1, description="rows answered at once")
    image_root: str | None = Field(
        None, description="folder that the rows' image paths are relative to; unset: what dataset_report.json says"
    )


def run(
    params: Params, options: Options, inputs: Mapping[str, Path], output: spec.Output, progress: spec.Progress
) -> None:
    """Generate answers, measure, and write evaluation.json, comparison.md and comparison.png."""
    from vasevqa.evaluation import evaluate

    evaluate.evaluate(params.model_dump(), options.model_dump(), inputs, output, progress)


STAGE = spec.Stage(
    "evaluate",
    1,
    Params,
    Options,
    (
        spec.Input(
            "dataset",
            "--dataset-dir",
            "what build-dataset wrote; its eval.jsonl is asked",
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
    sources=tuple(
        f"vasevqa.evaluation.{name}"
        for name in ("evaluate", "metrics", "captions", "generation", "encoders", "comparison")
    ),
    run=run,
)
