"""Compare descriptions of scenes by the figures, animals, objects and actions that they name on each side of a vase.

The vocabulary lists the spellings of each thing. A word that is not in the vocabulary also counts, by its stem. A
figure that is not in the vocabulary can therefore be right. A figure that many vases show ("two youths") says little
about one vase and has a low weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from vasevqa.reward.claims import claims
from vasevqa.reward.vocabulary import Terms, load
from vasevqa.reward.words import STOP, normalize, words

NAMED, WORD, COMMON = 1.0, 0.5, 0.3  # weights of a concept, of any other word, and of a concept of many vases
SWAPPED = 0.5  # factor if the right things are on the wrong side of the vase
# Allowed weight of things that are not in the truth: SPARE times the weight of the right things, plus FREE.
SPARE, FREE = 1.0, 0.5
_SIDES = {
    "a": r"(?:side\s+)?a\b\s*[:.,)-]|\bobverse\b|\bfront\b\s*:",
    "b": r"(?:side\s+)?b\b\s*[:.,)-]|\breverse\b|\bback\b\s*:",
    "tondo": r"\b(?:tondo|interior|inside|i)\b\s*[:.]",
    "shoulder": r"\bshoulder\b\s*:",
    "neck": r"\bneck\b\s*:",
    "body": r"\bbody\b\s*:",
    "lip": r"\blip\b\s*:",
}
_SIDE = re.compile("|".join(rf"(?P<{name}>(?<![\w-]){pattern})" for name, pattern in _SIDES.items()))
_LITTLE = STOP | {
    "between", "one", "two", "three", "four", "several", "other", "another", "each", "both", "left", "right", "centre",
    "center", "standing", "seated", "sitting", "facing", "holding", "looking", "moving", "up", "down", "back",
    "frontal", "profile", "naked", "nude", "draped", "possibly", "shown", "also", "who", "while", "some", "over",
    "under", "above",
    "below", "beside", "next", "before", "behind", "scenes", "decoration", "interior", "exterior", "tondo", "shoulder",
    "neck", "body", "lip", "framed", "band", "bands", "obverse", "reverse", "his", "her", "its", "a", "b", "i", "side",
    "sides",
}  # fmt: skip


def score_decoration(text: str, truth: str) -> tuple[float, str]:
    """Return the score of a description of a scene, and an explanation.

    The score is the share (by weight) of the things in the truth that the answer also names. The answer may name
    further things, because catalogues don't name everything. If the further things weigh more than the right things,
    the score is lower. A list of common figures therefore earns little.
    """
    said, known = claims(text).asserted, claims(truth).asserted or normalize(truth)
    have, need = things(said), things(known)
    if not need:
        return 0.0, "the truth describes nothing"
    value = _recall(have, need) * _measure(have, need)
    ours, theirs = sides(said), sides(known)
    common = [name for name in theirs if name in ours]
    if len(theirs) > 1 and len(common) > 1 and value > 0:
        weight = sum(sum(things(theirs[name]).values()) for name in common) or 1.0
        placed = sum(
            _recall(things(ours[name]), things(theirs[name])) * sum(things(theirs[name]).values()) for name in common
        )
        value *= SWAPPED + (1 - SWAPPED) * min(1.0, placed / weight / max(_recall(have, need), 1e-9))
    matched = [name for name in need if name in have]
    return value, f"depicts {', '.join(matched[:5]) or 'nothing'} of {', '.join(list(need)[:6])}"


def share_of_scene(text: str, truth: str) -> float:
    """Return the share (by weight) of the things in the truth that a text names. Other things have no effect."""
    return _recall(things(claims(text).asserted), things(claims(truth).asserted or normalize(truth)))


def sides(text: str) -> dict[str, str]:
    """Return a mapping from each side of the vase to the part of the description about this side."""
    descriptions: dict[str, str] = {}
    marks = [match for match in _SIDE.finditer(normalize(text)) if match.lastgroup]
    plain = normalize(text)
    ends = [*(match.start() for match in marks[1:]), len(plain)]
    for match, end in zip(marks, ends, strict=False):
        part = plain[match.end() : end]
        descriptions[str(match.lastgroup)] = f"{descriptions.get(str(match.lastgroup), '')} {part}"
    return descriptions


def things(text: str) -> Mapping[str, float]:
    """Return the things that a text names, each with its weight."""
    return _things(text, load("figure"))


@lru_cache(maxsize=4096)
def _things(text: str, terms: Terms) -> Mapping[str, float]:
    said = tuple(words(_SIDE.sub(" ", normalize(text))))
    weights: dict[str, float] = {}
    at = 0
    for name, begin, end in [*terms.spans(said), ("", len(said), len(said))]:
        for word in said[at:begin]:
            if word not in _LITTLE and len(word) > 2:
                weights.setdefault(_stem(word), WORD)
        if name:
            weights[name] = COMMON if terms.concepts[name].common else NAMED
        at = end
    return weights


def _stem(word: str) -> str:
    """Return a word without its plural or verb ending (a light stemmer, after Harman, 1991)."""
    for ending, kept in (("ing", ""), ("ies", "y"), ("ied", "y"), ("es", ""), ("ed", ""), ("s", ""), ("e", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)] + kept
    return word


def _recall(have: Mapping[str, float], need: Mapping[str, float]) -> float:
    total = sum(need.values())
    return sum(weight for name, weight in need.items() if name in have) / total if total else 0.0


def _measure(have: Mapping[str, float], need: Mapping[str, float]) -> float:
    """Return a factor that lowers the score if most things in the answer are not in the truth.

    The weight of the right things decides how much weight all things in the answer may have. Up to this allowed weight,
    the factor is 1. Above it, the factor is (allowed weight / weight of the things in the answer) squared.
    """
    right = sum(weight for name, weight in need.items() if name in have)
    more = sum(weight for name, weight in have.items() if name not in need)
    allowed = (1 + SPARE) * right + FREE
    return (allowed / max(right + more, allowed)) ** 2
