"""grpo: reinforcement learning from a verifiable reward (GRPO) with ms-swift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator

from vasevqa import spec
from vasevqa.training.params import INPUTS, SOURCES, TrainingOptions, TrainingParams, refused


class Params(TrainingParams):
    """What decides the weights after reinforcement."""

    command: ClassVar[str] = "rlhf"

    num_train_epochs: float = Field(1.0, gt=0, description="passes over the rows")
    learning_rate: float | None = Field(1e-6, gt=0, description="peak learning rate")
    save_steps: int = Field(300, ge=1, description="steps between checkpoints")
    save_total_limit: int = Field(10, ge=1, description="checkpoints kept")
    logging_steps: int = Field(1, ge=1, description="steps between lines of the reward curve")
    batch_size: int = Field(
        1,
        ge=1,
        description=(
            "answers a forward pass; times gradient_accumulation_steps it is the global batch, whatever the number of"
            " GPUs"
        ),
    )
    num_generations: int = Field(4, ge=2, description="answers to each question, which are compared with one another")
    temperature: float = Field(1.0, gt=0, description="how freely answers are sampled")
    beta: float = Field(0.001, ge=0, description="weight of the distance (KL) from the model before")
    max_completion_length: int = Field(256, ge=1, description="tokens of an answer, at most")
    reward_funcs: list[str] = Field(
        ["external_vase_acc", "external_vase_format"],
        min_length=1,
        description="rewards by name: ours, ms-swift's, or those of --external-plugins",
    )
    reward_weights: list[float] | None = Field(None, description="a weight for each of reward_funcs; unset: 1 each")
    use_vllm: bool = Field(
        False, description="generate answers with vLLM on the same GPUs (colocate; needs the package vllm)"
    )

    @field_validator("num_generations")
    @classmethod
    def _whole_groups(cls, value: int, info: ValidationInfo) -> int:
        batch = int(info.data.get("batch_size") or 1) * int(info.data.get("gradient_accumulation_steps") or 1)
        if batch % value:
            raise refused(
                f"the global batch of {batch} answers (batch_size x gradient_accumulation_steps) must hold whole groups"
                " of num_generations"
            )
        return value

    @field_validator("reward_weights")
    @classmethod
    def _one_weight_each(cls, value: list[float] | None, info: ValidationInfo) -> list[float] | None:
        names = info.data.get("reward_funcs") or []
        if value is not None and len(value) != len(names):
            raise refused(f"reward_weights needs one number for each of the {len(names)} reward_funcs")
        return value


class Options(TrainingOptions):
    """How the reinforcement runs."""

    vllm_gpu_memory_utilization: float = Field(0.4, gt=0, le=1, description="part of the GPU's memory for vLLM")
    sleep_level: int = Field(
        1, ge=0, le=2, description="what vLLM gives back between generations: 0 nothing, 1 its cache and weights, 2 all"
    )
    offload_model: bool = Field(False, description="move the trained model to host memory while vLLM generates")
    offload_optimizer: bool = Field(False, description="move the optimizer to host memory while vLLM generates")
    move_model_batches: int | None = Field(None, ge=1, description="copy weights to vLLM in so many parts")


def run(
    params: Params, options: Options, inputs: Mapping[str, Path], output: spec.Output, progress: spec.Progress
) -> None:
    """Check what can be checked, train in a child process, keep checkpoints, reward curve and completions."""
    from vasevqa.training import trainer

    trainer.train("grpo", params.model_dump(), options.model_dump(), inputs, output, progress)


STAGE = spec.Stage(
    "grpo",
    1,
    Params,
    Options,
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
