"""Read the answer in a model's response: in plain text, in <answer> tags, or in JSON."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_CHARACTERS = 4000
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.IGNORECASE | re.DOTALL)
_LEAD = re.compile(r"\A(?:answer|the answer is|it is|this is|the \w+ (?:of this vase )?is)\s*:?\s+", re.IGNORECASE)


def read_answer(response: str, attribute: str | None = None) -> str:
    """Return the answer in a response.

    The answer is the plain text, the text inside <answer> tags, or the value in JSON. Answers in several tags
    are joined by semicolons.
    """
    text = THINK.sub(" ", response[:MAX_CHARACTERS]).strip()
    text = text.rpartition("</think>")[2].strip()  # also removes a thought whose opening tag is missing
    tagged = [inner.strip() for inner in _ANSWER.findall(text)]
    if tagged:
        text = "; ".join(inner for inner in tagged if inner)
    fenced = _FENCE.match(text)
    inner = fenced[1] if fenced else text
    if inner[:1] in "{[":
        try:
            text = _json_answer(json.loads(inner), attribute)
        except (ValueError, RecursionError):
            text = inner
    return _LEAD.sub("", text.strip().strip("\"'")).strip()


def _json_answer(value: Any, attribute: str | None) -> str:
    ends = _ends(value)
    if ends is not None:
        return f"{ends[0]} to {ends[1]}"
    if isinstance(value, dict):
        for key in ("answer", attribute, *([] if len(value) != 1 else value)):
            if key in value:
                return _json_answer(value[key], None)
        return "; ".join(_json_answer(item, None) for item in value.values())
    if isinstance(value, list):
        return "; ".join(_json_answer(item, None) for item in value)
    return "" if value is None else str(value)


def _ends(value: Any) -> tuple[int, int] | None:
    """Return the two years of {"start": -500, "end": -450} or [-500, -450], or None for anything else."""
    if isinstance(value, dict):
        lower = {str(key).lower(): item for key, item in value.items()}
        pairs = [("start", "end"), ("from", "to"), ("begin", "end"), ("start_year", "end_year"), ("earliest", "latest")]
        value = next(([lower[one], lower[other]] for one, other in pairs if one in lower and other in lower), None)
    if isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value):
        return value[0], value[1]
    return None
