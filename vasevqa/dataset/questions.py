"""Load the questions about a vase's attributes from a file that users can replace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError
from vasevqa.reward.vocabulary import ATTRIBUTES
from vasevqa.text import IMAGE_TAG, nearest
from vasevqa.yaml_files import FileKind, Lines, parse, read_text

KIND = FileKind("questions file", "give a YAML file with a list of questions for each attribute")
DEFAULT = Path(__file__).with_name("questions.yaml")


@dataclass(frozen=True)
class Questions:
    """The questions for each attribute (`ask`), and the system prompt of every row (`system`, None for no prompt)."""

    ask: dict[str, tuple[str, ...]]
    system: str | None = None


def load_questions(path: Path | None) -> Questions:
    """Load the questions from a YAML file, or the default questions if `path` is None.

    The file maps attributes to lists of questions, and it may have a key `system`. Raise ConfigError if the file is
    invalid. The message names the invalid key.
    """
    path = path or DEFAULT
    hint = 'write `attribute: ["question", ...]`, with each question in quotes'
    loaded: Any = parse(read_text(path, KIND), Lines(str(path)), aliases=True, hint=hint)
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} is not a mapping; write lines such as `attribute: [question, ...]`.")
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
            raise ConfigError(
                f"{path}: the attribute {key} needs a list of questions, such as `[What is the {key} of this vase?]`."
            )
        if any(IMAGE_TAG in item for item in value):
            raise ConfigError(
                f"{path}: a question for {key} contains {IMAGE_TAG}; remove {IMAGE_TAG}, which is added later."
            )
        ask[key] = tuple(item.strip() for item in value)
    system = loaded.get("system")
    if system is not None and not isinstance(system, str):
        raise ConfigError(f"{path}: the value of `system` is {system!r}, which is not a text; write a text.")
    if not ask:
        raise ConfigError(f"{path} holds no question; add at least one attribute with a question.")
    return Questions(ask, system)
