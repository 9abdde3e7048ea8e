"""Check a training's inputs before the model is loaded, because loading a model takes minutes.

The module checks the disk space, the rewards and their rows, and the adapters that the training starts from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vasevqa import files, models
from vasevqa.errors import ConfigError, DataError, StorageError
from vasevqa.models import Model
from vasevqa.reward.truths import truths
from vasevqa.training import adapter, checkpoints, reward_file
from vasevqa.training.estimate import GB, checkpoint_bytes
from vasevqa.training.params import TrainingParams


def check_disk(folder: Path, model: Model, params: TrainingParams) -> None:
    """Raise StorageError if the checkpoints don't fit on the disk.

    There must be space for save_total_limit checkpoints, and for one more checkpoint that is being written.
    """
    need, free = checkpoint_bytes(model, params) * (params.save_total_limit + 1), files.free_bytes(folder)
    if free < need:
        raise StorageError(
            f"The disk of {folder} has {free / GB:.1f} GB free, but {params.save_total_limit} checkpoints need"
            f" {need / GB:.1f} GB; free some space or lower save_total_limit."
        )


def check_rewards(names: Sequence[str], plugin: Path | None, rows: Path) -> None:
    """Check that the rewards `names` exist and can be called.

    `plugin` is the user's file of rewards. `rows` is a JSON-lines file that `check_rows` accepted. If this project's
    external_vase_acc is one of the rewards, it must be able to read the solutions in `rows`.

    Raise ConfigError if a reward is missing or can't be called. Raise DataError if external_vase_acc can't read a
    solution. The message names the first such line.
    """
    columns: set[str] = set()
    unreadable = ""
    with rows.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            row = json.loads(line) if line.strip() else {}
            columns |= row.keys()
            try:
                if row and not unreadable:
                    truths(row.get("solution"), str(row.get("attribute") or ""))
            except ValueError as error:
                unreadable = f"{rows}, line {number}: the reward external_vase_acc can't read the solution ({error})"
    if plugin is not None:
        reward_file.check_file(plugin, names, columns)
    else:
        for name in names:
            reward_file.check_known(name, f"reward_funcs names '{name}', but no file of rewards (plugin) is given")
    if (
        unreadable
        and "external_vase_acc" in names
        and not (plugin and reward_file.defines(plugin, "external_vase_acc"))
    ):
        raise DataError(f"{unreadable}; write the solution as a text, a number, a message or a list of alternatives.")


def check_adapters(base: Path, params: TrainingParams, resume: Path | None) -> None:
    """Check the adapters that a training starts from: `resume`, and the adapters that extra_args names.

    ms-swift loads each adapter with the names, rank and alpha in the adapter's files. Raise DataError if an adapter
    doesn't fit the base model. Raise ConfigError if an adapter's rank or alpha differs from the parameters.
    """
    _check_extra(base, params)
    given = [(name, params.extra_args.get(name)) for name in ("adapters", "ref_adapters")]
    folders = [(name, Path(path)) for name, paths in given for path in _words(paths)]
    if resume is not None:
        folders.append(("resume", checkpoints.choose(resume, "last")))
    for name, folder in folders:
        if name == "resume":
            checkpoints.read_state(folder)
        if not (folder / checkpoints.ADAPTER).is_file():
            if name == "resume":  # a checkpoint of a full training
                models.skeleton(folder)
                continue
            raise ConfigError(
                f"extra_args: {name} names {folder}, which holds no {checkpoints.ADAPTER}; give a checkpoint."
            )
        found = adapter.read(folder, base, any_start=True)
        if found.translated or found.without:
            raise DataError(
                f"ms-swift would not load all of the adapter {folder}: its tensors have names from an older version of"
                " transformers, or some target_modules have no tensors; merge the adapter first, and train from the"
                " merged model."
            )
        if name == "ref_adapters":
            continue
        for key, has, asked in (
            ("lora_rank", found.config.r, params.lora_rank),
            ("lora_alpha", found.config.lora_alpha, params.lora_alpha),
        ):
            if has != asked:
                raise ConfigError(f"The adapter in {folder} has {key} {has:g}, not {asked:g}; set {key} to {has:g}.")


def _check_extra(base: Path, params: TrainingParams) -> None:
    """Raise ConfigError if extra_args asks for a training whose result can't be saved or merged.

    With `lora_bias: lora_only`, the training changes biases that peft doesn't save. If modules_to_save names only one
    of two tied modules, the modules get different values, which a merged model can't hold.
    """
    if params.extra_args.get("lora_bias") == "lora_only":
        raise ConfigError(
            "extra_args sets `lora_bias: lora_only`, but peft doesn't save these biases; set lora_bias to all or none."
        )
    saved = {name.replace("all-embedding", "embed_tokens") for name in _words(params.extra_args.get("modules_to_save"))}
    if params.tuner_type != "lora" or not saved:
        return
    for one, other in models.skeleton(base).all_tied_weights_keys.items():
        pair = [name.split(".")[-2] for name in (one, other)]
        if len(saved & set(pair)) == 1:
            raise ConfigError(
                f"extra_args: modules_to_save names only one of {pair[0]} and {pair[1]}, which {base.name} ties to each"
                " other; name both, or neither."
            )


def _words(given: object) -> list[str]:
    """Return the value `given` of an argument as a list of words. A user may give one word, a list, or nothing."""
    return [str(item) for item in given] if isinstance(given, list | tuple) else [str(given)] if given else []
