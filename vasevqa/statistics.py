"""Intervals and comparisons for rows that belong to vases.

Rows about one vase are alike. The precision of a mean therefore depends on the number of vases, not on the number of
rows. The interval of a mean is Wilson's interval (Wilson, 1927) with the effective number of rows. This follows Korn
and Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from survey
data", 1998. The variance is the linearized variance of a mean over clusters (Cochran, "Sampling Techniques", 1977,
chapter 11). A weighted mean is a ratio of two sums, and its variance is the variance of a ratio. Uneven weights reduce
the effective numbers of rows and vases (Kish, "Survey Sampling", 1965).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

FEWEST = 8  # vases; with fewer vases there is no interval
LEVEL = 0.95
POWER = 0.8
DIGITS = 12  # decimal places of a difference between two rewards
ROUNDING = 1e-24  # largest variance of a mean that rounding errors alone can cause
EVEN = 1e-9  # relative difference of weights; a smaller difference comes from rounding errors alone
WHOLE = 9  # decimal places of an effective number of vases; smaller differences are rounding errors


@dataclass(frozen=True)
class Estimate:
    """A mean over rows with its 95% interval, and the numbers of rows and vases.

    `interval` is None if the number of vases is less than `FEWEST`. It is also None if uneven weights reduce the
    effective number of vases below `FEWEST`.
    """

    value: float
    interval: tuple[float, float] | None
    vases: int
    rows: int


@dataclass(frozen=True)
class Difference:
    """The mean difference between the answers of two models to the same rows.

    `p` is a two-sided probability: if the two models were equally good, a difference of this size or more would occur
    with the probability `p`. With `detectable_vases` vases, a true difference of `detectable` would be significant in
    80 of 100 cases. `interval`, `p`, `detectable` and `detectable_vases` are None with fewer than `FEWEST` vases.
    """

    value: float
    interval: tuple[float, float] | None
    p: float | None
    detectable: float | None
    detectable_vases: int | None
    vases: int
    rows: int

    @property
    def shown(self) -> bool:
        """True if the interval doesn't contain zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class _Clusters:
    """The mean of the rows, the variance of the mean (None for a single cluster), and the number of clusters."""

    mean: float
    variance: float | None
    count: int


def wilson(successes: float, total: float, quantile: float = 1.959963984540054) -> tuple[float, float]:
    """Return Wilson's interval of a proportion, or (0, 1) without observations."""
    if total <= 0:
        return 0.0, 1.0
    share, square = successes / total, quantile * quantile
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = quantile / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    low = 0.0 if successes <= 0 else max(0.0, middle - half)
    return low, 1.0 if successes >= total else min(1.0, middle + half)


def by_vase(values: Sequence[float], vases: Sequence[Hashable], weights: Sequence[float] | None = None) -> Estimate:
    """Return the mean of `values` in [0, 1], with a 95% interval that treats vases as the units.

    `vases` names the vase of each value. `weights` are greater than 0. Uneven weights reduce the effective numbers of
    rows and vases. Raise ValueError if there are no values.
    """
    uneven = _uneven(weights) if weights else None
    clusters = _clusters(values, vases, uneven)
    rows = len(values)
    mean, variance = clusters.mean, clusters.variance
    worth = _worth(uneven) if uneven else 1.0
    # Rounded, because the number of vases is compared with FEWEST and cut to a whole number.
    count = round(clusters.count * worth, WHOLE)
    if count < FEWEST:
        return Estimate(mean, None, clusters.count, rows)
    spread = mean * (1 - mean)
    # If all vases are equal, each vase is one observation. The variance is then 0, apart from rounding errors.
    if variance is None or variance <= ROUNDING or spread <= 0:
        return Estimate(mean, wilson(mean * count, count), clusters.count, rows)
    quantile = _t(math.floor(count) - 1)
    # The number of independent rows with the same variance, at most the real number of rows.
    effective = min(rows * worth, spread / variance)
    return Estimate(mean, wilson(mean * effective, effective, quantile), clusters.count, rows)


def paired(values: Sequence[float], before: Sequence[float], vases: Sequence[Hashable]) -> Difference:
    """Return the mean of `values` minus the mean of `before`, with a 95% interval that treats vases as the units.

    Values with the same index belong to the same row. The interval is computed with Student's t. Raise ValueError if
    there are no values, or if the lengths differ.
    """
    # Rounded, because two equal rewards that were computed in different ways can differ in their last digit.
    differences = [round(one - other, DIGITS) for one, other in zip(values, before, strict=True)]
    clusters = _clusters(differences, vases)
    count, rows = clusters.count, len(differences)
    if count < FEWEST or clusters.variance is None:
        return Difference(clusters.mean, None, None, None, None, count, rows)
    error = math.sqrt(clusters.variance)
    half = _t(count - 1) * error
    wanted = max(count, 40)
    spread = error * math.sqrt(count)  # standard deviation between vases
    detectable = (_t(wanted - 1) + _t(wanted - 1, POWER)) * spread / math.sqrt(wanted)
    p = (1.0 if clusters.mean == 0 else 0.0) if error == 0 else _two_sided(clusters.mean / error, count - 1)
    interval = (clusters.mean - half, clusters.mean + half)
    return Difference(clusters.mean, interval, p, detectable, wanted, count, rows)


def holm(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values adjusted for multiple comparisons (Holm, 1979)."""
    ordered = sorted(probabilities.items(), key=lambda item: item[1])
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, probability) in enumerate(ordered):
        largest = max(largest, min(1.0, probability * (len(ordered) - rank)))
        adjusted[name] = largest
    return adjusted


def sentence(name: str, other: str, difference: Difference, unit: str = "") -> str:
    """Return a sentence (without a full stop) that states a paired difference and whether it is significant."""
    value = f"{name} - {other} = {difference.value:+.3f}{unit}"
    many = f"{difference.vases} vase{'s' if difference.vases != 1 else ''}"
    if difference.interval is None:
        return f"{value}: too few vases for an interval ({many}; at least {FEWEST} are needed)"
    low, high = difference.interval
    told = f"{value} [{low:+.3f}, {high:+.3f}]"
    if difference.shown:
        return f"{told}: {'better' if difference.value > 0 else 'worse'} (significant with {many})"
    smallest = f"{difference.detectable_vases} vases would detect a difference of {difference.detectable:.2g}"
    return f"{told}: no significant difference with {many}; {smallest}"


def _clusters(values: Sequence[float], vases: Sequence[Hashable], weights: Sequence[float] | None = None) -> _Clusters:
    if not values:
        raise ValueError("no values")
    given = weights or [1.0] * len(values)
    total = math.fsum(given)
    mean = math.fsum(weight * value for weight, value in zip(given, values, strict=True)) / total
    sums: dict[Hashable, list[float]] = {}
    for value, vase, weight in zip(values, vases, given, strict=True):
        sums.setdefault(vase, []).append(weight * (value - mean))
    count = len(sums)
    if count < 2:
        return _Clusters(mean, None, count)
    squares = math.fsum(math.fsum(each) ** 2 for each in sums.values())
    return _Clusters(mean, count / (count - 1) * squares / total**2, count)


def _uneven(weights: Sequence[float]) -> list[float] | None:
    """Return the weights, scaled so that the largest is about 1, or None if all weights are equal.

    Equal weights are dropped, because their sums have rounding errors. These errors could reduce the effective number
    of eight vases below eight, and then there would be no interval.
    """
    largest = max(weights)
    if min(weights) >= largest * (1 - EVEN):
        return None
    power = math.frexp(largest)[1]
    return [math.ldexp(weight, -power) for weight in weights]  # exact, unlike a division


def _worth(weights: Sequence[float]) -> float:
    """Return the effective number of rows (Kish) divided by the number of rows, in (0, 1]."""
    return math.fsum(weights) ** 2 / (len(weights) * math.fsum(weight * weight for weight in weights))


@functools.lru_cache(maxsize=1024)
def _t(freedom: int, level: float | None = None) -> float:
    """Return the quantile of Student's t.

    If `level` is given, the quantile is one-sided at that level. Otherwise it is two-sided at the constant LEVEL. The
    quantile is computed here because scipy is not installed where people review photographs.
    """
    wanted = 2 * level - 1 if level is not None else LEVEL
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < wanted else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Return the probability that Student's t lies within ±sqrt(freedom) * tan(angle).

    The sums are 26.7.3 and 26.7.4 in Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _two_sided(statistic: float, freedom: int) -> float:
    from scipy.stats import t

    return float(2 * t.sf(abs(statistic), freedom))
