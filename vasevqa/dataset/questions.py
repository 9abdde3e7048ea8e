"""Questions about a vase's attributes, from a file that users can replace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vasevqa.errors import ConfigError, invalid_yaml
from vasevqa.reward.vocabulary import ATTRIBUTES
from vasevqa.text import IMAGE_TAG, nearest

DEFAULT = Path(__file__).with_name("questions.yaml")


@dataclass(frozen=True)
class Questions:
    """Ways to ask for each attribute, and the system prompt of every row (or none)."""

    ask: dict[str, tuple[str, ...]]
    system: str | None = None


def load_questions(path: Path | None) -> Questions:
    """The templates in a YAML file: attribute -> list of questions, and `system`.

    ConfigError names the key that is wrong.
    """
    path = path or DEFAULT
    try:
        loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise invalid_yaml(path, error, 'write attribute: ["question", ...], in quotes') from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} is not a mapping; write attribute: [question, ...].")
    ask: dict[str, tuple[str, ...]] = {}
    for key, value in loaded.items():
        if key == "system":
            continue
        if key not in ATTRIBUTES:
            raise ConfigError(f"{path}: there is no attribute '{key}'.{nearest(str(key), [*ATTRIBUTES, 'system'])}")
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(item, str) and item.strip() for item in value)
        ):
            raise ConfigError(f"{path}: {key} needs a list of questions, such as [What is the {key} of this vase?].")
        if any(IMAGE_TAG in item for item in value):
            raise ConfigError(f"{path}: {key}: leave {IMAGE_TAG} out, it is put in front of every question.")
        ask[key] = tuple(item.strip() for item in value)
    system = loaded.get("system")
    if system is not None and not isinstance(system, str):
        raise ConfigError(f"{path}: system must be a text, not {system!r}.")
    if not ask:
        raise ConfigError(f"{path} asks nothing; give at least one attribute with a question.")
    return Questions(ask, system)
