"""Compare pairs of models on the same rows.

The result holds the difference of the two models, an interval that treats vases as the units, and a sentence that
states the conclusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from vasevqa.evaluation.figures import Pair
from vasevqa.evaluation.metrics import Answered
from vasevqa.statistics import Difference, holm, paired, sentence


def pairs_of(answers: Mapping[str, Sequence[Answered]], blind: Mapping[str, str]) -> list[Pair]:
    """Return the difference in mean reward for each pair of models, over all rows and by attribute.

    `answers` holds each model's answers to the same rows in the same order. A model that answers without the picture
    has a name of its own. `blind` maps this name to the name of the same model with the picture. These two are compared
    with each other, and the model without the picture is compared with no other model.
    """
    models = [name for name in answers if name not in blind]
    wanted = [(later, earlier) for earlier, later in combinations(models, 2)]
    wanted += [(seeing, name) for name, seeing in blind.items() if name in answers]
    return [pair for model, other in wanted for pair in _pairs(model, other, answers[model], answers[other])]


def _pairs(model: str, other: str, ours: Sequence[Answered], theirs: Sequence[Answered]) -> list[Pair]:
    overall = paired([one.reward for one in ours], [one.reward for one in theirs], [one.vase for one in ours])
    rows: dict[str, list[int]] = {}
    for number, one in enumerate(ours):
        rows.setdefault(one.attribute or "conversation", []).append(number)
    by: dict[str, Difference] = {
        attribute: paired(
            [ours[number].reward for number in numbers],
            [theirs[number].reward for number in numbers],
            [ours[number].vase for number in numbers],
        )
        for attribute, numbers in sorted(rows.items())
    }
    adjusted = holm({attribute: each.p for attribute, each in by.items() if each.p is not None})
    first = _pair(model, other, "", overall, overall.p)
    return [first, *(_pair(model, other, name, each, adjusted.get(name)) for name, each in by.items())]


def _pair(model: str, other: str, attribute: str, difference: Difference, adjusted: float | None) -> Pair:
    shown = difference.shown and adjusted is not None and adjusted < 0.05
    told = sentence(model, other, difference)
    if difference.shown and not shown:
        told += f"; not significant after Holm's correction for several comparisons (p {adjusted:.2g})"
    return {
        "model": model,
        "other": other,
        "attribute": attribute,
        "value": difference.value,
        "interval": list(difference.interval) if difference.interval else None,
        "p": difference.p,
        "p_holm": adjusted,
        "vases": difference.vases,
        "samples": difference.rows,
        "shown": shown,
        "sentence": f"{attribute}: {told}" if attribute else told,
    }
