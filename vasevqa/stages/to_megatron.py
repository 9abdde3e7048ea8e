"""to-megatron: convert the trained model to a Megatron checkpoint, or convert such a checkpoint back."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.training.params import ConversionOptions, ConversionParams


def run(call: spec.StageCall[ConversionParams, ConversionOptions]) -> None:
    """Convert the model, compare the result with the original model, and write the differences.

    After a conversion to Megatron's format, the logits for a question about a picture are compared. After a conversion
    back, the tensors are compared. Raise GateError if the differences are too large.
    """
    from vasevqa.training import export

    export.convert(call)


STAGE = spec.Stage(
    "to-megatron",
    1,
    ConversionParams,
    ConversionOptions,
    (
        spec.Input("model", "--model", "the model to convert: a folder or a hub id", hub=True),
        spec.Input(
            "mcore",
            "--to-hf",
            "convert this Megatron checkpoint back; --model then provides configuration and tokenizer",
            required=False,
        ),
    ),
    "Converts a model to Megatron's format (needs CUDA).",
    spec.Resources(cpus=8, memory="96Gi", gpus=1, gpu_memory="40G"),
    sources=(
        "vasevqa.training.export",
        "vasevqa.training.params",
        "vasevqa.training.swift.megatron_worker",
        "vasevqa.training.swift.arguments",
        "vasevqa.training.parity",
    ),
    run=run,
)
