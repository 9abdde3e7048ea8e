"""Parameters and options of the stages sft, grpo, merge and to-megatron."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from vasevqa import spec
from vasevqa.training.extra_args import check_extra

# The modules whose code decides the weights, in addition to the stage's own module.
SOURCES = (
    "vasevqa.curation.decoding",
    "vasevqa.curation.colours",
    "vasevqa.training.swift.pictures",
    "vasevqa.training.params",
    "vasevqa.training.extra_args",
    "vasevqa.training.swift.arguments",
    "vasevqa.training.trainer",
    "vasevqa.training.trained_rows",
    "vasevqa.dataset.row_checks",
    "vasevqa.training.swift.lengths",
    "vasevqa.training.swift.worker",
    "vasevqa.training.swift.environment",
)


def refused(sentence: str) -> PydanticCustomError:
    """Return a validation error whose whole message is `sentence`."""
    return PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


class TrainingParams(spec.Params):
    """The parameters of a training by ms-swift."""

    command: ClassVar[str] = "sft"

    tuner_type: Literal["lora", "full"] = Field(
        "lora", description="lora trains an adapter; full trains every weight that is not frozen"
    )
    lora_rank: int = Field(8, ge=1, description="rank of the adapter")
    lora_alpha: float = Field(32.0, gt=0, description="scale of the adapter, divided by its rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="dropout in the adapter")
    target_modules: list[str] = Field(["all-linear"], min_length=1, description="modules that get an adapter")
    freeze_vit: bool = Field(True, description="freeze the vision tower")
    freeze_aligner: bool = Field(True, description="freeze the projection from vision to language")
    num_train_epochs: float = Field(2.0, gt=0, description="passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; replaces num_train_epochs")
    batch_size: int = Field(
        1,
        ge=1,
        description=(
            "rows per forward pass; batch_size times gradient_accumulation_steps is the global batch, which all GPUs of"
            " the step share"
        ),
    )
    gradient_accumulation_steps: int = Field(16, ge=1, description="forward passes per optimizer step")
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate; unset: 1e-4 for lora, 1e-5 for full"
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="fraction of the steps in which the learning rate rises")
    max_length: int = Field(4096, ge=16, description="tokens of a row, image tokens included")
    on_long_rows: Literal["drop", "error"] = Field(
        "drop",
        description=(
            "what to do with rows that are broken or longer than max_length. drop: leave them out, if they are at most"
            " 5% of a file. error: stop at the first one"
        ),
    )
    max_pixels: int = Field(
        1003520, ge=784, description="larger images are scaled down to this many pixels (MAX_PIXELS)"
    )
    torch_dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="precision of the weights in training"
    )
    model_type: str | None = Field(None, description="ms-swift's model type, if the model folder does not name it")
    attn_impl: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] | None = Field(
        None, description="attention implementation; unset: transformers' choice"
    )
    use_liger_kernel: bool = Field(False, description="fused kernels that save memory (needs the package liger-kernel)")
    logging_steps: int = Field(5, ge=1, description="steps between points of the learning curve")
    save_steps: int = Field(100, ge=1, description="steps between checkpoints")
    save_total_limit: int = Field(5, ge=1, description="checkpoints kept")
    seed: int = Field(42, ge=0, description="seed for the order of the rows, dropout, initial adapter and sampling")
    extra_args: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "further arguments of ms-swift as a mapping, such as {weight_decay: 0.01}, or a list, such as"
            " [--weight_decay, 0.01]"
        ),
    )

    @field_validator("extra_args", mode="before")
    @classmethod
    def _known_to_swift(cls, value: Any) -> dict[str, object]:
        try:
            return check_extra(cls.command, value, cls.model_fields)
        except ValueError as error:
            raise refused(str(error)) from None


class TrainingOptions(spec.Options):
    """The options of a training by ms-swift. These options decide how the training runs, but not its result."""

    device: spec.Device = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    nproc_per_node: int | None = Field(
        None, ge=1, description="processes, one per GPU (NPROC_PER_NODE); unset: one for each GPU of the step"
    )
    cuda_visible_devices: str | None = Field(
        None, pattern=r"^[0-9A-Za-z-]+(,[0-9A-Za-z-]+)*$", description="GPUs to use, such as 0,1; unset: the first GPUs"
    )
    deepspeed: Literal["zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"] | None = Field(
        None, description="share optimizer, gradients and weights between GPUs (needs the package deepspeed)"
    )
    gradient_checkpointing: bool = Field(
        True, description="compute activations twice instead of keeping them: less memory, more time, the same result"
    )
    dataloader_num_workers: int = Field(1, ge=0, description="processes per GPU that prepare rows")
    dataset_num_proc: int = Field(1, ge=1, description="processes that read the dataset")
    image_root: str | None = Field(
        None, description="folder that the rows' image paths are relative to; unset: the volume that holds the dataset"
    )
    hub: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="hub from which a model given by its id is downloaded"
    )
    memory_check: bool = Field(
        True, description="stop before loading the model if the estimated need exceeds the GPU's memory"
    )
    stop_seconds: float = Field(
        25.0,
        gt=0,
        description=(
            "seconds that the training gets after SIGTERM to finish the step and save a checkpoint; then it is killed"
        ),
    )


class SftParams(TrainingParams):
    """The parameters of sft. These parameters decide the fine-tuned weights."""

    packing: bool = Field(False, description="several rows in one sequence of max_length (needs flash attention)")
    eval_steps: int = Field(100, ge=1, description="steps between evaluations on the validation rows")

    @field_validator("packing")
    @classmethod
    def _packing_needs_flash_attention(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not str(info.data.get("attn_impl")).startswith("flash_attention"):
            raise refused("packing needs flash attention; set attn_impl to flash_attention_2 as well")
        return value


class SftOptions(TrainingOptions):
    """The options of sft. These options decide how sft runs, but not its result."""


class GrpoParams(TrainingParams):
    """The parameters of grpo. These parameters decide the weights after the reinforcement learning."""

    command: ClassVar[str] = "rlhf"

    num_train_epochs: float = Field(1.0, gt=0, description="passes over the rows")
    learning_rate: float | None = Field(1e-6, gt=0, description="peak learning rate")
    save_steps: int = Field(300, ge=1, description="steps between checkpoints")
    save_total_limit: int = Field(10, ge=1, description="checkpoints kept")
    logging_steps: int = Field(1, ge=1, description="steps between points of the reward curve")
    batch_size: int = Field(
        1,
        ge=1,
        description=(
            "answers per forward pass. The global batch is batch_size times gradient_accumulation_steps; the number of"
            " GPUs does not change it"
        ),
    )
    num_generations: int = Field(4, ge=2, description="answers to each question, which are compared with one another")
    temperature: float = Field(1.0, gt=0, description="temperature of sampling")
    beta: float = Field(0.001, ge=0, description="weight of the distance (KL) from the model before GRPO")
    max_completion_length: int = Field(256, ge=1, description="maximum tokens of an answer")
    reward_funcs: list[str] = Field(
        ["external_vase_acc"],
        min_length=1,
        description="names of rewards: of vasevqa, of ms-swift, or of --external-plugins",
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
                f"the global batch of {batch} answers (batch_size x gradient_accumulation_steps) must be a multiple of"
                f" num_generations ({value})"
            )
        return value

    @field_validator("reward_funcs")
    @classmethod
    def _each_reward_once(cls, value: list[str]) -> list[str]:
        twice = next((name for name in value if value.count(name) > 1), None)
        if twice:
            raise refused(
                f"reward_funcs names {twice} twice; name it once, and give it a greater weight in reward_weights"
            )
        return value

    @field_validator("reward_weights")
    @classmethod
    def _one_weight_each(cls, value: list[float] | None, info: ValidationInfo) -> list[float] | None:
        names = info.data.get("reward_funcs") or []
        if value is not None and len(value) != len(names):
            raise refused(f"reward_weights needs one number for each of the {len(names)} reward_funcs")
        return value


class GrpoOptions(TrainingOptions):
    """The options of grpo. These options decide how grpo runs, but not its result."""

    vllm_gpu_memory_utilization: float = Field(0.4, gt=0, le=1, description="part of the GPU's memory for vLLM")
    sleep_level: int = Field(
        1,
        ge=0,
        le=2,
        description=(
            "GPU memory that vLLM frees between generations; 0: none, 1: cache and weights (the weights move to host"
            " memory), 2: cache and weights, without a copy of the weights"
        ),
    )
    offload_model: bool = Field(False, description="move the trained model to host memory while vLLM generates")
    offload_optimizer: bool = Field(False, description="move the optimizer to host memory while vLLM generates")
    move_model_batches: int | None = Field(None, ge=1, description="copy weights to vLLM in this many parts")


class MergeParams(spec.Params):
    """The parameters of merge. These parameters decide the merged model."""

    checkpoint: str = Field(
        "last",
        pattern=r"^(last|best|[0-9]+)$",
        description="which checkpoint: last, best (by validation loss or reward), or its step",
    )
    torch_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="precision of the merged weights; auto: the base model's own"
    )
    tolerance: float = Field(
        1e-3, ge=0, description="float32: greatest difference of a logit between base with adapter and merged model"
    )
    agreement: float = Field(
        0.99,
        ge=0,
        le=1,
        description=(
            "bfloat16 and float16: minimum fraction of the tokens for which both models predict the same token"
        ),
    )


class MergeOptions(spec.Options):
    """The options of merge. These options decide how merge runs, but not its result."""

    device: spec.Device = Field(
        "auto", description="device for the comparison: auto, cpu, cuda or cuda:N; the merge runs on the CPU"
    )
    hub: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="hub from which a model given by its id is downloaded"
    )


class ConversionParams(spec.Params):
    """The parameters of to-megatron. These parameters decide whether a converted model passes the check."""

    tolerance: float = Field(
        0.1,
        ge=0,
        description="greatest mean difference of an answer's logits between the two forms (ms-swift's recommendation)",
    )
    agreement: float = Field(
        0.99,
        ge=0,
        le=1,
        description="minimum fraction of the tokens for which both forms predict the same most likely token",
    )


class ConversionOptions(spec.Options):
    """The options of to-megatron. These options decide how to-megatron runs, but not its result."""

    device: spec.Device = Field("auto", description="auto or cuda:N")
    hub: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="hub from which a model given by its id is downloaded"
    )


INPUTS = {
    "dataset": "the dataset folder that build-dataset wrote",
    "resume": "a checkpoint to resume from, chosen by hand",
}
