"""merge: merge an adapter into its base model, and compare the logits of the merged model and base plus adapter."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.training.params import MergeOptions, MergeParams


def run(call: spec.StageCall[MergeParams, MergeOptions]) -> None:
    """Merge the adapter, compare the logits, and write the differences.

    A full model without an adapter stays unchanged.

    Raise GateError if the logits differ by more than the tolerance.
    """
    from vasevqa.training import merge

    merge.merge(call)


STAGE = spec.Stage(
    "merge",
    1,
    MergeParams,
    MergeOptions,
    (
        spec.Input("model", "--model", "the base model that was trained: a folder or a hub id", hub=True),
        spec.Input("adapters", "--adapters", "the output of sft or grpo, or one of its checkpoints"),
    ),
    "Merges the adapter into its base model and checks that the outputs agree.",
    spec.Resources(cpus=4, memory="48Gi", gpus=0),
    sources=(
        "vasevqa.training.swift.arguments",
        "vasevqa.training.merge",
        "vasevqa.training.merged",
        "vasevqa.training.adapter",
        "vasevqa.training.params",
        "vasevqa.training.parity",
        "vasevqa.training.checkpoints",
        "vasevqa.training.swift.worker",
    ),
    run=run,
)
