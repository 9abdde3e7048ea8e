"""The reward `external_vase_acc`: how right an answer about a vase is, in [0, 1].

VaseVQA-3D names this reward but never published it. This module is the reference here.

Each attribute is scored in its own way. Fabric, technique and shape are compared by names with their spellings. Dates
are compared as intervals (IoU). Decoration is compared by what is depicted and by words. Attribution and provenance are
compared by names.

Padding, listing, copying and repeating earn little. Otherwise GRPO would find these tricks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

from rapidfuzz.distance import LCSseq

from vasevqa.reward.dates import iou, parse_dates
from vasevqa.reward.vocabulary import (
    ATTRIBUTES,
    VOCABULARIES,
    content,
    jaccard,
    likeness,
    normalize,
    overlap,
    terms,
    weighted,
    words,
)
from vasevqa.text import IMAGE_TAG

# The paper's combination for captions.
PAPER_WEIGHTS = {
    "fabric": 0.20,
    "technique": 0.20,
    "decoration": 0.20,
    "shape": 0.15,
    "date": 0.15,
    "attribution": 0.10,
}
PAPER_FLOOR, PAPER_PENALTY, PAPER_BONUS = 0.7, 0.2, 0.05
MAX_CHARACTERS = 4000
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
_LEAD = re.compile(r"\A(?:answer|the answer is|it is|this is|the \w+ (?:of this vase )?is)\s*:?\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Score:
    """A reward in [0, 1], the parts that it is made of, and a sentence that says why."""

    value: float
    parts: dict[str, float] = field(default_factory=dict)
    why: str = ""


def read_answer(response: str, attribute: str | None = None) -> str:
    """Return what a response answers.

    The answer is the plain text, the text inside <answer> tags, or the value in JSON. The answers of several tags stay
    separate answers.
    """
    text = _THINK.sub(" ", response[:MAX_CHARACTERS]).strip()
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
    if isinstance(value, dict):
        for key in ("answer", attribute, *([] if len(value) != 1 else value)):
            if key in value:
                return _json_answer(value[key], None)
        return "; ".join(_json_answer(item, None) for item in value.values())
    if isinstance(value, list):
        return "; ".join(_json_answer(item, None) for item in value)
    return "" if value is None else str(value)


@lru_cache(maxsize=4096)
def infer_attribute(truth: str) -> str:
    """Return the attribute that a truth is about, when nobody has named it.

    A truth of at most eight words can name a known shape, technique or fabric, or a date. It is then about that
    attribute. Any other truth is a caption.
    """
    if len(words(truth)) <= 8:
        for name in VOCABULARIES:
            if terms(truth, name):
                return name
        if parse_dates(truth):
            return "date"
    return "caption"


def score(answer: str, truth: str, attribute: str | None = None, question: str = "") -> Score:
    """Return how right `answer` is about `attribute`, with the parts of the score.

    The attribute is inferred from `truth` if it isn't one of ATTRIBUTES.
    """
    kind = str(attribute or "").strip().lower()
    kind = {"dating": "date", "painter": "attribution", "description": "caption"}.get(kind, kind)
    if kind not in ATTRIBUTES:
        kind = infer_attribute(truth)
    text = read_answer(answer, kind)
    if not words(text):
        return Score(0.0, {}, "the answer is empty")
    text, copied = _without_question(text, question)
    if not words(text):
        return Score(0.0, {"copied question": 0.0}, "the answer repeats the question")
    right, why = _right(kind, text, truth)
    factors = {
        "length": _length(text, truth),
        "repetition": _repetition(text),
        "alternatives": _alternatives(kind, text, truth),
        "copied question": copied,
    }
    value = right
    for factor in factors.values():
        value *= factor
    lowered = [name for name, factor in factors.items() if factor < 1]
    return Score(
        min(1.0, max(0.0, value)),
        {kind: right, **factors},
        why + (f"; lowered for {', '.join(lowered)}" if lowered and right else ""),
    )


def _right(kind: str, text: str, truth: str) -> tuple[float, str]:
    if normalize(text).strip(" .") == normalize(truth).strip(" ."):
        return 1.0, "the same words"
    if kind == "date":
        return _date(text, truth)
    if kind in VOCABULARIES:
        return _named(kind, text, truth)
    if kind == "decoration":
        return _decoration(text, truth)
    if kind == "caption":
        return _caption(text, truth)
    close = overlap(content(text) or words(text), content(truth) or words(truth))
    return close, f"names overlap by {close:.0%}"


def _date(text: str, truth: str) -> tuple[float, str]:
    said, known = parse_dates(text), parse_dates(truth)
    if not known:
        close = overlap(words(text), words(truth))
        return close, f"the truth names no years; words overlap by {close:.0%}"
    if not said:
        return 0.0, "the answer names no years"
    # Of several dates the worst counts: naming many must not help.
    worst = min(max(iou(interval, right) for right in known) for interval in said)
    return worst, f"{_years(said)} against {_years(known)}: {worst:.0%} of their years in common"


def _years(intervals: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start} to {end}" for start, end in intervals[:3])


def _named(kind: str, text: str, truth: str) -> tuple[float, str]:
    known, said = terms(truth, kind), terms(text, kind)
    if known and said:
        value = jaccard(said, known)
        return value, f"{', '.join(said[:4])} against {', '.join(known)}"
    target = known[0] if known else normalize(truth)
    best = max((likeness(part, target) for part in _spans(words(text), len(words(target)))), default=0.0)
    value = (
        max(0.0, (best - 0.7) / 0.3) * 0.8
        if known
        else overlap(content(text) or words(text), content(truth) or words(truth))
    )
    return value, f"spelt {best:.0%} like {target}" if known else f"words overlap by {value:.0%}"


def _spans(found: list[str], length: int) -> list[str]:
    return [" ".join(found[begin : begin + length]) for begin in range(max(1, len(found) - length + 1))][:32]


def _decoration(text: str, truth: str) -> tuple[float, str]:
    lexical = overlap(content(text), content(truth))
    known, said = terms(truth, "decoration"), terms(text, "decoration")
    if not known:
        return lexical, f"words overlap by {lexical:.0%}"
    depicted = jaccard(said, known)
    return (
        0.6 * depicted + 0.4 * lexical,
        (
            f"depicts {', '.join(said[:4]) or 'nothing known'} against {', '.join(known[:4])}; words overlap by"
            f" {lexical:.0%}"
        ),
    )


def _caption(text: str, truth: str) -> tuple[float, str]:
    said, known = words(text), words(truth)
    lexical = overlap(content(text), content(truth))
    order = _order(said, known)
    return 0.7 * lexical + 0.3 * order, f"words overlap by {lexical:.0%}, {order:.0%} in the same order"


def _order(said: list[str], known: list[str]) -> float:
    """Return how much of the words of both texts is in their longest common order.

    This is the F1 of ROUGE-L (Lin, 2004).
    """
    said, known = said[:120], known[:120]
    if not said or not known:
        return 0.0
    return 2 * LCSseq.similarity(said, known) / (len(said) + len(known))


def _without_question(text: str, question: str) -> tuple[str, float]:
    asked = normalize(question.replace(IMAGE_TAG, " ")).strip(" ?.")
    if not asked:
        return text, 1.0
    plain = normalize(text)
    if asked in plain:
        return plain.replace(asked, " ").strip(" ?.:"), 0.5
    if likeness(plain[:400].strip(" ?."), asked[:400]) > 0.85:
        return "", 0.0
    return text, 1.0


def _length(text: str, truth: str) -> float:
    allowed = 3 * len(words(truth)) + 9
    return min(1.0, (allowed / max(1, len(words(text)))) ** 1.5)


def _repetition(text: str) -> float:
    said = words(text)
    if len(said) < 3:
        return 1.0 if len(set(said)) == len(said) else 0.5
    pairs = list(pairwise(said))
    fresh = min(len(set(said)) / len(said) * 1.5, len(set(pairs)) / len(pairs))
    return fresh**2 if fresh < 0.9 else 1.0


def _alternatives(kind: str, text: str, truth: str) -> float:
    """Return a factor that lowers the score of an answer that offers several alternatives.

    The factor is the number of alternatives in the truth divided by the number in the answer, and at most 1.
    """
    if kind in ("caption", "decoration", "date"):
        return 1.0
    marks = re.compile(r";|\n|\||\s/\s|\bor\b")
    offered = len([part for part in marks.split(normalize(text)) if words(part)])
    return min(1.0, max(1, len(marks.split(normalize(truth)))) / max(1, offered))


def paper_score(answer: str, truth: Mapping[str, str]) -> Score:
    """Score a caption against a vase's attributes by the combination that the paper gives.

    The score is the weighted mean of the similarities, with the weights PAPER_WEIGHTS. The mean covers the attributes
    that `truth` has. A similarity below 0.7 counts as 0. A penalty for length and repetition is subtracted. A bonus for
    the caption's word order is added. Its reference is the caption in `truth`, or the joined attributes if `truth` has
    no caption.
    """
    text = read_answer(answer)
    known = {("date" if name == "dating" else name): str(value) for name, value in truth.items() if value}
    if not words(text):
        return Score(0.0, {}, "the answer is empty")
    parts: dict[str, float] = {}
    for name in PAPER_WEIGHTS:
        if name in known:
            similar = _found(name, text, known[name])
            parts[name] = similar if similar >= PAPER_FLOOR else 0.0
    reference = known.get("caption") or ", ".join(known.values())
    penalty = PAPER_PENALTY * (1 - _length(text, reference) * _repetition(text))
    bonus = PAPER_BONUS * _order(words(text), words(reference))
    value = min(1.0, max(0.0, weighted(parts, PAPER_WEIGHTS) - penalty + bonus))
    return Score(
        value, {**parts, "penalty": -penalty, "bonus": bonus}, "weighted mean of the attributes found in the caption"
    )


def _found(name: str, text: str, truth: str) -> float:
    """Return how well a caption contains one attribute, where the caption may say other things too."""
    if name == "date":
        return _date(text, truth)[0]
    if name in VOCABULARIES and terms(truth, name):
        return jaccard(terms(text, name), terms(truth, name))
    if name == "decoration" and terms(truth, name):
        return jaccard(terms(text, name), terms(truth, name))
    need = content(truth) or words(truth)
    have = set(words(text))
    return sum(word in have for word in need) / len(need) if need else 0.0


def vase_format(response: str) -> float:
    """Return how well-formed a response is, in [0, 1].

    The result is 1 for one short answer as plain text, in one pair of <answer> tags, or in JSON.
    """
    text = _THINK.sub(" ", response).strip()
    said = words(read_answer(text))
    if not said:
        return 0.0
    value = 1.0
    opened, closed = (
        len(re.findall(r"<answer>", text, re.IGNORECASE)),
        len(re.findall(r"</answer>", text, re.IGNORECASE)),
    )
    if opened != closed or opened > 1:
        value *= 0.5
    if text[:1] == "{":
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            value *= 0.5
    value *= min(1.0, 60 / len(said)) * _repetition(" ".join(said))
    if re.search(r"<\|?\w+\|?>", re.sub(r"</?answer>", "", text, flags=re.IGNORECASE)) or "\ufffd" in text:
        value *= 0.5
    return value


def external_vase_acc(
    responses: Sequence[str],
    references: Sequence[str],
    attributes: Sequence[str | None] | None = None,
    questions: Sequence[str] | None = None,
) -> list[float]:
    """Return the reward of each response against its reference.

    Known attributes and questions make the reward sharper.
    """
    kinds = attributes or [None] * len(responses)
    asked = questions or [""] * len(responses)
    return [score(*row).value for row in zip(responses, references, kinds, asked, strict=True)]
