"""The parameters and options of evaluate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vasevqa import spec


class EvaluateParams(spec.Params):
    """The parameters that determine the metrics."""

    max_new_tokens: int = Field(256, ge=1, description="maximum tokens of an answer")
    max_samples: int | None = Field(
        None, ge=1, description="maximum number of held-out rows, from whole vases chosen at random by seed"
    )
    max_pixels: int = Field(
        1003520, ge=784, description="maximum pixels of an image; larger images are scaled down, as in training"
    )
    torch_dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="precision of the models")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="engine that generates the answers (vllm needs its package)"
    )
    fuzzy_threshold: float = Field(
        0.8, ge=0, le=1, description="minimum reward for an answer to count as right in fuzzy accuracy"
    )
    blind: bool = Field(
        True, description="also ask the last model without the picture, to test whether it uses the picture"
    )
    samples: int = Field(
        0,
        ge=0,
        le=64,
        description="further answers to each question, sampled at `temperature`, to see whether they agree; 0: none",
    )
    temperature: float = Field(1.0, gt=0, le=5, description="temperature of the sampled answers")
    bootstrap: int = Field(1000, ge=0, description="number of bootstrap samples for the interval of BLEU")
    seed: int = Field(42, ge=0, description="seed for drawing vases (max_samples)")


class EvaluateOptions(spec.Options):
    """The options that don't change the metrics."""

    device: spec.Device = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    batch_size: int = Field(8, ge=1, description="rows per batch")
    image_root: str | None = Field(
        None, description="folder that the rows' image paths are relative to; unset: the folder in dataset_report.json"
    )
