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
    """The photographs that are left. `names` and `vases` belong together, and `labelled` counts labels by vase."""

    names: Sequence[str]
    vases: Sequence[str]
    labelled: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Draw:
    """The drawn photograph as its place in the pool, why it was drawn, and the probability of that."""

    place: int
    why: str
    probability: float


def draw(pool: Pool, scores: Scores | None, number: float) -> Draw:
    """Return the photograph to show next. `number` in [0, 1) decides.

    With UNIFORM's probability, or that of the scores, every photograph has the same chance. The other draws spread over
    the vases: each vase with the fewest labels has the same chance, and so has each of its photographs. With scores,
    photographs near the threshold are likelier, and each label of a vase makes the vase's other photographs less
    likely. The probability is the one among the photographs that are left, as estimators for draws without replacement
    need it (Farquhar, Gal and Rainforth, "On Statistical Bias in Active Learning", 2021).
    """
    weights = _near(pool, scores) if scores is not None else []
    why = scores.why if scores is not None and sum(weights) > 0 else "spread over the vases"
    uniform = scores.uniform if scores is not None else UNIFORM
    if not sum(weights) > 0:
        weights, uniform = _spread(pool), UNIFORM
    count, total = len(pool.names), math.fsum(weights)
    if number < uniform:
        place, why = min(int(number / uniform * count), count - 1), "any photograph"
    else:
        place = _at(weights, (number - uniform) / (1 - uniform) * total)
    return Draw(place, why, uniform / count + (1 - uniform) * weights[place] / total)


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
