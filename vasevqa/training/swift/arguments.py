"""The only file that knows ms-swift's flags: our parameters become argument lists of `swift sft`, `swift rlhf`, `swift
export`.

Checked against ms-swift 4.6. Nothing heavy is imported here: recipes are checked with it before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

NAMES = Path(__file__).with_name("arguments.txt")
CALLBACK = "vasevqa"  # what the child process registers ours as (vasevqa/training/swift/worker.py)

# Parameters and options whose name isn't ms-swift's, or which it must not get as they are.
NOT_PASSED = {
    "batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "max_pixels",
    "learning_rate",
    "extra_args",
}
# What ms-swift calls a Hugging Face model type, and its template: by itself it goes by the folder's name, which here is
# a key.
KINDS = {"qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_5_vl", "qwen3_vl": "qwen3_vl"}
COLOCATE = ("vllm_gpu_memory_utilization", "sleep_level", "offload_model", "offload_optimizer", "move_model_batches")
LORA = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules")

# What a user can't set by extra_args, and where it comes from instead.
SET_HERE = {
    "model": "the input `model`",
    "dataset": "the input `dataset`",
    "val_dataset": "the input `dataset` (val.jsonl)",
    "system": "the input `system`",
    "external_plugins": "the input `plugin`",
    "custom_register_path": "the input `plugin`",
    "resume_from_checkpoint": "the input `resume`",
    "output_dir": "the step itself",
    "logging_dir": "the step itself",
    "add_version": "the step itself",
    "create_checkpoint_symlink": "the step itself",
    "save_strategy": "the step itself",
    "ignore_args_error": "the step itself",
    "rlhf_type": "the step itself",
    "check_model": "the step itself",
    "trust_remote_code": "nothing: code that comes with a model is never run",
    "callbacks": "the step itself",
    "load_args": "the step itself",
    "use_hf": "the option `hub`",
    "model_revision": "the input `model` (org/name@revision)",
    "max_pixels": "the parameter `max_pixels`",
    "per_device_train_batch_size": "the parameter `batch_size`",
    "gradient_accumulation_steps": "the parameter `gradient_accumulation_steps`",
    "gradient_checkpointing": "the option `gradient_checkpointing`",
    "vit_gradient_checkpointing": "the option `gradient_checkpointing`",
    "fp16": "the parameter `torch_dtype`",
    "bf16": "the parameter `torch_dtype`",
    "data_seed": "the parameter `seed`",
    "log_completions": "the step itself",
    "vllm_mode": "the parameter `use_vllm`",
    **{name: f"the option `{name}`" for name in ("deepspeed", "dataloader_num_workers", "dataset_num_proc", *COLOCATE)},
    "push_to_hub": "nothing: a step writes to the volume only",
    "hub_token": "the environment variable HF_TOKEN",
}


@dataclass(frozen=True)
class TrainingPaths:
    """Absolute paths that a training reads and writes."""

    model: Path
    dataset: Path
    output: Path
    validation: Path | None = None
    resume: Path | None = None
    system: Path | None = None
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BatchPlan:
    """How much is done at once on each GPU.

    `batch_size` times `accumulation` rows make an optimizer step's share of one process.
    """

    batch_size: int
    accumulation: int
    gradient_checkpointing: bool


@lru_cache
def known_arguments() -> Mapping[str, frozenset[str]]:
    """ms-swift's argument names of each command (sft, rlhf, export), from the committed list."""
    found: dict[str, set[str]] = {"sft": set(), "rlhf": set(), "export": set()}
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, *commands = line.split()
            for command in commands:
                found[command].add(name)
    return {command: frozenset(names) for command, names in found.items()}


def check_extra(command: str, given: Any, own: Collection[str]) -> dict[str, Any]:
    """`given` (a mapping, a list of words, or JSON of either) as a mapping of ms-swift's names, none of them in `own`.

    Raises ValueError in a sentence if it won't do.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.strip() else {}
        except ValueError:
            raise ValueError(f"extra_args is neither a mapping nor a list of words, but {given!r}") from None
    if isinstance(given, list | tuple):
        given = _from_words([str(word) for word in given])
    if not isinstance(given, Mapping):
        raise ValueError(
            "extra_args is a mapping such as {weight_decay: 0.01}, or a list such as [--weight_decay, 0.01]"
        )
    checked: dict[str, Any] = {}
    for key, value in given.items():
        name = str(key).lstrip("-").replace("-", "_")
        if name in SET_HERE:
            raise ValueError(f"extra_args can't set {name}: that comes from {SET_HERE[name]}")
        if name in own:
            raise ValueError(f"extra_args can't set {name}: it is a parameter of its own")
        if name not in known_arguments()[command]:
            near = get_close_matches(name, sorted(known_arguments()[command]), n=1, cutoff=0.6)
            raise ValueError(
                f"ms-swift has no argument '{name}' for {command}"
                + (f"; did you mean '{near[0]}'?" if near else "; see its documentation")
            )
        if value is None:
            raise ValueError(f"extra_args: {name} has no value")
        checked[name] = value
    return checked


def _from_words(words: Sequence[str]) -> dict[str, Any]:
    """['--a', '1', '2', '--b=3', '--c'] as {'a': ['1', '2'], 'b': '3', 'c': True}."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found[name] = [value] if equals else []
        elif not name:
            raise ValueError(f"extra_args: '{word}' stands before any --argument")
        else:
            found[name].append(word)
    return {name: values[0] if len(values) == 1 else values or True for name, values in found.items()}


def words(arguments: Mapping[str, Any]) -> list[str]:
    """An argument list: booleans as true and false, lists as several words, mappings as JSON; None is left out."""
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


def sft(settings: Mapping[str, Any], places: TrainingPaths, rung: BatchPlan) -> list[str]:
    """The arguments of `swift sft`. `settings` holds the stage's parameters and options by name."""
    evaluation = {
        "include_num_input_tokens_seen": True,
        "eval_strategy": "steps" if places.validation else "no",
        "per_device_eval_batch_size": rung.batch_size,
    }
    arguments = {**_common("sft", settings, places, rung), **evaluation}
    if places.validation is None:
        del arguments["eval_steps"]
    return words(arguments | settings["extra_args"])


def grpo(settings: Mapping[str, Any], places: TrainingPaths, rung: BatchPlan) -> list[str]:
    """The arguments of `swift rlhf --rlhf_type grpo`."""
    arguments = {
        "rlhf_type": "grpo",
        **_common("rlhf", settings, places, rung),
        # The text itself: ms-swift takes only a path that ends in .txt for a file.
        "system": places.system.read_text(encoding="utf-8").strip() if places.system else None,
        "external_plugins": list(places.plugins),
        "log_completions": True,
        "eval_strategy": "no",
    }
    if settings["use_vllm"]:
        arguments |= {"vllm_mode": "colocate", **{name: settings[name] for name in COLOCATE}}
    return words(arguments | settings["extra_args"])


def kind(model: Path, model_type: str | None) -> dict[str, str | None]:
    """model_type and template for ms-swift, from the model's config.json unless `model_type` names another."""
    path = model / "config.json"
    found = str(json.loads(path.read_text(encoding="utf-8")).get("model_type")) if path.is_file() else ""
    chosen = model_type or (found if found in KINDS else None)
    return {"model_type": chosen, "template": KINDS.get(chosen or "")}


def merge(model: Path, adapter: Path, output: Path, torch_dtype: str, model_type: str | None) -> list[str]:
    """The arguments of `swift export` that merge the checkpoint `adapter` into `model` as the new folder `output`."""
    return words(
        {
            "model": model,
            **kind(model, model_type),
            "adapters": [adapter],
            "merge_lora": True,
            "output_dir": output,
            "torch_dtype": torch_dtype,
            "device_map": "cpu",
            # args.json in the checkpoint holds paths of the machine and the time it was trained on
            "load_args": False,
        }
    )


def to_mcore(model: Path, output: Path) -> list[str]:
    """The arguments of `swift export` that convert `model` to Megatron: in bfloat16, since float32 silently becomes
    float16 there.
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
    """The arguments of `swift export` that convert the Megatron checkpoint `mcore` back;

    `model` gives its configuration.

    Without ms-swift's precision check, which loads a second model under mcore-bridge's patches and fails there with
    transformers 5.
    """
    given = {"model": model, **kind(model, None), "mcore_model": mcore, "to_hf": True}
    return words({**given, "output_dir": output, "torch_dtype": "bfloat16", "load_args": False})


def _common(command: str, settings: Mapping[str, Any], places: TrainingPaths, rung: BatchPlan) -> dict[str, Any]:
    left_out = NOT_PASSED | set(COLOCATE) | (set(LORA) if settings["tuner_type"] == "full" else set())
    same = {
        name: value for name, value in settings.items() if name in known_arguments()[command] and name not in left_out
    }
    return {
        "model": places.model,
        "dataset": [places.dataset],
        "val_dataset": [places.validation] if places.validation else None,
        "output_dir": places.output,
        "resume_from_checkpoint": places.resume,
        **same,
        **kind(places.model, settings["model_type"]),
        "learning_rate": settings["learning_rate"] or (1e-4 if settings["tuner_type"] == "lora" else 1e-5),
        "per_device_train_batch_size": rung.batch_size,
        "gradient_accumulation_steps": rung.accumulation,
        "gradient_checkpointing": rung.gradient_checkpointing,
        "vit_gradient_checkpointing": rung.gradient_checkpointing,
        # Said outright: for float32 weights ms-swift would turn fp16 autocast on.
        "bf16": settings["torch_dtype"] == "bfloat16",
        "fp16": settings["torch_dtype"] == "float16",
        "data_seed": settings["seed"],
        "callbacks": [CALLBACK],
        "disable_tqdm": True,  # the log is no terminal
        # Without it processes on a machine without GPUs would each train alone.
        **(
            {"use_cpu": True, "ddp_backend": "gloo"}
            if settings["device"] == "cpu" and (settings["nproc_per_node"] or 1) > 1
            else {}
        ),
        "save_strategy": "steps",
        "add_version": False,
        "report_to": ["tensorboard"],
        "check_model": False,  # would ask a hub
        "load_args": False,
    }


def max_pixels(settings: Mapping[str, Any]) -> dict[str, str]:
    """The environment by which ms-swift's Qwen templates limit an image's size."""
    return {"MAX_PIXELS": str(settings["max_pixels"])}
