"""Intervals by vase have the right coverage, and no sentence claims more than its interval shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from vasevqa import statistics


def drawn(rng: np.random.Generator, vases: int, share: float, rows: int = 8, alike: float = 0.3) -> np.ndarray:
    """Return answers (vases, rows) that are right with probability `share`. Their intraclass correlation is `alike`."""
    known = rng.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, vases)
    return (rng.random((vases, rows)) < known[:, None]).astype(float)


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("vases", [10, 20, 40])
def test_the_interval_covers_the_truth_if_rows_of_a_vase_are_correlated(vases: int, share: float) -> None:
    rng = np.random.default_rng(vases)
    names = np.repeat(np.arange(vases), 8).tolist()
    covered, widths, values = 0, [], []
    for _ in range(1000):
        estimate = statistics.by_vase(drawn(rng, vases, share).ravel().tolist(), names)
        assert estimate.interval is not None
        low, high = estimate.interval
        covered += low <= share <= high
        widths.append(high - low)
        values.append(estimate.value)
    assert covered >= 920
    assert np.mean(widths) <= 1.3 * 2 * 1.96 * np.std(values)


def test_uncorrelated_rows_are_independent_observations() -> None:
    rng = np.random.default_rng(5)
    values = (rng.random(800) < 0.5).astype(float).tolist()
    low, high = statistics.by_vase(values, [number // 8 for number in range(800)]).interval or (0, 1)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 800), rel=0.25)


def test_few_vases_give_no_interval_and_zero_correct_answers_give_a_wide_interval() -> None:
    assert statistics.by_vase([0.0, 1.0] * 7, [number // 2 for number in range(14)]).interval is None
    assert statistics.wilson(0, 5) == pytest.approx((0, 0.43), abs=0.01)
    low, high = statistics.by_vase([0.0] * 80, [number // 8 for number in range(80)]).interval or (1, 0)
    assert (low, round(high, 2)) == (0, 0.28)  # ten vases, with any number of rows
    low, high = statistics.by_vase([1.0] * 80, [number // 8 for number in range(80)]).interval or (1, 0)
    assert (round(low, 2), high) == (0.72, 1)
    with pytest.raises(ValueError, match="no values"):
        statistics.by_vase([], [])


@pytest.mark.parametrize("value", [share / 50 for share in range(1, 50)])
def test_rounding_errors_do_not_turn_equal_rows_into_observations(value: float) -> None:
    vases = [number // 7 for number in range(70)]
    estimate = statistics.by_vase([value] * 70, vases)
    assert estimate.interval == pytest.approx(statistics.wilson(value * 10, 10))


def test_weighted_rows_are_worth_as_many_rows_as_their_weights_say() -> None:
    values, vases = [1.0, 0.0, 1.0, 1.0] * 5, [number // 2 for number in range(20)]
    even = statistics.by_vase(values, vases)
    assert statistics.by_vase(values, vases, [0.25] * 20) == even
    # The mean of a ratio: (5 * 1 + 5 * 0 + 5 * 3 + 5 * 3) / (5 * 8).
    assert statistics.by_vase(values, vases, [1, 1, 3, 3] * 5).value == 35 / 40
    right = statistics.by_vase([1.0] * 20, range(20), [1.0, 3.0] * 10)
    assert right.interval == pytest.approx(statistics.wilson(16, 16))  # 40^2 / 100 rows, by Kish
    assert statistics.by_vase([1.0] * 20, range(20), [1.0] * 19 + [100.0]).interval is None  # worth 1.4 vases
    uneven = statistics.by_vase(values, vases, [1, 2, 1, 1] * 5)
    assert even.interval is not None
    assert uneven.interval is not None
    assert uneven.interval[1] - uneven.interval[0] > even.interval[1] - even.interval[0]


ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.integers(0, 11)), min_size=1, max_size=60)
WEIGHT = st.floats(1e-200, 1e200)


@given(ROWS, WEIGHT)
def test_rows_of_equal_weight_count_like_rows_without_weights(rows: list[tuple[float, int]], weight: float) -> None:
    values, vases = [value for value, _ in rows], [vase for _, vase in rows]
    even = statistics.by_vase(values, vases)
    assert statistics.by_vase(values, vases, [weight] * len(rows)) == even
    last_digit = [weight if number % 2 else math.nextafter(weight, math.inf) for number in range(len(rows))]
    assert statistics.by_vase(values, vases, last_digit) == even


@given(ROWS, st.lists(st.integers(1, 9), min_size=60, max_size=60), st.sampled_from([0.1, 0.7, 3.0, 1e-200, 1e200]))
def test_the_unit_of_the_weights_changes_nothing(rows: list[tuple[float, int]], parts: list[int], unit: float) -> None:
    values, vases = [value for value, _ in rows], [vase for _, vase in rows]
    weights = [float(part) for part in parts[: len(rows)]]
    one = statistics.by_vase(values, vases, weights)
    other = statistics.by_vase(values, vases, [unit * weight for weight in weights])
    assert other.value == pytest.approx(one.value)
    assert (other.vases, other.rows, other.interval is None) == (one.vases, one.rows, one.interval is None)
    assert other.interval == (None if one.interval is None else pytest.approx(one.interval, abs=1e-9))


def test_eight_vases_of_equal_weight_have_an_interval() -> None:
    values, vases = [1.0, 0.0, 1.0] * 8, [number // 3 for number in range(24)]
    for weight in (number / 100 for number in range(1, 101)):
        assert statistics.by_vase(values, vases, [weight] * 24) == statistics.by_vase(values, vases)
    # Rows of weights 1 and 3 are worth (1 + 3)^2 / (2 * (1 + 9)) = 0.8 even rows, so ten vases are worth eight.
    uneven = [weight * 0.1 for weight in [1, 3] * 10]
    assert statistics.by_vase([1.0] * 20, [number // 2 for number in range(20)], uneven).interval == pytest.approx(
        statistics.wilson(8, 8)
    )


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 8, 40, 399, 2000])
def test_the_quantile_equals_scipy_s(freedom: int) -> None:
    assert statistics._t(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-11)
    assert statistics._t(freedom, 0.8) == pytest.approx(scipy.stats.t.ppf(0.8, freedom), rel=1e-11)


def test_rewards_that_differ_only_in_their_last_digit_are_equal() -> None:
    vases = [number // 4 for number in range(40)]
    difference = statistics.paired([0.3] * 40, [0.1 + 0.2] * 40, vases)
    assert (difference.value, difference.p, difference.shown) == (0, 1, False)


def test_wilson_equals_the_published_interval() -> None:
    for successes, total in ((3, 10), (0, 8), (50, 60)):
        expected = scipy.stats.binomtest(successes, total).proportion_ci(method="wilson")
        assert statistics.wilson(successes, total) == pytest.approx((expected.low, expected.high))


def test_a_paired_difference_equals_students_t_with_one_row_per_vase() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random(12), rng.random(12) + 0.2
    found = statistics.paired(after.tolist(), before.tolist(), range(12))
    expected = scipy.stats.ttest_rel(after, before)
    low, high = expected.confidence_interval()
    assert found.interval == pytest.approx((low, high))
    assert found.p == pytest.approx(expected.pvalue)


def test_the_interval_of_a_pair_covers_the_true_difference() -> None:
    rng = np.random.default_rng(3)
    names = np.repeat(np.arange(20), 8).tolist()
    covered = 0
    for _ in range(500):
        of_vase = rng.normal(0.1, 0.2, 20)
        differences = (of_vase[:, None] + rng.normal(0, 0.3, (20, 8))).ravel()
        low, high = statistics.paired(differences.tolist(), [0.0] * 160, names).interval or (1, 0)
        covered += low <= 0.1 <= high
    assert covered >= 460


def test_the_detectable_difference_is_shown_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(4)
    pilot = statistics.paired(rng.normal(0, 0.1, 400).tolist(), [0.0] * 400, range(400))
    assert (pilot.detectable_vases, pilot.shown) == (400, False)
    wanted = pilot.detectable or 0
    shown = sum(
        statistics.paired(rng.normal(wanted, 0.1, 400).tolist(), [0.0] * 400, range(400)).shown for _ in range(300)
    )
    assert 0.72 < shown / 300 < 0.88


def test_holm_equals_hand_computed_values() -> None:
    adjusted = statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert statistics.holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert statistics.holm({}) == {}


def test_the_sentence_claims_only_what_the_interval_shows() -> None:
    few = statistics.paired([0.1, 0.2, 0.0], [0.0, 0.0, 0.0], ["a", "b", "c"])
    assert statistics.sentence("GRPO", "SFT", few) == (
        "GRPO - SFT = +0.100: too few vases for an interval (3 vases; at least 8 are needed)"
    )
    same = statistics.paired([0.1, -0.1] * 6, [0.0] * 12, range(12))
    told = statistics.sentence("GRPO", "SFT", same)
    assert told.startswith(
        "GRPO - SFT = +0.000 [-0.066, +0.066]: no significant difference with 12 vases; 40 vases would detect a"
        " difference of 0.04"
    )
    better = statistics.paired([0.3, 0.2] * 6, [0.0] * 12, range(12))
    assert statistics.sentence("SFT", "base", better).endswith(": better (significant with 12 vases)")
    worse = statistics.paired([0.0] * 12, [0.3, 0.2] * 6, range(12))
    assert statistics.sentence("SFT", "base", worse).endswith(": worse (significant with 12 vases)")
