"""Count a model's mistakes by attribute, true class and kind of mistake, and list its worst answers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import IO, TypedDict

from vasevqa import files
from vasevqa.evaluation.metrics import Answered
from vasevqa.reward.answers import read_answer
from vasevqa.reward.claims import claims, is_refusal, without_gloss
from vasevqa.reward.named import named_in, parts_of
from vasevqa.reward.score import NAMED
from vasevqa.reward.vocabulary import Terms, load
from vasevqa.reward.words import normalize, words
from vasevqa.statistics import by_vase
from vasevqa.text import cut

WORST = 20
LONGEST = 300  # characters of an answer in the list of the worst answers
NOTHING = "(nothing known)"
SEVERAL = "(several)"
HEADER = ("model", "vase", "attribute", "question", "truth", "answer", "exact", "reward", "concept", "concept_uri")
_HEDGE = re.compile(r"\b(?:or|either|possibly|perhaps|maybe|might|could be|probably)\b")
RIGHT, SUBTYPE, CLASS, HEDGED, REFUSED, MALFORMED = (
    "right",
    "wrong subtype",
    "wrong class",
    "hedged",
    "refused",
    "malformed",
)


class ClassFigures(TypedDict):
    """The share of exactly right answers for a true class, its interval, and the numbers of rows and vases."""

    exact: float
    interval: list[float] | None
    rows: int
    vases: int


class Mistakes(TypedDict):
    """The mistakes of one model.

    `confusion` counts rows by the true class and the answered class. `confusion_fine` counts rows by the true name and
    the answered name. These are names of concepts in the vocabulary.
    """

    confusion: dict[str, dict[str, dict[str, int]]]  # attribute -> true class -> answered class -> rows
    confusion_fine: dict[str, dict[str, dict[str, int]]]
    classes: dict[str, dict[str, ClassFigures]]  # attribute -> true class -> figures
    kinds: dict[str, dict[str, int]]  # attribute -> kind of mistake -> rows
    worst: list[dict[str, str | float]]


def mistakes_of(answered: Sequence[Answered]) -> Mistakes:
    """Return the mistakes in a model's answers."""
    coarse: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    fine: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    classes: dict[str, dict[str, list[Answered]]] = defaultdict(lambda: defaultdict(list))
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for one in answered:
        kinds[one.attribute or "conversation"][kind_of(one)] += 1
        if one.attribute not in NAMED:
            continue
        terms = load(one.attribute)
        true = _name(parts_of(without_gloss(one.truth), terms), terms)
        said = _name(named_in(read_answer(one.answer, one.attribute), terms)[1], terms)
        if true in (NOTHING, SEVERAL):
            continue
        fine[one.attribute][true][said] += 1
        coarse[one.attribute][_class(true, terms)][_class(said, terms)] += 1
        classes[one.attribute][_class(true, terms)].append(one)
    worst = sorted(answered, key=lambda one: (one.reward, one.vase, one.attribute))[:WORST]
    return {
        "confusion": _plain(coarse),
        "confusion_fine": _plain(fine),
        "classes": {name: {true: _figures(rows) for true, rows in sorted(by.items())} for name, by in classes.items()},
        "kinds": {name: dict(count.most_common()) for name, count in sorted(kinds.items())},
        "worst": [
            {"vase": one.vase, "attribute": one.attribute, "truth": one.truth, "answer": cut(one.answer, LONGEST)}
            | {"reward": round(one.reward, 4)}
            for one in worst
            if one.reward < 1
        ],
    }


def kind_of(one: Answered) -> str:
    """Return 'right' for a right answer, or the kind of the mistake."""
    if one.exact or one.reward >= 1:
        return RIGHT
    answer = read_answer(one.answer, one.attribute)
    if not words(answer):
        return MALFORMED
    if is_refusal(answer):
        return REFUSED
    if one.attribute not in NAMED:
        return HEDGED if _HEDGE.search(normalize(answer)) else CLASS
    terms = load(one.attribute)
    true, said = parts_of(without_gloss(one.truth), terms), named_in(answer, terms)[1]
    if not said:
        return MALFORMED
    if len(said) > len(true):
        return HEDGED
    return SUBTYPE if {_class(name, terms) for name in said} & {_class(name, terms) for name in true} else CLASS


def write_answers(stream: IO[str], models: Mapping[str, Sequence[Answered]]) -> None:
    """Write answers.csv with a row for each answer.

    The row also holds the concepts of the vocabulary that the answer names, and their URIs if they are known.
    """
    rows = (_cells(model, one) for model, answered in models.items() for one in answered)
    files.write_table(stream, HEADER, rows)


def _cells(model: str, one: Answered) -> tuple[object, ...]:
    scores = (int(one.exact), round(one.reward, 4))
    return (model, one.vase, one.attribute, one.question, one.truth, one.answer, *scores, *_concept(one))


def _concept(one: Answered) -> tuple[str, str]:
    kind = {"provenance": "place"}.get(one.attribute, one.attribute)
    if kind not in (*NAMED, "place"):
        return "", ""
    terms = load(kind)
    names = terms.find(claims(read_answer(one.answer, one.attribute)).asserted)
    return "|".join(names), "|".join(terms.concepts[name].uri for name in names if terms.concepts[name].uri)


def _name(parts: Sequence[str], terms: Terms) -> str:
    main = [name for name in parts if not terms.concepts[name].extra] or parts
    return main[0] if len(main) == 1 else SEVERAL if main else NOTHING


def _class(name: str, terms: Terms) -> str:
    return ([name, *terms.wider(name)] if name in terms.concepts else [name])[-1]


def _figures(rows: Sequence[Answered]) -> ClassFigures:
    estimate = by_vase([one.exact for one in rows], [one.vase for one in rows])
    interval = list(estimate.interval) if estimate.interval else None
    return {"exact": estimate.value, "interval": interval, "rows": estimate.rows, "vases": estimate.vases}


def _plain(table: dict[str, dict[str, Counter[str]]]) -> dict[str, dict[str, dict[str, int]]]:
    return {
        name: {true: dict(count.most_common()) for true, count in sorted(by.items())}
        for name, by in sorted(table.items())
    }
