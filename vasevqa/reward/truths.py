"""Read the true answer of a row from the JSON in its column `solution`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TEXT_KEYS = ("content", "text", "value", "answer", "solution", "caption")


def truths(solution: Any, attribute: str | None = None) -> tuple[str, ...]:
    """Return the true answers in `solution`. An answer is right if it agrees with one of them.

    A text or a number is one truth. For a message ({"role", "content"}) the truth is the message's text. For several
    messages the truth is the text of the last assistant message. For an object that maps attributes to values, the
    truth is the value of `attribute`. A list of two numbers is a range of years. Any other list holds alternatives.

    Raise ValueError with the reason if `solution` holds no truth that can be compared with an answer.
    """
    answers = tuple(dict.fromkeys(_texts(solution, attribute)))
    if not answers:
        raise ValueError(f"{_shown(solution)} holds no text")
    return answers


def _texts(value: Any, attribute: str | None) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither a text nor a number")
    if isinstance(value, int | float):
        return [f"{value:.10g}"]
    if isinstance(value, Mapping):
        return _texts(_answer_in(value, attribute), attribute)
    if isinstance(value, list | tuple):
        return _texts_of_list(list(value), attribute)
    if value is None:
        return []
    # The reader of JSON lines converts a text like 1899-12-31 to a date.
    return [value.isoformat().removesuffix("T00:00:00") if hasattr(value, "isoformat") else str(value)]


def _texts_of_list(values: list[Any], attribute: str | None) -> list[str]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) == len(numbers) == 2:
        return [f"{min(numbers):.10g} to {max(numbers):.10g}"]
    parts = [value for value in values if isinstance(value, Mapping)]
    if parts and all("role" in part for part in parts):
        said = [part for part in parts if part["role"] == "assistant"] or parts
        return _texts(said[-1], attribute)
    if parts and all("type" in part for part in parts):  # the parts of one message in the format of OpenAI's API
        joined = " ".join(str(part["text"]) for part in parts if part.get("text"))
        return [joined] if joined.strip() else []
    return [text for value in values for text in _texts(value, attribute)]


def _answer_in(value: Mapping[str, object], attribute: str | None) -> Any:
    # If rows have objects with different keys, ms-swift adds the missing keys with the value None.
    known = {key: inner for key, inner in value.items() if inner is not None}
    if attribute and attribute in known:
        return known[attribute]
    for key in TEXT_KEYS:
        if key in known:
            return known[key]
    if len(known) == 1 and not known.keys() & {"role", "from", "type"}:
        return next(iter(known.values()))
    raise ValueError(f"{_shown(value)} has none of the keys {', '.join(TEXT_KEYS)}")


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:80]
