"""sft: supervised fine-tuning of a vision-language model with ms-swift."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.training.params import INPUTS, SOURCES, SftOptions, SftParams


def run(call: spec.StageCall[SftParams, SftOptions]) -> None:
    """Check the inputs, train in a child process, and write the checkpoints, the learning curve and the metrics."""
    from vasevqa.training import trainer

    trainer.train(call)


STAGE = spec.Stage(
    "sft",
    3,
    SftParams,
    SftOptions,
    (
        spec.Input("model", "--model", "the model to fine-tune: a folder or a hub id", hub=True),
        spec.Input("dataset", "--dataset-dir", INPUTS["dataset"] + " (sft.jsonl, val.jsonl)", aliases=("--dataset",)),
        spec.Input("resume", "--resume-from-checkpoint", INPUTS["resume"], required=False),
    ),
    "Supervised fine-tuning with ms-swift (LoRA or full).",
    spec.Resources(cpus=8, memory="48Gi", gpus=1, gpu_memory="24G", shm="8Gi"),
    sources=SOURCES,
    run=run,
)
