"""sft: supervised fine-tuning of a vision-language model with ms-swift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from vasevqa import spec
from vasevqa.training.params import INPUTS, SOURCES, TrainingOptions, TrainingParams, refused


class Params(TrainingParams):
    """What decides the fine-tuned weights."""

    packing: bool = Field(False, description="several rows in one sequence of max_length (needs flash attention)")
    eval_steps: int = Field(100, ge=1, description="steps between looks at the validation rows")

    @field_validator("packing")
    @classmethod
    def _packing_needs_flash_attention(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not str(info.data.get("attn_impl")).startswith("flash_attention"):
            raise refused("packing needs flash attention; set attn_impl to flash_attention_2 as well")
        return value


class Options(TrainingOptions):
    """How the fine-tuning runs."""


def run(
    params: Params, options: Options, inputs: Mapping[str, Path], output: spec.Output, progress: spec.Progress
) -> None:
    """Check what can be checked, train in a child process, keep checkpoints, learning curve and figures."""
    from vasevqa.training import trainer

    trainer.train("sft", params.model_dump(), options.model_dump(), inputs, output, progress)


STAGE = spec.Stage(
    "sft",
    1,
    Params,
    Options,
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
