"""Convert parameters to argument lists of `swift sft`, `swift rlhf` and `swift export`.

This is the only module that knows ms-swift's flags. The flags were checked against ms-swift 4.6. The check of a recipe
before a run also uses this module, so the module imports no large package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vasevqa.errors import ConfigError
from vasevqa.training.extra_args import COLOCATE, known_arguments
from vasevqa.training.params import GrpoOptions, GrpoParams, SftOptions, SftParams, TrainingOptions, TrainingParams

CALLBACK = "vasevqa"  # the name under which the child process registers our callback (vasevqa/training/swift/worker.py)

# Parameters and options that ms-swift gets by a different name or with a different value.
NOT_PASSED = {
    "batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "max_pixels",
    "learning_rate",
    "extra_args",
}
# ms-swift's model type and template for each Hugging Face model type. ms-swift itself would read them from the folder's
# name, but an artifact's folder is named by a key.
KINDS = {"qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_5_vl", "qwen3_vl": "qwen3_vl"}
LORA = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules")


@dataclass(frozen=True)
class TrainingPaths:
    """The absolute paths that a training reads and writes."""

    model: Path
    dataset: Path
    output: Path
    validation: Path | None = None
    resume: Path | None = None
    system: Path | None = None
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BatchPlan:
    """The batches of one process (one GPU).

    A forward pass processes `batch_size` rows. An optimizer step consists of `accumulation` forward passes. If
    `gradient_checkpointing` is True, activations are computed twice instead of being kept.
    """

    batch_size: int
    accumulation: int
    gradient_checkpointing: bool


def words(arguments: Mapping[str, object]) -> list[str]:
    """Return `arguments` as an argument list.

    Booleans become true and false. Lists become several words. Mappings become JSON. Arguments that are None or an
    empty list are omitted.
    """
    line: list[str] = []
    for name, value in arguments.items():
        if value is None or (isinstance(value, list | tuple) and not value):
            continue
        line.append(f"--{name}")
        if isinstance(value, bool):
            line.append("true" if value else "false")
        elif isinstance(value, list | tuple):
            line += [str(item) for item in value]
        else:
            line.append(json.dumps(value) if isinstance(value, Mapping) else str(value))
    return line


def sft(params: SftParams, options: SftOptions, paths: TrainingPaths, plan: BatchPlan) -> list[str]:
    """Return the arguments of `swift sft`."""
    evaluation = {
        "include_num_input_tokens_seen": True,
        "eval_strategy": "steps" if paths.validation else "no",
        "per_device_eval_batch_size": plan.batch_size,
    }
    arguments = {**_common(params, options, paths, plan), **evaluation}
    if paths.validation is None:
        del arguments["eval_steps"]
    return words(arguments | params.extra_args)


def grpo(params: GrpoParams, options: GrpoOptions, paths: TrainingPaths, plan: BatchPlan) -> list[str]:
    """Return the arguments of `swift rlhf --rlhf_type grpo`."""
    arguments = {
        "rlhf_type": "grpo",
        **_common(params, options, paths, plan),
        "system": system_prompt(paths.system),
        "external_plugins": list(paths.plugins),
        "log_completions": True,
        "eval_strategy": "no",
    }
    if params.use_vllm:
        arguments |= {"vllm_mode": "colocate", **options.model_dump(include=set(COLOCATE))}
    return words(arguments | params.extra_args)


def reading(params: TrainingParams, paths: TrainingPaths) -> list[str]:
    """Return the arguments that decide how ms-swift reads a row: the model, its template, and the system prompt."""
    arguments = {
        "model": paths.model,
        **kind(paths.model, params.model_type),
        "system": system_prompt(paths.system),
        "load_args": False,
    }
    return words(arguments | params.extra_args)


def system_prompt(path: Path | None) -> str | None:
    """Return the text of the file with the system prompt; None if `path` is None.

    ms-swift gets the text instead of the path, because ms-swift reads a file only if its name ends in .txt.

    Raise ConfigError if the file isn't in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").strip() if path else None
    except UnicodeDecodeError:
        raise ConfigError(f"The system prompt {path} is not a text in UTF-8; save the file in UTF-8.") from None


def kind(model: Path, model_type: str | None) -> dict[str, str | None]:
    """Return ms-swift's model_type and template.

    Both come from the model type in the model's config.json, unless `model_type` is given.
    """
    path = model / "config.json"
    configured = str(json.loads(path.read_text(encoding="utf-8")).get("model_type")) if path.is_file() else ""
    chosen = model_type or (configured if configured in KINDS else None)
    return {"model_type": chosen, "template": KINDS.get(chosen or "")}


def merge(model: Path, adapter: Path, output: Path, torch_dtype: str, model_type: str | None) -> list[str]:
    """Return the arguments of `swift export` that merge an adapter into its base model.

    `adapter` is the folder of the checkpoint, `model` is the folder of the base model, and `output` is the new folder.
    """
    return words(
        {
            "model": model,
            **kind(model, model_type),
            "adapters": [adapter],
            "merge_lora": True,
            "output_dir": output,
            "torch_dtype": torch_dtype,
            "device_map": "cpu",
            # args.json in the checkpoint holds paths that were valid on the machine and at the time of the training
            "load_args": False,
        }
    )


def to_mcore(model: Path, output: Path) -> list[str]:
    """Return the arguments of `swift export` that convert `model` to a Megatron checkpoint in bfloat16.

    If float32 were given, ms-swift would write float16 without a warning.
    """
    return words(
        {
            "model": model,
            **kind(model, None),
            "to_mcore": True,
            "output_dir": output,
            "torch_dtype": "bfloat16",
            "test_convert_precision": True,
            "load_args": False,
        }
    )


def to_hf(model: Path, mcore: Path, output: Path) -> list[str]:
    """Return the arguments of `swift export` that convert the Megatron checkpoint `mcore` to a Hugging Face model.

    `model` provides the configuration and the tokenizer. ms-swift's precision check stays off. The check would load a
    second model after mcore-bridge has patched transformers. With transformers 5, this loading fails.
    """
    given = {"model": model, **kind(model, None), "mcore_model": mcore, "to_hf": True}
    return words({**given, "output_dir": output, "torch_dtype": "bfloat16", "load_args": False})


def _common(
    params: TrainingParams, options: TrainingOptions, paths: TrainingPaths, plan: BatchPlan
) -> dict[str, object]:
    settings = params.model_dump() | options.model_dump()
    left_out = NOT_PASSED | set(COLOCATE) | (set(LORA) if params.tuner_type == "full" else set())
    same = {
        name: value
        for name, value in settings.items()
        if name in known_arguments()[params.command] and name not in left_out
    }
    return {
        "model": paths.model,
        "dataset": [paths.dataset],
        "val_dataset": [paths.validation] if paths.validation else None,
        "output_dir": paths.output,
        "resume_from_checkpoint": paths.resume,
        **same,
        **kind(paths.model, params.model_type),
        "learning_rate": params.learning_rate or (1e-4 if params.tuner_type == "lora" else 1e-5),
        "per_device_train_batch_size": plan.batch_size,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "vit_gradient_checkpointing": plan.gradient_checkpointing,
        # Set explicitly, because ms-swift would turn on fp16 autocast for float32 weights.
        "bf16": params.torch_dtype == "bfloat16",
        "fp16": params.torch_dtype == "float16",
        "data_seed": params.seed,
        "strict": True,  # otherwise ms-swift silently replaces a row that it can't encode by a random row
        "callbacks": [CALLBACK],
        "disable_tqdm": True,  # the log is not a terminal
        # Without this argument, each process on a machine without GPUs would train alone.
        **(
            {"use_cpu": True, "ddp_backend": "gloo"}
            if options.device == "cpu" and (options.nproc_per_node or 1) > 1
            else {}
        ),
        "save_strategy": "steps",
        "add_version": False,
        "report_to": ["tensorboard"],
        "check_model": False,  # the check would ask a hub
        "load_args": False,
    }
