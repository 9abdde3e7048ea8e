"""merge: an adapter into its base model, and proof that the merged model says the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from vasevqa import spec


class Params(spec.Params):
    """What decides the merged model."""

    checkpoint: str = Field(
        "last",
        pattern=r"^(last|best|[0-9]+)$",
        description="which checkpoint: last, best (by validation loss or reward), or its step",
    )
    torch_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="precision of the merged weights; auto: the base model's own"
    )
    tolerance: float = Field(
        1e-3, ge=0, description="float32: greatest difference of a logit between base with adapter and merged model"
    )
    agreement: float = Field(
        0.99,
        ge=0,
        le=1,
        description="bfloat16 and float16: least part of the tokens on which both have the same first choice",
    )


class Options(spec.Options):
    """How the merge runs."""

    device: str = Field(
        "auto", description="where the two are compared: auto, cpu, cuda or cuda:N; merging itself is done on the CPU"
    )
    hub: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="where a model given by its hub id comes from"
    )


def run(
    params: Params, options: Options, inputs: Mapping[str, Path], output: spec.Output, progress: spec.Progress
) -> None:
    """Merge (a full model passes through), compare logits, and keep the figures; GateError over tolerance."""
    from vasevqa.training import merge

    merge.merge(params.model_dump(), options.model_dump(), inputs, output, progress)


STAGE = spec.Stage(
    "merge",
    1,
    Params,
    Options,
    (
        spec.Input("model", "--model", "the base model that was trained: a folder or a hub id", hub=True),
        spec.Input("adapters", "--adapters", "what sft or grpo wrote, or one of its checkpoints"),
    ),
    "Merges the adapter into its base, with a parity gate.",
    spec.Resources(cpus=4, memory="48Gi", gpus=0),
    sources=(
        "vasevqa.training.swift.arguments",
        "vasevqa.training.merge",
        "vasevqa.training.parity",
        "vasevqa.training.checkpoints",
        "vasevqa.training.swift.worker",
    ),
    run=run,
)
