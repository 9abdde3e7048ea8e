"""Choose the next photograph at random, and compute the probability with which it was chosen."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNIFORM = 0.05  # share of the draws in which every remaining photograph has the same chance
FOR_THRESHOLD = 0.5  # the same share for a review that estimates precision and recall: it halves their intervals


@dataclass(frozen=True)
class Scores:
    """The scores that a step gave to photographs, by name, with the step's threshold and the step's name.

    `uniform` is the share of the draws in which every remaining photograph has the same chance.
    """

    values: Mapping[str, float]
    threshold: float
    step: str
    uniform: float = UNIFORM

    @property
    def why(self) -> str:
        """The reason that is recorded for a photograph near the threshold."""
        return f"near the threshold of {self.step}"


@dataclass(frozen=True)
class Pool:
    """The photographs that have no label yet, and a summary of the labels so far.

    `vases` holds the vase of each photograph in `names`, in the same order. `labelled` counts the labels by vase.
    `answers` maps the names of photographs with a clear answer to True (yes) or False (no). `groups` maps names to two
    numbers: the group of look-alikes, and the rank by distance to the group's centre (the lowest rank is the nearest).
    Photographs without a group are missing from `groups`.
    """

    names: Sequence[str]
    vases: Sequence[str]
    labelled: Counter[str] = field(default_factory=Counter)
    answers: Mapping[str, bool] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    seen: frozenset[int] = frozenset()  # the groups with at least one label


@dataclass(frozen=True)
class Draw:
    """The index of the drawn photograph in the pool, the reason for the draw, and the draw's probability."""

    place: int
    why: str
    probability: float


@dataclass(frozen=True)
class _Part:
    """A reason to show photographs: how often it applies, its text, and a weight for each photograph in the pool.

    `share` is the fraction of the draws that are made for this reason.
    """

    share: float
    why: str
    weights: Sequence[float]


def draw(pool: Pool, scores: Scores | None, number: float) -> Draw:
    """Draw the photograph to show next. `number` in [0, 1) determines the draw.

    In some of the draws, every photograph has the same chance. Their fraction is `scores.uniform`, or UNIFORM without
    scores. The other draws prefer some photographs:

    1. While any group of look-alikes has no label, these draws prefer typical photographs of such groups.
    2. When all groups have labels, and if there are scores, half of these draws prefer photographs near the threshold.
       The other half prefer photographs of groups in which the answers and the step disagree. Each label of a vase
       lowers the chance of the vase's other photographs.
    3. When all groups have labels, but there are no scores, these draws prefer the vases with the fewest labels.

    The probability of the draw is the chance of the photograph among all remaining photographs, summed over all
    reasons. Estimators for draws without replacement need this probability (Farquhar, Gal and Rainforth, "On
    Statistical Bias in Active Learning", 2021).
    """
    parts = _parts(pool, scores)
    begin = 0.0
    for part in parts:
        if number < begin + part.share or part is parts[-1]:
            place = _at(part.weights, (number - begin) / part.share)
            return Draw(place, part.why, math.fsum(one.share * one.weights[place] for one in parts))
        begin += part.share
    raise AssertionError("a draw always has a reason")


def _parts(pool: Pool, scores: Scores | None) -> list[_Part]:
    uniform = UNIFORM if scores is None else scores.uniform
    reasons = [("typical of a group of photographs", _typical(pool))]
    if not any(reasons[0][1]) and scores is not None:
        reasons = [(scores.why, _near(pool, scores)), (f"answers and {scores.step} disagree", _disputed(pool, scores))]
    given = [(why, weights) for why, weights in reasons if sum(weights) > 0]
    if not given:
        uniform, given = UNIFORM, [("spread over the vases", _spread(pool))]
    equal = [1 / len(pool.names)] * len(pool.names)
    parts = [_Part(uniform, "any photograph", equal)]
    for why, weights in given:
        total = math.fsum(weights)
        parts.append(_Part((1 - uniform) / len(given), why, [weight / total for weight in weights]))
    return parts


def number_of(*words: object) -> float:
    """Return a number in [0, 1) that depends on `words` alone, so that a draw can be repeated."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def _spread(pool: Pool) -> list[float]:
    views = Counter(pool.vases)
    fewest = min(pool.labelled[vase] for vase in views)
    weights = {vase: 1 / count if pool.labelled[vase] == fewest else 0.0 for vase, count in views.items()}
    return [weights[vase] for vase in pool.vases]


def _near(pool: Pool, scores: Scores) -> list[float]:
    """Return a weight for each photograph. The weight falls as the score's distance from the threshold grows.

    The weight is exp(-distance / scale). About a tenth of the scored photographs are closer to the threshold than the
    distance `scale`. Each label of the photograph's vase lowers the weight further.
    """
    distances = sorted(abs(value - scores.threshold) for value in scores.values.values())
    scale = distances[min(max(1, len(distances) // 10), len(distances) - 1)] if distances else 0.0
    weights = []
    for name, vase in zip(pool.names, pool.vases, strict=True):
        value = scores.values.get(name)
        distance = math.inf if value is None else abs(value - scores.threshold)
        near = math.exp(-distance / scale) if scale > 0 else float(distance == 0)
        weights.append(near / (1 + pool.labelled[vase]))
    return weights


def _typical(pool: Pool) -> list[float]:
    """Return a weight for each photograph: 0 if its group has a label, else 2 to the power of minus its rank.

    The rank grows with the distance to the group's centre. Photographs without a group have the weight 0.
    """
    weights = []
    for name in pool.names:
        group, rank = pool.groups.get(name, (-1, 0))
        weights.append(2.0**-rank if group >= 0 and group not in pool.seen else 0.0)
    return weights


def _disputed(pool: Pool, scores: Scores) -> list[float]:
    """Return a weight for each photograph: the share of answers in its group that contradict the step's decision.

    Each label of the photograph's vase lowers the weight.
    """
    against: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    for name, yes in pool.answers.items():
        if name in pool.groups and name in scores.values:
            group = pool.groups[name][0]
            answered[group] += 1
            against[group] += yes != (scores.values[name] >= scores.threshold)
    weights = []
    for name, vase in zip(pool.names, pool.vases, strict=True):
        group = pool.groups.get(name, (-1, 0))[0]
        share = against[group] / answered[group] if answered[group] and name in scores.values else 0.0
        weights.append(share / (1 + pool.labelled[vase]))
    return weights


def _at(weights: Sequence[float], position: float) -> int:
    """Return the index of the weight in which `position` lies, if the weights are laid end to end."""
    last = 0
    for place, weight in enumerate(weights):
        if weight > 0:
            last = place
            if position < weight:
                return place
            position -= weight
    return last
