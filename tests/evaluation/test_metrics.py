"""Metrics against values computed by hand, and against libraries where they have them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
import scipy.linalg

from vasevqa.evaluation import metrics

TRUTHS = [
    "An Attic red-figure kylix with a lion.",
    "A Corinthian amphora with warriors and horses.",
    "An Apulian krater showing dancers.",
]


def test_means_and_their_intervals() -> None:
    found = metrics.mean([1.0, 0.0, 1.0, 1.0], 500, 0)
    assert found["value"] == 0.75
    low, high = found["interval"]
    assert 0 <= low < 0.75 < high <= 1
    wide = metrics.mean([1.0, 0.0] * 5, 1000, 0)["interval"]
    narrow = metrics.mean([1.0, 0.0] * 500, 1000, 0)["interval"]
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])
    # The interval of a mean of many coin throws is that of the normal distribution.
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 1000), rel=0.15)
    assert metrics.mean([], 100, 0) == {"value": None, "reason": "no samples", "samples": 0}
    assert metrics.mean([0.5], 100, 0)["interval"] is None
    assert metrics.mean([1.0, 0.0, 0.3], 100, 7) == metrics.mean([1.0, 0.0, 0.3], 100, 7)


def test_accuracy_by_hand() -> None:
    rows = [
        {"attribute": "shape", "solution": "lekythos"},
        {"attribute": "shape", "solution": "kylix"},
        {"attribute": "date", "solution": "525-475 BCE"},
        {"attribute": "date", "solution": "500-450 BCE"},
    ]
    found = metrics.attribute_accuracy(rows, ["lecythus", "krater", "-525 to -475", "475-425 BC"], 0.8, 100, 0)
    assert found["shape"]["exact"]["value"] == 0.5
    assert found["shape"]["fuzzy"] == {**found["shape"]["fuzzy"], "value": 0.5, "threshold": 0.8, "samples": 2}
    assert found["date"]["exact"]["value"] == 0.5
    # 475 to 450 BC are 26 of the 76 years from 500 to 425.
    assert found["date"]["interval_iou"]["value"] == pytest.approx((1 + 26 / 76) / 2)


def test_bleu_is_sacrebleus() -> None:
    said = [
        "An Attic red-figure kylix with a horse.",
        "A Corinthian amphora with warriors.",
        "A krater showing dancers.",
    ]
    for order in (1, 4):
        found = metrics.bleu(said, TRUTHS, order, 200)
        assert found["value"] * 100 == pytest.approx(
            sacrebleu.metrics.BLEU(max_ngram_order=order).corpus_score(said, [TRUTHS]).score
        )
        assert found["interval"][0] <= found["interval"][1]
        assert "version" in found["signature"]
    assert metrics.bleu([], [], 4, 10)["value"] is None
    # By hand: 3 of 4 words, one word too few of 5: exp(1 - 5/4) * 3/4.
    assert metrics.bleu(["a b c x"], ["a b c d e"], 1, 0)["value"] == pytest.approx(math.exp(-0.25) * 0.75)


def test_jaccard_by_hand() -> None:
    assert metrics.lexical(["an attic kylix", "x", ""], ["an attic lekythos", "y", "z"]) == [0.5, 0.0, 0.0]


def test_recall_by_hand() -> None:
    targets = np.eye(4)
    queries = np.array(
        [[1, 0.1, 0, 0], [1, 0.5, 0, 0], [0, 0, 0, 1], [0, 0, 0.9, 1]]
    )  # ranks 1, 2, and 2 (tied with two others), 1
    about = {"query": "a", "target": "b"}
    first = metrics.recall(queries, targets, 1, 100, 0, about)
    assert first["value"] == pytest.approx(2 / 4)
    assert (first["chance"], first["samples"], first["query"]) == (0.25, 4, "a")
    # The third query is equally near to three targets after the nearest: its own is second with one chance in three.
    assert metrics.recall(queries, targets, 2, 100, 0, about)["value"] == pytest.approx((3 + 1 / 3) / 4)
    assert "needs more than 5 samples; there are 4" in metrics.recall(queries, targets, 5, 100, 0, about)["reason"]


def test_who_copies_the_truth_is_perfect_and_who_answers_at_random_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    truths = rng.normal(size=(600, 16))
    for k in metrics.RECALLS:
        assert metrics.recall(truths, truths, k, 100, 0, {})["value"] == 1
        found = metrics.recall(rng.normal(size=(600, 16)), truths, k, 500, 0, {})
        assert found["value"] == pytest.approx(k / 600, abs=4 * math.sqrt(k / 600 / 600))
        assert metrics.recall(np.ones((600, 16)), truths, k, 0, 0, {})["value"] < 0.1, (
            "one answer to everything finds nothing"
        )
    assert metrics.recall(np.ones((600, 4)), np.ones((600, 4)), 5, 0, 0, {})["value"] == pytest.approx(5 / 600)
    assert metrics.frechet(truths, truths)["value"] == pytest.approx(0, abs=1e-6)
    assert metrics.bleu(TRUTHS, TRUTHS, 4, 10)["value"] == pytest.approx(1)


def test_the_frechet_distance_is_scipys() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(80, 6)), 0.5 + rng.normal(size=(90, 6)) * np.arange(1, 7)
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    found = metrics.frechet(one, other)
    assert found["value"] == pytest.approx(expected)
    assert found["interval"] is None
    assert "needs more than 6 samples; there are 6" in metrics.frechet(one[:6], other[:6])["reason"]


def test_the_overall_score_needs_all_of_its_parts() -> None:
    parts = {name: {"value": 0.5} for name in metrics.OVERALL}
    assert metrics.overall(parts)["value"] == pytest.approx(0.5)
    parts["clip_similarity"] = {"value": 1.0}
    assert metrics.overall(parts)["value"] == pytest.approx(0.5 + 0.5 * 0.25)
    del parts["recall_at_10"]
    parts["semantic_similarity"] = {"value": None}
    found = metrics.overall(parts)
    assert found["value"] is None
    assert found["reason"] == "needs semantic_similarity, recall_at_10"
