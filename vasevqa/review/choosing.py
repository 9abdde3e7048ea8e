"""Choose the photograph that is shown next, by a draw whose probability is known."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNIFORM = 0.05  # the part of the draws in which every photograph that is left has the same chance
FOR_THRESHOLD = 0.5  # the same, for labels that shall show precision and recall: their intervals are half as wide


@dataclass(frozen=True)
class Scores:
    """The scores that a step gave to photographs by their names, its threshold, and the step's name.

    `uniform` is the part of the draws in which every photograph that is left has the same chance.
    """

    values: Mapping[str, float]
    threshold: float
    step: str
    uniform: float = UNIFORM

    @property
    def why(self) -> str:
        """Why photographs near the threshold are shown."""
        return f"near the threshold of {self.step}"


@dataclass(frozen=True)
class Pool:
    """The photographs that are left, and what the labels so far say.

    `names` and `vases` belong together, and `labelled` counts labels by vase. `answers` holds the clear answers so far
    by name. `groups` tells the group of look-alikes of each photograph, and how near to the group's centre the
    photograph is (the lowest number is the nearest); photographs that no step has looked at are left out.
    """

    names: Sequence[str]
    vases: Sequence[str]
    labelled: Counter[str] = field(default_factory=Counter)
    answers: Mapping[str, bool] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    seen: frozenset[int] = frozenset()  # the groups that have a label


@dataclass(frozen=True)
class Draw:
    """The drawn photograph as its place in the pool, why it was drawn, and the probability of that."""

    place: int
    why: str
    probability: float


@dataclass(frozen=True)
class _Part:
    """A reason to show photographs: its share of the draws, its words, and a weight for each photograph."""

    share: float
    why: str
    weights: Sequence[float]


def draw(pool: Pool, scores: Scores | None, number: float) -> Draw:
    """Return the photograph to show next. `number` in [0, 1) decides.

    With UNIFORM's probability, or that of the scores, every photograph has the same chance. The other draws have
    reasons, in this order: typical photographs, while a group of look-alikes has no label; then photographs near the
    threshold, and as often those of groups in which answers and step disagree; without scores the draws spread over the
    vases. Each label of a vase makes the vase's other photographs less likely.

    The probability is the one among the photographs that are left, over all reasons together, as estimators for draws
    without replacement need it (Farquhar, Gal and Rainforth, "On Statistical Bias in Active Learning", 2021).
    """
    parts = _parts(pool, scores)
    begin = 0.0
    for part in parts:
        if number < begin + part.share or part is parts[-1]:
            place = _at(part.weights, (number - begin) / part.share)
            return Draw(place, part.why, math.fsum(one.share * one.weights[place] for one in parts))
        begin += part.share
    raise AssertionError("there is a part with equal chances")


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
    """Return a number in [0, 1) that follows from `words` alone, so that a draw can be repeated."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def _spread(pool: Pool) -> list[float]:
    views = Counter(pool.vases)
    fewest = min(pool.labelled[vase] for vase in views)
    weights = {vase: 1 / count if pool.labelled[vase] == fewest else 0.0 for vase, count in views.items()}
    return [weights[vase] for vase in pool.vases]


def _near(pool: Pool, scores: Scores) -> list[float]:
    """Return weights that fall with the distance to the threshold, by the factor e at the distance of the nearest
    tenth.
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
    """Return weights of the photographs of groups without a label, which fall with the distance to the centre."""
    weights = []
    for name in pool.names:
        group, rank = pool.groups.get(name, (-1, 0))
        weights.append(2.0**-rank if group >= 0 and group not in pool.seen else 0.0)
    return weights


def _disputed(pool: Pool, scores: Scores) -> list[float]:
    """Return weights that grow with the share of answers against the step in the photograph's group."""
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
