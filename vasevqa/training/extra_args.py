"""Check the additional arguments for ms-swift that a user gives.

ms-swift must know each argument. Users may not set an argument that the step sets itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

NAMES = Path(__file__).with_name("swift") / "arguments.txt"
COLOCATE = ("vllm_gpu_memory_utilization", "sleep_level", "offload_model", "offload_optimizer", "move_model_batches")

# Arguments that extra_args can't set, each with the part of the step that sets it.
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
    "strict": "the step itself",
    "vllm_mode": "the parameter `use_vllm`",
    **{name: f"the option `{name}`" for name in ("deepspeed", "dataloader_num_workers", "dataset_num_proc", *COLOCATE)},
    "hub_token": "the environment variable HF_TOKEN",
}
NEVER_SET = {
    "trust_remote_code": "code inside a model folder is never run",
    "push_to_hub": "a step writes only to the volume",
}


@lru_cache
def known_arguments() -> Mapping[str, frozenset[str]]:
    """Return the names of ms-swift's arguments for each command (sft, rlhf, export), from the file NAMES."""
    by_command: dict[str, set[str]] = {"sft": set(), "rlhf": set(), "export": set()}
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, *commands = line.split()
            for command in commands:
                by_command[command].add(name)
    return {command: frozenset(names) for command, names in by_command.items()}


def check_extra(command: str, given: Any, own: Collection[str]) -> dict[str, object]:
    """Return `given` as a mapping from ms-swift's argument names to values.

    `given` is a mapping, a list of words, or a text that contains the mapping or the list as JSON. `own` holds the
    names of the step's own parameters.

    Raise ValueError if `given` can't be used, or if it contains a name in `own`. The message states the reason.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.strip() else {}
        except ValueError:
            raise ValueError(f"extra_args must be a mapping or a list of words, not {given!r}") from None
    if isinstance(given, list | tuple):
        given = _from_words([str(word) for word in given])
    if not isinstance(given, Mapping):
        raise ValueError(
            "extra_args must be a mapping such as `{weight_decay: 0.01}`, or a list such as `[--weight_decay, 0.01]`"
        )
    checked: dict[str, Any] = {}
    for key, value in given.items():
        name = str(key).lstrip("-").replace("-", "_")
        if name in SET_HERE:
            raise ValueError(f"extra_args can't set {name}, because {SET_HERE[name]} sets it")
        if name in NEVER_SET:
            raise ValueError(f"extra_args can't set {name}: {NEVER_SET[name]}")
        if name in own:
            raise ValueError(f"extra_args can't set {name}: set the parameter `{name}` of the step instead")
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


def _from_words(words: Sequence[str]) -> dict[str, object]:
    """Return the mapping of arguments that a list of command-line words describes.

    For example, ['--a', '1', '2', '--b=3', '--c'] becomes {'a': ['1', '2'], 'b': '3', 'c': True}.
    """
    arguments: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            arguments[name] = [value] if equals else []
        elif not name:
            raise ValueError(f"extra_args: there is no --argument before the value '{word}'")
        else:
            arguments[name].append(word)
    return {name: values[0] if len(values) == 1 else values or True for name, values in arguments.items()}
