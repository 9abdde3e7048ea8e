"""merge: merge an adapter into its base model, and check that the merged model gives the same logits."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.training.params import MergeOptions, MergeParams


def run(call: spec.StageCall[MergeParams, MergeOptions]) -> None:
    """Merge the adapter into its base model, compare the result with base plus adapter, and write the differences.

    A full model without an adapter stays unchanged.

    Raise GateError if the weights or the logits differ too much.
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
