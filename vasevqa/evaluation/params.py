"""Parameters and options of evaluate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vasevqa import spec


class EvaluateParams(spec.Params):
    """What decides the figures."""

    max_new_tokens: int = Field(256, ge=1, description="maximum tokens of an answer")
    max_samples: int | None = Field(None, ge=1, description="use at most this many held-out rows")
    max_pixels: int = Field(
        1003520, ge=784, description="larger images are scaled down to this many pixels, as in training"
    )
    torch_dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="precision of the models")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="engine that generates the answers (vllm needs its package)"
    )
    fuzzy_threshold: float = Field(
        0.8, ge=0, le=1, description="minimum reward for an answer to count as right in fuzzy accuracy"
    )
    bootstrap: int = Field(1000, ge=0, description="resamples of the 95% intervals")
    seed: int = Field(42, ge=0, description="the resamples' seed")


class EvaluateOptions(spec.Options):
    """How the evaluation runs."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    batch_size: int = Field(8, ge=1, description="rows answered at once")
    image_root: str | None = Field(
        None, description="folder that the rows' image paths are relative to; unset: what dataset_report.json says"
    )
