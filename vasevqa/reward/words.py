"""Normalize texts, split texts into words, and compare words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from rapidfuzz.distance import Indel

STOP = frozenset(
    {
        "a",
        "an",
        "the",
        "of",
        "and",
        "or",
        "in",
        "on",
        "at",
        "to",
        "with",
        "by",
        "from",
        "is",
        "was",
        "were",
        "are",
        "be",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "as",
        "for",
        "into",
        "no",
        "not",
        "near",
        "his",
        "her",
        "their",
        "which",
        "who",
        "vase",
        "pot",
        "vessel",
        "shape",
        "technique",
        "fabric",
        "made",
        "painted",
        "decorated",
        "depicted",
        "shows",
        "showing",
        "scene",
        "figure",
        "figures",
        "side",
        "attributed",
        "attribution",
        "painter",
        "workshop",
        "group",
        "manner",
        "probably",
        "perhaps",
        "possibly",
        "ancient",
        "greek",
        "found",
        "provenance",
        "date",
        "dated",
        "answer",
    }
)
_WORD = re.compile(r"[^\W_]+")


def without_accents(text: str) -> str:
    """Return the text in lower case without accents."""
    lower = text.lower()
    if lower.isascii():
        return lower
    return "".join(letter for letter in unicodedata.normalize("NFKD", lower) if not unicodedata.combining(letter))


@lru_cache(maxsize=8192)
def normalize(text: str) -> str:
    """Return the text in lower case without accents, with one kind of dash and single spaces."""
    return " ".join(re.sub(r"[\u2010-\u2015\u2212]", "-", without_accents(text)).split())


def words(text: str) -> list[str]:
    """Return the normalized words of a text."""
    return list(_words(text))


@lru_cache(maxsize=8192)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(normalize(text)))


def content(text: str) -> list[str]:
    """Return the words of a text without stop words."""
    return [word for word in words(text) if word not in STOP]


def likeness(one: str, other: str, least: float = 0.0) -> float:
    """Return the similarity of the spellings of two short texts, in [0, 1], or 0 if it is below `least`.

    The similarity is that of Ratcliff and Obershelp's matching blocks. Another similarity, by the longest common
    subsequence, is never smaller and much faster to compute. If it is below `least`, the result is 0 without a search
    for matching blocks.
    """
    if Indel.normalized_similarity(one, other) < least:
        return 0.0
    near = SequenceMatcher(None, one, other, autojunk=False).ratio()
    return near if near >= least else 0.0


def jaccard(one: Iterable[str], other: Iterable[str]) -> float:
    """Return the size of the intersection of two sets divided by the size of their union, or 0 if both are empty."""
    left, right = set(one), set(other)
    return len(left & right) / len(left | right) if left | right else 0.0


def overlap(answer: Sequence[str], truth: Sequence[str], close: float = 0.84) -> float:
    """Return the F1 of the words of two texts. Each occurrence of a repeated word counts.

    A pair of words with nearly the same spelling counts in part. Its weight is the similarity of the spellings.
    """
    if not answer or not truth:
        return 0.0
    have, need = Counter(answer), Counter(truth)
    same = have & need
    matched = float(sum(same.values()))
    left, missing = list((have - same).elements())[:64], list((need - same).elements())[:64]
    for word in missing:
        if len(word) < 4:
            continue
        near = [other for other in left if other[0] == word[0] and abs(len(other) - len(word)) <= 2]
        best = max(((likeness(word, other, close), other) for other in near), default=(0.0, ""))
        if best[0] >= close:
            matched += best[0]
            left.remove(best[1])
    return 2 * matched / (len(answer) + len(truth))


def weighted(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the weighted mean of `parts`. `weights` maps the name of each part to its weight."""
    total = sum(weights[name] for name in parts)
    return sum(parts[name] * weights[name] for name in parts) / total if total else 0.0
