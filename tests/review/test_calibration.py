"""A threshold from labels: figures by hand, intervals that hold what they promise, and sentences that don't."""

from __future__ import annotations

import numpy as np
import pytest

from vasevqa.pipeline.calibrated import Share
from vasevqa.review import calibration
from vasevqa.review.calibration import Labelled, Scored, calibrate, more, rates, said
from vasevqa.review.choosing import FOR_THRESHOLD
from vasevqa.review.weights import draw_weights

VASES, VIEWS, LABELS, SETS = 200, 3, 100, 1000
NAMES = [f"{vase}/{view}" for vase in range(VASES) for view in range(VIEWS)]
VASE = np.repeat(np.arange(VASES), VIEWS)


def scored(values: dict[str, float], threshold: float = 0.0) -> Scored:
    return Scored("clip-filter", threshold, values, {name: name.partition("/")[0] for name in values})


def test_precision_and_recall_weigh_the_labels() -> None:
    rows = [
        Labelled(0.9, "a", good=True, weight=1),
        Labelled(0.8, "a", good=False, weight=3),
        Labelled(0.7, "b", good=True, weight=4),
        Labelled(0.2, "c", good=True, weight=5),
        Labelled(0.1, "c", good=False, weight=7),
    ]
    precision, recall = rates(rows, 0.7)
    assert precision is not None
    assert recall is not None
    assert (precision.value, precision.rows, precision.vases) == (5 / 8, 3, 2)
    assert (recall.value, recall.rows, recall.vases) == (5 / 10, 3, 3)
    assert precision.interval is recall.interval is None  # too few vases
    assert rates(rows, 1.0) == (None, rates(rows, 1.0)[1])


def test_losses_are_of_all_photographs_and_a_vase_is_lost_with_its_last_view() -> None:
    photographs = scored({"a/1": 0.1, "a/2": 0.9, "b/1": 0.2, "b/2": 0.3, "c/1": 0.5})
    assert photographs.lost(0.5) == (3, 1)
    assert photographs.lost(0.6) == (4, 2)
    assert photographs.lost(0.0) == (0, 0)


def test_the_lowest_threshold_whose_interval_reaches_the_aim_is_chosen() -> None:
    values = {f"{number}/0": number / 200 for number in range(200)}
    rows = [Labelled(value, name, good=value >= 0.3) for name, value in values.items()]
    photographs = scored(values, 0.2)
    candidates, chosen = calibrate(rows, photographs, 0.9)
    assert [one.threshold for one in candidates] == [number / 20 for number in range(20)]
    assert chosen is not None
    assert (chosen.threshold, chosen.lost_photographs, chosen.lost_vases, chosen.labels) == (0.3, 60, 60, 140)
    assert chosen.precision is not None
    assert chosen.precision.value == 1
    assert said(candidates, chosen, photographs, 200, 0.9) == (
        "A threshold of 0.3 reaches a precision of 0.9: 1.00 [0.97, 1.00] from 140 accepted labels of 140 vases, with a"
        " recall of 1.00 [0.97, 1.00]; 60 of 200 photographs and 60 of 200 vases are lost."
    )


def test_no_threshold_below_the_first_that_fails_is_chosen() -> None:
    """Each further look at an interval would be another chance of a wrong promise."""
    values = {f"{number}/0": number / 200 for number in range(200)}
    photographs = scored(values)

    def rows(*bad: float) -> list[Labelled]:
        """Between each two numbers of `bad`, every third photograph is bad."""
        low, high = bad
        return [
            Labelled(value, name, good=not (low <= value < high and number % 3 == 0))
            for number, (name, value) in enumerate(values.items())
        ]

    candidates, chosen = calibrate(rows(0.5, 0.6), photographs, 0.9)
    low = {one.threshold: one.precision.low for one in candidates if one.precision and one.precision.low is not None}
    assert low[0.5] < 0.9 < low[0.0]
    assert chosen is not None
    assert chosen.threshold == 0.55
    candidates, chosen = calibrate(rows(0.9, 1.0), photographs, 0.9)
    assert [one.threshold for one in candidates if one.testable][-1] == 0.8  # 40 labels; 30 could not show 0.9
    assert chosen is None
    assert said(candidates, None, photographs, 200, 0.9).startswith(
        "No threshold is shown to reach a precision of 0.9: thresholds are tested from the highest down to the first"
        " that fails, and already 0.8 fails (0.82 [0.67, 0.92]), and more labels alone won't show it, because its"
        " estimate isn't above 0.9."
    )


def test_what_is_not_shown_says_what_is_and_how_many_labels_are_missing() -> None:
    values = {f"{number}/0": number / 400 for number in range(400)}
    photographs = scored(values)
    every_fifth = [Labelled(value, name, good=value >= 0.3) for name, value in list(values.items())[::5]]
    candidates, chosen = calibrate(every_fifth, photographs, 0.97)
    assert chosen is None
    told = said(candidates, None, photographs, 80, 0.97)
    assert told.startswith(
        "No threshold is shown to reach a precision of 0.97; what is shown is at least 0.94 at 0.3 (1.00 [0.94, 1.00]"
    )
    assert "about 98 more labels would show it if the share of good photographs stays the same." in told
    none = [Labelled(row.score, row.vase, good=False) for row in every_fifth]
    assert "more labels alone won't show it" in said(calibrate(none, photographs, 0.97)[0], None, photographs, 80, 0.97)
    few = every_fifth[-3:]
    assert said(calibrate(few, photographs, 0.97)[0], None, photographs, 3, 0.97) == (
        "There are too few labels to show a precision of 0.97: an interval needs labels of 8 accepted vases, and there"
        " are 3; label more photographs."
    )


def test_that_many_labels_more_show_the_aim() -> None:
    rows = [Labelled(1.0, str(number), good=number % 20 > 0) for number in range(60)]
    precision = calibration._shown(rates(rows, 0)[0])
    assert precision is not None
    missing = int(more(precision, 60, 0.9))
    grown = [Labelled(1.0, str(number), good=number % 20 > 0) for number in range(20 * round((60 + missing) / 20))]
    reached = rates(grown, 0)[0]
    assert reached is not None
    assert reached.interval is not None
    assert reached.interval[0] == pytest.approx(0.9, abs=0.01)
    assert more(Share(value=0.9, low=0.8, high=0.95), 60, 0.9) == float("inf")


def test_weights_are_even_if_all_photographs_are_labelled_and_inverse_if_few_are() -> None:
    assert draw_weights([0.5, 0.9, 1.0], 3) == [1, 1, 1]
    first, second = draw_weights([0.25, 0.0005], 10_000)
    assert first == pytest.approx(1 / (10_000 * 0.25), abs=0.001)
    assert second == pytest.approx(1 / (9_999 * 0.0005), abs=0.001)


def test_weights_make_up_for_draws_that_prefer_some_photographs() -> None:
    """The mean over all sequences of draws equals the mean of the photographs."""
    values, preference = [1.0, 0.0, 5.0], [0.6, 0.3, 0.1]
    expected = 0.0
    for first in range(3):
        for second in {0, 1, 2} - {first}:
            chances = [preference[first], preference[second] / (1 - preference[first])]
            one, other = draw_weights(chances, 3)
            expected += chances[0] * chances[1] * (one * values[first] + other * values[second]) / 2
    assert expected == pytest.approx(2.0)


def drawn(generator: np.random.Generator, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw LABELS photographs of each set as the page does, and return their places and probabilities."""
    count, photographs = scores.shape
    distances = np.abs(scores)
    near = np.exp(-distances / np.sort(distances, axis=1)[:, [photographs // 10]])
    left, labelled, sets = np.ones(scores.shape, bool), np.zeros((count, VASES)), np.arange(count)
    places, chances = np.zeros((count, LABELS), int), np.zeros((count, LABELS))
    for number in range(LABELS):
        weights = np.where(left, near / (1 + labelled[:, VASE]), 0)
        chance = FOR_THRESHOLD * left / (photographs - number)
        chance += (1 - FOR_THRESHOLD) * weights / weights.sum(axis=1, keepdims=True)
        ends = chance.cumsum(axis=1)
        place = (ends <= generator.random((count, 1)) * ends[:, [-1]]).sum(axis=1)
        places[:, number], chances[:, number] = place, chance[sets, place]
        left[sets, place] = False
        labelled[sets, VASE[place]] += 1
    return places, chances


@pytest.fixture(scope="module")
def simulated() -> tuple[np.ndarray, np.ndarray, list[list[Labelled]]]:
    """Scores and answers of SETS collections whose views are alike, and the labels that the page would get."""
    generator = np.random.default_rng(1)
    shape = (SETS, VASES, VIEWS)
    of_vase = generator.normal(0, 0.7, (SETS, VASES, 1))
    scores = of_vase + generator.normal(0, 0.7, shape)
    odds = 0.8 + 1.8 * scores + generator.normal(0, 1, (SETS, VASES, 1))
    good = (generator.random(shape) < 1 / (1 + np.exp(-odds))).reshape(SETS, -1)
    scores = scores.reshape(SETS, -1)
    labels = []
    for number, (places, chances) in enumerate(zip(*drawn(generator, scores), strict=True)):
        weights = draw_weights(chances.tolist(), len(NAMES))
        labels.append(
            [
                Labelled(float(scores[number, place]), str(VASE[place]), bool(good[number, place]), weight)
                for place, weight in zip(places, weights, strict=True)
            ]
        )
    return scores, good, labels


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_intervals_cover_the_collection_and_are_hardly_wider_than_its_spread(
    simulated: tuple[np.ndarray, np.ndarray, list[list[Labelled]]], threshold: float
) -> None:
    scores, good, labels = simulated
    kept = scores >= threshold
    right = (kept & good).sum(axis=1)
    truths = right / kept.sum(axis=1), right / good.sum(axis=1)
    found = [rates(rows, threshold) for rows in labels]
    for which, truth in enumerate(truths):
        errors, widths, covered = [], [], 0
        for pair, expected in zip(found, truth, strict=True):
            estimate = pair[which]
            assert estimate is not None
            assert estimate.interval is not None
            low, high = estimate.interval
            covered += low <= expected <= high
            errors.append(estimate.value - expected)
            widths.append(high - low)
        assert covered >= 0.92 * SETS
        assert np.mean(widths) <= 1.3 * 2 * 1.96 * np.std(errors)


def test_a_chosen_threshold_reaches_the_aim(
    simulated: tuple[np.ndarray, np.ndarray, list[list[Labelled]]],
) -> None:
    """The lowest of many candidates is chosen, and still its promise is kept."""
    scores, good, labels = simulated
    kept = chosen = 0
    for values, answers, rows in zip(scores[:200], good[:200], labels[:200], strict=True):
        photographs = scored(dict(zip(NAMES, values.tolist(), strict=True)))
        _, candidate = calibrate(rows, photographs, 0.7)
        if candidate is not None:
            chosen += 1
            kept += answers[values >= candidate.threshold].mean() >= 0.7
    assert chosen >= 100
    assert kept >= 0.95 * chosen
