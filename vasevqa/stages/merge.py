"""merge: an adapter into its base model, and proof that the merged model says the same."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.training.params import MergeOptions, MergeParams


def run(call: spec.StageCall[MergeParams, MergeOptions]) -> None:
    """Merge (a full model passes through), compare logits, and keep the figures; GateError over tolerance."""
    from vasevqa.training import merge

    merge.merge(call)


STAGE = spec.Stage(
    "merge",
    1,
    MergeParams,
    MergeOptions,
    (
        spec.Input("model", "--model", "the base model that was trained: a folder or a hub id", hub=True),
        spec.Input("adapters", "--adapters", "what sft or grpo wrote, or one of its checkpoints"),
    ),
    "Merges the adapter into its base, with a parity gate.",
    spec.Resources(cpus=4, memory="48Gi", gpus=0),
    sources=(
        "vasevqa.training.swift.arguments",
        "vasevqa.training.merge",
        "vasevqa.training.params",
        "vasevqa.training.parity",
        "vasevqa.training.checkpoints",
        "vasevqa.training.swift.worker",
    ),
    run=run,
)
