"""grpo: reinforcement learning from a verifiable reward (GRPO) with ms-swift."""

from __future__ import annotations

from vasevqa import spec
from vasevqa.training.params import INPUTS, SOURCES, GrpoOptions, GrpoParams


def run(call: spec.StageCall[GrpoParams, GrpoOptions]) -> None:
    """Check what can be checked, train in a child process, keep checkpoints, reward curve and completions."""
    from vasevqa.training import trainer

    trainer.train(call)


STAGE = spec.Stage(
    "grpo",
    1,
    GrpoParams,
    GrpoOptions,
    (
        spec.Input(
            "model", "--model", "the model to improve, such as the merged result of sft: a folder or a hub id", hub=True
        ),
        spec.Input("dataset", "--dataset-dir", INPUTS["dataset"] + " (grpo.jsonl)", aliases=("--dataset",)),
        spec.Input("system", "--system", "a text file with the system prompt", required=False),
        spec.Input("plugin", "--external-plugins", "a Python file with your own reward functions", required=False),
        spec.Input("resume", "--resume-from-checkpoint", INPUTS["resume"], required=False),
    ),
    "Reinforcement (GRPO) with the vase reward, by ms-swift.",
    spec.Resources(cpus=8, memory="64Gi", gpus=1, gpu_memory="32G", shm="8Gi"),
    sources=(*SOURCES, "vasevqa.reward.score", "vasevqa.training.swift.plugin"),
    run=run,
)
