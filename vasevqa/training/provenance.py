"""Check that an adapter still has the scale and the base model with which it was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vasevqa import models
from vasevqa.errors import ConfigError, DataError, VaseError
from vasevqa.training.adapter import Adapter

SETTINGS = "training_settings.json"
ARGUMENTS = "args.json"  # ms-swift writes this file into each checkpoint
WEIGHTS = "weights_of_model"  # the fingerprint of the base model (vasevqa.models.fingerprint)


def check(adapter: Adapter, folder: Path, base: Path) -> None:
    """Check that the adapter's alpha and the base model are the same as in the training.

    `folder` is the checkpoint. If the training recorded the base model's fingerprint, the check uses this fingerprint.
    Otherwise the check uses the model at the path that the checkpoint names. If that model doesn't exist, the base
    model is not checked.

    Raise DataError if the alpha was changed after the training. Raise ConfigError if the adapter was trained on a
    different base model.
    """
    settings = _noted(folder.parent.parent / SETTINGS) if folder.name.startswith("checkpoint-") else {}
    arguments = _noted(folder / ARGUMENTS)
    for noted, where in ((settings, SETTINGS), (arguments, ARGUMENTS)):
        alpha = noted.get("lora_alpha")
        if adapter.folder == folder and isinstance(alpha, int | float) and alpha != adapter.config.lora_alpha:
            raise DataError(
                f"{folder / models.ADAPTER_CONFIG} says lora_alpha {adapter.config.lora_alpha:g}, but the adapter was"
                f" trained with {alpha:g} ({where}); restore the file that the training wrote."
            )
    trained_on = settings.get("model") or arguments.get("model") or adapter.config.base_model_name_or_path
    weights = settings.get(WEIGHTS) or _weights_at(trained_on)
    if weights and weights != models.fingerprint(base):
        raise ConfigError(f"The adapter in {folder} was not trained on {base}, but on {trained_on}; give {trained_on}.")


def _noted(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _weights_at(path: object) -> str | None:
    if not isinstance(path, str) or not Path(path).is_absolute() or not (Path(path) / "config.json").is_file():
        return None
    try:
        return models.fingerprint(Path(path))
    except (FileNotFoundError, PermissionError, VaseError):
        return None
