"""to-megatron: the trained model as a Megatron checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from vasevqa import spec


class Params(spec.Params):
    """What decides whether the conversion counts."""

    tolerance: float = Field(
        0.1,
        ge=0,
        description="greatest mean difference of the logits of an answer between the two forms (ms-swift's own advice)",
    )
    agreement: float = Field(
        0.99, ge=0, le=1, description="least part of the tokens on which both forms have the same first choice"
    )


class Options(spec.Options):
    """How the conversion runs."""

    device: str = Field("auto", description="auto or cuda:N")
    hub: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="where a model given by its hub id comes from"
    )


def run(
    params: Params, options: Options, inputs: Mapping[str, Path], output: spec.Output, progress: spec.Progress
) -> None:
    """Convert, compare both forms on a picture, and keep the figures; GateError over tolerance."""
    from vasevqa.training import export

    export.convert(params.model_dump(), options.model_dump(), inputs, output, progress)


STAGE = spec.Stage(
    "to-megatron",
    1,
    Params,
    Options,
    (
        spec.Input("model", "--model", "the model to convert: a folder or a hub id", hub=True),
        spec.Input(
            "mcore",
            "--to-hf",
            "convert this Megatron checkpoint back; --model then gives configuration and tokenizer",
            required=False,
        ),
    ),
    "Converts a model to Megatron's format (needs CUDA).",
    spec.Resources(cpus=8, memory="96Gi", gpus=1, gpu_memory="40G"),
    sources=(
        "vasevqa.training.export",
        "vasevqa.training.swift.megatron_worker",
        "vasevqa.training.swift.arguments",
        "vasevqa.training.parity",
    ),
    run=run,
)
