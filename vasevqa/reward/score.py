"""Compute the reward `external_vase_acc`, which says how correct an answer about a vase is, in [0, 1].

VaseVQA-3D names this reward, but its code was never published. In this project, the reward is defined by this module.

Each attribute has its own score. Fabric, technique and shape are compared by their names in any known spelling. Dates
are compared as intervals of years. Decoration is compared by depicted things and by words. Attribution is compared by
the names of painters and groups, and provenance by the names of places.

Long, copied or repeated answers and lists of alternatives get low scores. Otherwise a model would learn to give such
answers in GRPO.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rapidfuzz.distance import LCSseq

from vasevqa.reward.answers import THINK, read_answer
from vasevqa.reward.attribution import score_attribution
from vasevqa.reward.claims import claims, is_refusal, without_gloss
from vasevqa.reward.dates import nearness, parse_dates, single_years, years_nearness
from vasevqa.reward.decoration import score_decoration, share_of_scene
from vasevqa.reward.named import concluded, denies, named, named_in, parts_of
from vasevqa.reward.places import score_place
from vasevqa.reward.truths import truths
from vasevqa.reward.vocabulary import ATTRIBUTES, load
from vasevqa.reward.words import content, jaccard, likeness, normalize, overlap, weighted, words
from vasevqa.text import IMAGE_TAG

# The paper's weights of the attributes in a caption.
PAPER_WEIGHTS = {
    "fabric": 0.20,
    "technique": 0.20,
    "decoration": 0.20,
    "shape": 0.15,
    "date": 0.15,
    "attribution": 0.10,
}
PAPER_FLOOR, PAPER_PENALTY, PAPER_BONUS = 0.7, 0.2, 0.05
NAMED = ("shape", "technique", "fabric")  # attributes whose values are names in the vocabulary
SHORTEST_QUESTION = 3  # minimum number of words; a shorter question isn't searched in the answer
# Number of characters of an answer that are read. A longer answer has almost no score because of its length.
READ, READ_PER_LETTER = 600, 8
FORM = 0.1  # the share of external_vase_acc that depends on the form


@dataclass(frozen=True)
class Score:
    """A reward in [0, 1], its parts, and a sentence that explains the reward."""

    value: float
    parts: dict[str, float] = field(default_factory=dict)
    why: str = ""


def infer_attribute(truth: str) -> str:
    """Return the attribute that a true answer is about, if its row doesn't name the attribute.

    If the true answer has at most eight words and contains a known shape, technique or fabric, or a date, it is about
    that attribute. Any other true answer is a caption.
    """
    if len(words(truth)) <= 8:
        for name in NAMED:
            if load(name).find(truth):
                return name
        if parse_dates(truth):
            return "date"
    return "caption"


def score(answer: str, truth: str, attribute: str | None = None, question: str = "") -> Score:
    """Return the score of an answer to a question about `attribute`, with the parts of the score.

    If `attribute` isn't one of ATTRIBUTES, the attribute is inferred from `truth`, the true answer.
    """
    kind = str(attribute or "").strip().lower()
    kind = {"dating": "date", "painter": "attribution", "description": "caption"}.get(kind, kind)
    if kind not in ATTRIBUTES:
        kind = infer_attribute(truth)
    text = read_answer(answer, kind)
    if not words(text):
        return Score(0.0, {}, "the answer is empty")
    text, copied = _without_question(text, question)
    if kind in NAMED:
        text = concluded(text, load(kind))
    if not words(text):
        return Score(0.0, {"copied question": 0.0}, "the answer repeats the question")
    read = text[: max(READ, READ_PER_LETTER * len(truth))]
    right, why = _right(kind, read, truth)
    factors = {
        "length": _length(text, truth),
        "repetition": min(map(_repetition, vars(claims(text)).values())),
        "alternatives": _alternatives(kind, read, truth),
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


def exact(answer: str, truth: str, attribute: str) -> bool:
    """Return whether an answer has the same words, the same known names or the same years as the truth.

    The answer is read in the same way as for the reward. Denied words don't count.
    """
    text = read_answer(answer, attribute)
    if normalize(text).strip(" .") == normalize(truth).strip(" ."):
        return True
    if claims(text).contradictory:
        return False
    if attribute in NAMED:
        terms = load(attribute)
        known = set(parts_of(without_gloss(truth), terms))
        whole, said = named_in(text, terms)
        return bool(known) and set(said) == known and not denies(whole, known, terms)
    claim = claims(without_gloss(text)).asserted
    if attribute == "date":
        return bool(parse_dates(truth)) and parse_dates(claim) == parse_dates(truth)
    if attribute in ("attribution", "provenance"):
        return score(answer, truth, attribute).value >= 1.0
    return bool(words(claim)) and words(claim) == words(truth)


def _right(kind: str, text: str, truth: str) -> tuple[float, str]:
    if normalize(text).strip(" .") == normalize(truth).strip(" ."):
        return 1.0, "the same words"
    if is_refusal(text):
        return 0.0, "the answer says that it does not know"
    if not claims(text).asserted:
        return 0.0, "the answer contains only denials"
    if claims(text).contradictory:
        return 0.0, "the answer contradicts itself"
    if kind == "date":
        return _date(text, truth)
    if kind in NAMED:
        told = named(kind, text, truth)
        if told is not None:
            return told
    elif kind == "decoration":
        return score_decoration(text, truth)
    elif kind == "caption":
        return _caption(text, truth)
    elif kind == "attribution":
        return score_attribution(text, truth)
    elif kind == "provenance":
        return score_place(text, truth)
    said = claims(text).asserted
    close = overlap(content(said) or words(said), content(truth) or words(truth))
    return close, f"words overlap by {close:.0%}"


def _date(text: str, truth: str) -> tuple[float, str]:
    claim = claims(text)
    said, known = parse_dates(claim.asserted), parse_dates(truth)
    if not known:
        close = overlap(words(claim.asserted), words(truth))
        return close, f"the truth names no years; words overlap by {close:.0%}"
    if not said:
        return 0.0, "the answer names no years"
    # If the answer names several dates, the worst date counts. A list of dates therefore doesn't help.
    years, right_years = single_years(claim.asserted), single_years(truth)
    worst = min(
        max(
            years_nearness(interval, right) if interval in years and right in right_years else nearness(interval, right)
            for right in known
        )
        for interval in said
    )
    return worst, f"{_years(said)} against {_years(known)}"


def _years(intervals: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start} to {end}" for start, end in intervals[:3])


def _caption(text: str, truth: str) -> tuple[float, str]:
    said, known = words(text), words(truth)
    lexical = overlap(content(text), content(truth))
    order = _order(said, known)
    return 0.7 * lexical + 0.3 * order, f"words overlap by {lexical:.0%}, {order:.0%} in the same order"


def _order(said: list[str], known: list[str]) -> float:
    """Return how many words the two texts share in the same order, in [0, 1].

    This is the F1 of ROUGE-L (Lin, 2004).
    """
    said, known = said[:120], known[:120]
    if not said or not known:
        return 0.0
    return 2 * LCSseq.similarity(said, known) / (len(said) + len(known))


def _without_question(text: str, question: str) -> tuple[str, float]:
    asked = normalize(question.replace(IMAGE_TAG, " ")).strip(" ?.")
    if len(words(asked)) < SHORTEST_QUESTION:
        return text, 1.0
    plain = normalize(text)
    without, copies = re.subn(rf"(?<!\w){re.escape(asked)}(?!\w)", " ", plain)
    if copies:
        return without.strip(" ?.:"), 0.5
    if likeness(plain[:400].strip(" ?."), asked[:400]) > 0.85:
        return "", 0.0
    return text, 1.0


def _length(text: str, truth: str) -> float:
    allowed = 3 * len(words(truth)) + 9
    return min(1.0, (allowed / max(1, len(words(text)))) ** 1.5)


def _repetition(text: str) -> float:
    # "b c e" in two dates and "on the" before two sides aren't repetitions.
    said = [word for word in content(text) if len(word) > 1] or words(text)
    if len(said) < 3:
        return 1.0 if len(set(said)) == len(said) else 0.5
    pairs = list(pairwise(said))
    fresh = min(len(set(said)) / len(said) * 1.5, len(set(pairs)) / len(pairs))
    return fresh**2 if fresh < 0.9 else 1.0


def _alternatives(kind: str, text: str, truth: str) -> float:
    """Return a factor that lowers the score of an answer with several alternatives.

    The factor is the number of alternatives in the truth, divided by the number of alternatives in the answer. It is at
    most 1.
    """
    if kind == "decoration":
        offered = len([part for part in re.split(r"\bor\b|\|", normalize(text)) if words(part)])
        return min(1.0, max(1, len(re.split(r"\bor\b|\|", normalize(truth)))) / max(1, offered))
    if kind not in NAMED or load(kind).find(text):
        return 1.0  # several known names, places or hands are scored one by one before
    marks = re.compile(r";|\n|\||\s/\s|\bor\b")
    offered = len([part for part in marks.split(normalize(text)) if words(part)])
    return min(1.0, max(1, len(marks.split(normalize(truth)))) / max(1, offered))


def paper_score(answer: str, truth: Mapping[str, str]) -> Score:
    """Return the score of a caption against a vase's attributes by the formula in the paper on VaseVQA-3D.

    The score is the mean of the similarities of the attributes in `truth`, with the weights PAPER_WEIGHTS. A similarity
    below 0.7 counts as 0. A penalty for length and repetition is subtracted, and a bonus for word order is added.
    Length and word order are compared with the caption in `truth`, or with the joined attributes if `truth` has no
    caption.
    """
    text = read_answer(answer)
    known = {("date" if name == "dating" else name): str(value) for name, value in truth.items() if value}
    if not words(text):
        return Score(0.0, {}, "the answer is empty")
    parts: dict[str, float] = {}
    for name in PAPER_WEIGHTS:
        if name in known:
            similar = _stated(name, text, known[name])
            parts[name] = similar if similar >= PAPER_FLOOR else 0.0
    reference = known.get("caption") or ", ".join(known.values())
    penalty = PAPER_PENALTY * (1 - _length(text, reference) * _repetition(text))
    bonus = PAPER_BONUS * _order(words(text), words(reference))
    value = min(1.0, max(0.0, weighted(parts, PAPER_WEIGHTS) - penalty + bonus))
    return Score(
        value, {**parts, "penalty": -penalty, "bonus": bonus}, "weighted mean of the attributes found in the caption"
    )


def paper_truth(solution: Any, attribute: str | None) -> dict[str, str]:
    """Return the attributes in a solution.

    The solution is a mapping, a JSON text of a mapping, or only the value of `attribute`.
    """
    given = solution
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError:
            given = solution
    if isinstance(given, Mapping):
        return {str(name).lower(): str(value) for name, value in given.items() if value is not None}
    return {attribute if attribute in ATTRIBUTES else "caption": str(solution)}


def _stated(name: str, text: str, truth: str) -> float:
    """Return how well a caption states one attribute. Further statements in the caption have no effect."""
    if name == "date":
        return _date(text, truth)[0]
    if name in NAMED and load(name).find(truth):
        return jaccard(load(name).find(text), load(name).find(truth))
    if name == "decoration":
        return share_of_scene(text, truth)
    need = content(truth) or words(truth)
    have = set(words(text))
    return sum(word in have for word in need) / len(need) if need else 0.0


def vase_format(response: str) -> float:
    """Return a score for the form of a response, in [0, 1].

    The score is 1 for one short answer as plain text, in one pair of <answer> tags, or in JSON.
    """
    text = THINK.sub(" ", response).strip()
    answer = read_answer(text)
    said = words(answer)
    if len("".join(said)) < 2 or is_refusal(answer):
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
    references: Sequence[Any],
    attributes: Sequence[str | None] | None = None,
    questions: Sequence[str] | None = None,
) -> list[float]:
    """Return the reward of each response against its reference, in [0, 1].

    The reward is the accuracy times (0.9 + 0.1 x the format). A wrong answer earns nothing for its form, so a group of
    wrong answers gives no gradient. A reference is a text or any JSON that `truths` reads. If a reference holds several
    truths, the truth that gives the highest score counts. The accuracy is more reliable if attributes and questions are
    given. Raise ValueError for a reference without a truth.
    """
    kinds = attributes or [None] * len(responses)
    asked = questions or [""] * len(responses)
    return [
        max(score(response, truth, kind, question).value for truth in truths(reference, kind))
        * (1 - FORM + FORM * vase_format(response))
        for response, reference, kind, question in zip(responses, references, kinds, asked, strict=True)
    ]
