"""grpo: reinforcement learning from a verifiable reward (GRPO) with ms-swift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vasevqa import reward, spec
from vasevqa.training.params import INPUTS, SOURCES, GrpoOptions, GrpoParams


def run(call: spec.StageCall[GrpoParams, GrpoOptions]) -> None:
    """Check the inputs, train in a child process, and write the checkpoints, the reward curve and the completions."""
    from vasevqa.training import trainer

    check(call.inputs, call.params)
    trainer.train(call)


def check(inputs: Mapping[str, Path | None], params: GrpoParams) -> None:
    """Check the user's reward file, vocabulary and system prompt before the first step of a run starts.

    Otherwise a mistake in them would be found only after hours of fine-tuning.

    Raise ConfigError if a reward function is missing or can't be called, if the vocabulary is invalid, or if the file
    with the system prompt is not UTF-8 text.
    """
    from vasevqa.reward import vocabulary
    from vasevqa.training import reward_file
    from vasevqa.training.swift.arguments import system_prompt

    system_prompt(inputs.get("system"))

    if (folder := inputs.get("vocabulary")) is not None:
        vocabulary.check(folder)
    if (plugin := inputs.get("plugin")) is not None:
        reward_file.check_file(plugin, params.reward_funcs)


STAGE = spec.Stage(
    "grpo",
    3,
    GrpoParams,
    GrpoOptions,
    (
        spec.Input(
            "model", "--model", "the model to improve, such as the merged result of sft: a folder or a hub id", hub=True
        ),
        spec.Input("dataset", "--dataset-dir", INPUTS["dataset"] + " (grpo.jsonl)", aliases=("--dataset",)),
        spec.Input("system", "--system", "a text file with the system prompt", required=False, kind="file"),
        spec.Input(
            "plugin",
            "--external-plugins",
            "a Python file with your own reward functions",
            required=False,
            kind="file",
        ),
        spec.Input(
            "vocabulary",
            "--vocabulary",
            "a folder with your own words for the reward (shape.yaml, place.yaml, ...)",
            required=False,
        ),
        spec.Input("resume", "--resume-from-checkpoint", INPUTS["resume"], required=False),
    ),
    "Reinforcement (GRPO) with the vase reward, by ms-swift.",
    spec.Resources(cpus=8, memory="64Gi", gpus=1, gpu_memory="32G", shm="8Gi"),
    sources=(
        *SOURCES,
        *reward.SOURCES,
        "vasevqa.training.reward_file",
        "vasevqa.training.signatures",
        "vasevqa.training.swift.plugin",
        "vasevqa.training.swift.scoring",
    ),
    run=run,
    check=check,
)
