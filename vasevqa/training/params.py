"""What sft and grpo have in common: parameters that decide the weights, options that decide how the training runs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from vasevqa import spec

# Whose code decides the weights, beside the stage's own module.
SOURCES = (
    "vasevqa.training.params",
    "vasevqa.training.swift.arguments",
    "vasevqa.training.trainer",
    "vasevqa.training.swift.worker",
    "vasevqa.training.swift.environment",
)


def refused(sentence: str) -> PydanticCustomError:
    """A validation error that is shown as the sentence alone."""
    return PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


class TrainingParams(spec.Params):
    """Parameters of a training by ms-swift."""

    command: ClassVar[str] = "sft"

    tuner_type: Literal["lora", "full"] = Field(
        "lora", description="lora trains an adapter, full every weight that isn't frozen"
    )
    lora_rank: int = Field(8, ge=1, description="rank of the adapter")
    lora_alpha: float = Field(32.0, gt=0, description="scale of the adapter, divided by its rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="dropout in the adapter")
    target_modules: list[str] = Field(["all-linear"], min_length=1, description="modules that get an adapter")
    freeze_vit: bool = Field(True, description="leave the vision tower as it is")
    freeze_aligner: bool = Field(True, description="leave the projection from vision to language as it is")
    num_train_epochs: float = Field(2.0, gt=0, description="passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; replaces num_train_epochs")
    batch_size: int = Field(
        1,
        ge=1,
        description=(
            "rows a forward pass; times gradient_accumulation_steps it is the global batch, which the step's GPUs share"
            " whatever their number"
        ),
    )
    gradient_accumulation_steps: int = Field(16, ge=1, description="forward passes an optimizer step")
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate; unset: 1e-4 for lora, 1e-5 for full"
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="part of the steps in which the learning rate rises")
    max_length: int = Field(4096, ge=16, description="tokens of a row, image tokens included")
    max_pixels: int = Field(1003520, ge=784, description="larger images are scaled down to so many pixels (MAX_PIXELS)")
    torch_dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="precision of the weights in training"
    )
    model_type: str | None = Field(
        None, description="ms-swift's name of the model's kind, where the model folder doesn't say it"
    )
    attn_impl: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] | None = Field(
        None, description="attention; unset: what transformers chooses"
    )
    use_liger_kernel: bool = Field(False, description="fused kernels that save memory (needs the package liger-kernel)")
    logging_steps: int = Field(5, ge=1, description="steps between lines of the learning curve")
    save_steps: int = Field(100, ge=1, description="steps between checkpoints")
    save_total_limit: int = Field(5, ge=1, description="checkpoints kept")
    seed: int = Field(42, ge=0, description="order of the rows, dropout, initial adapter, sampling")
    extra_args: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "further arguments of ms-swift as a mapping, such as {weight_decay: 0.01}, or a list, such as"
            " [--weight_decay, 0.01]"
        ),
    )

    @field_validator("extra_args", mode="before")
    @classmethod
    def _known_to_swift(cls, value: Any) -> dict[str, Any]:
        from vasevqa.training.swift import arguments as swift

        try:
            return swift.check_extra(cls.command, value, cls.model_fields)
        except ValueError as error:
            raise refused(str(error)) from None


class TrainingOptions(spec.Options):
    """How a training by ms-swift runs."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; one that isn't there is an error")
    nproc_per_node: int | None = Field(
        None, ge=1, description="processes, one a GPU (NPROC_PER_NODE); unset: as many as the step has GPUs"
    )
    cuda_visible_devices: str | None = Field(
        None, pattern=r"^[0-9A-Za-z-]+(,[0-9A-Za-z-]+)*$", description="which GPUs, such as 0,1; unset: the first ones"
    )
    deepspeed: Literal["zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"] | None = Field(
        None, description="share optimizer, gradients and weights between GPUs (needs the package deepspeed)"
    )
    gradient_checkpointing: bool = Field(
        True, description="compute activations twice instead of keeping them: less memory, more time, the same result"
    )
    dataloader_num_workers: int = Field(1, ge=0, description="processes that prepare rows, a GPU")
    dataset_num_proc: int = Field(1, ge=1, description="processes that read the dataset")
    image_root: str | None = Field(
        None, description="folder that the rows' image paths are relative to; unset: the volume that holds the dataset"
    )
    hub: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="where a model given by its hub id comes from"
    )
    memory_check: bool = Field(
        True, description="stop before loading when the estimate says that the GPU's memory can't suffice"
    )
    stop_seconds: float = Field(
        25.0,
        gt=0,
        description="after SIGTERM, seconds for finishing the step and saving it before the training is killed",
    )


INPUTS = {
    "dataset": "the dataset folder that build-dataset wrote",
    "resume": "a checkpoint to go on from, by hand",
}
