"""Read conversations in the formats of ms-swift (`query`, `response`) and of chat APIs (content as a list of parts)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vasevqa.dataset.problems import Problem
from vasevqa.text import IMAGE_TAG

Turn = tuple[str, str]  # role and text
UNKNOWN = ("", "none", "null", "nan", "n/a", "unknown", "-", "\N{EN DASH}", "\N{EM DASH}", "?")
_PICTURES = ("image", "image_url", "input_image")


def says_nothing(text: str) -> bool:
    """Return whether a text is empty or a placeholder, such as a dash."""
    return text.strip().lower() in UNKNOWN


def answered(turns: Iterable[Turn], where: str, problems: list[Problem]) -> tuple[Turn, ...]:
    """Return the turns up to the last non-empty answer, or () if all answers are empty.

    An empty answer and its question are removed, and the empty answer is reported as a problem. The image tags of the
    removed question move to the next question, so that the tags still match the pictures.
    """
    kept: list[Turn] = []
    shown = 0
    for role, text in turns:
        if role == "assistant" and says_nothing(text):
            problems.append(Problem("empty answer", where, "an answer in the conversation is empty"))
            if kept and kept[-1][0] == "user":
                shown += kept.pop()[1].count(IMAGE_TAG)
        elif role == "user":
            kept.append((role, IMAGE_TAG * shown + text))
            shown = 0
        else:
            kept.append((role, text))
    while kept and kept[-1][0] != "assistant":
        kept.pop()
    return tuple(kept)


def talk(entry: Mapping[str, object]) -> Any:
    """Return the turns of a row, from `conversations`, from `messages`, or from `query`, `response` and `history`.

    Return None if the row holds none of these keys.
    """
    turns = entry.get("conversations") or entry.get("messages")
    query, response = entry.get("query"), entry.get("response")
    if turns is None and isinstance(query, str) and query:
        history = entry.get("history")
        pairs = [pair for pair in history if isinstance(pair, list)] if isinstance(history, list) else []
        pairs.append([query, response])
        turns = [
            {"role": role, "content": text}
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair, strict=False)
        ]
    system = entry.get("system")
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    spoken = str(first.get("from") or first.get("role")).lower()
    if isinstance(turns, list) and isinstance(system, str) and system.strip() and spoken != "system":
        turns = [{"role": "system", "content": system}, *turns]
    return turns


def joined_parts(content: Any) -> Any:
    """Return the parts of a message's content as one text, with an image tag for each picture.

    The content is returned unchanged if it is not a list, or if a part is neither a text nor a picture.
    """
    if not isinstance(content, list):
        return content
    told = ""
    for part in content:
        if isinstance(part, str):
            told += part
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
            told += str(part.get("text") or part.get("content") or "")
        elif isinstance(part, dict) and part.get("type") in _PICTURES:
            told += IMAGE_TAG
        else:
            return content
    return told


def part_images(messages: Any) -> list[str]:
    """Return the paths or URLs of the pictures in messages whose content is a list of parts."""
    pictures = []
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and part.get("type") in _PICTURES:
                values = (part.get(key) for key in ("image", "image_url", "path", "url"))
                value = next((value for value in values if value), None)
                value = value.get("url") if isinstance(value, dict) else value
                pictures += [str(value)] if value else []
    return pictures
