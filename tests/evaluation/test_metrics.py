"""Metrics: compared with hand-computed values, and with libraries that have the same metric."""

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


def test_means_have_intervals_by_vase() -> None:
    vases = [f"v{number}" for number in range(10)]
    figure = metrics.mean([1.0, 0.0] * 5, vases)
    assert (figure["value"], figure["samples"], figure["vases"]) == (0.5, 10, 10)
    low, high = figure["interval"]
    assert 0 < low < 0.5 < high < 1
    # Ten equal rows of a vase have the weight of one row.
    again = metrics.mean(
        [value for value in [1.0, 0.0] * 5 for _ in range(10)], [vase for vase in vases for _ in "0123456789"]
    )
    assert again["interval"] == pytest.approx(figure["interval"], abs=0.02)
    assert metrics.mean([], []) == {"value": None, "reason": "no samples", "samples": 0, "vases": 0}
    few = metrics.mean([0.5, 1.0], ["a", "b"])
    assert (few["value"], few["interval"]) == (0.75, None)
    assert "too few vases" in few["no_interval"]


def answered(attribute: str, truth: str, answer: str, vase: str = "v") -> metrics.Answered:
    row = {
        "attribute": attribute,
        "solution": truth,
        "vase_id": vase,
        "messages": [{"role": "user", "content": f"<image>What is the {attribute}?"}],
        "images": ["a.jpg"],
    }
    return metrics.answered(row, answer)


def test_accuracy_equals_hand_computed_values() -> None:
    rows = [
        answered("shape", "lekythos", "lecythus"),
        answered("shape", "kylix", "krater"),
        answered("date", "525-475 BCE", "-525 to -475"),
        answered("date", "500-450 BCE", "475-425 BC"),
    ]
    found = metrics.attribute_accuracy(rows, 0.8)
    assert found["shape"]["exact"]["value"] == 0.5
    assert found["shape"]["fuzzy"] == {**found["shape"]["fuzzy"], "value": 0.5, "threshold": 0.8, "samples": 2}
    assert found["date"]["exact"]["value"] == 0.5
    # The period from 475 to 450 BC has 26 of the 76 years from 500 to 425 BC.
    assert found["date"]["interval_iou"]["value"] == pytest.approx((1 + 26 / 76) / 2)


def test_a_question_that_is_copied_into_the_answer_lowers_the_reward() -> None:
    assert answered("shape", "kylix", "kylix").reward == 1
    assert answered("shape", "kylix", "What is the shape? kylix").reward == 0.5


def test_only_years_that_the_answer_asserts_are_used() -> None:
    assert metrics.date_overlap("not 600-550 BC but 500-450 BC", "500-450 BC") == 1
    assert metrics.date_overlap("<think>600-550 BC?</think>500-450 BC", "500-450 BC") == 1
    assert metrics.date_overlap("not 500-450 BC", "500-450 BC") == 0
    assert metrics.date_overlap("500-450 BC", "unknown") is None


def test_bleu_equals_the_result_of_sacrebleu() -> None:
    said = [
        "An Attic red-figure kylix with a horse.",
        "A Corinthian amphora with warriors.",
        "A krater showing dancers.",
    ]
    for order in (1, 4):
        assert metrics.bleu(said, TRUTHS, order, 200)["interval"] is None
        found = metrics.bleu(said * 3, TRUTHS * 3, order, 200)
        assert found["value"] * 100 == pytest.approx(
            sacrebleu.metrics.BLEU(max_ngram_order=order).corpus_score(said, [TRUTHS]).score
        )
        assert found["interval"][0] <= found["interval"][1]
        assert "version" in found["signature"]
    assert metrics.bleu([], [], 4, 10)["value"] is None
    # By hand: 3 of 4 words, one word too few of 5: exp(1 - 5/4) * 3/4.
    assert metrics.bleu(["a b c x"], ["a b c d e"], 1, 0)["value"] == pytest.approx(math.exp(-0.25) * 0.75)


def test_jaccard_equals_hand_computed_values() -> None:
    assert metrics.lexical(["an attic kylix", "x", ""], ["an attic lekythos", "y", "z"]) == [0.5, 0.0, 0.0]


def names(count: int) -> list[str]:
    return [f"v{number}" for number in range(count)]


def test_recall_equals_hand_computed_values() -> None:
    targets = np.eye(4)
    # ranks: 1, 2, a tie of 2 to 4, 1
    queries = np.array([[1, 0.1, 0, 0], [1, 0.5, 0, 0], [0, 0, 0, 1], [0, 0, 0.9, 1]])
    about = {"query": "a", "target": "b"}
    first = metrics.recall(queries, targets, 1, names(4), about)
    assert first["value"] == pytest.approx(2 / 4)
    assert (first["chance"], first["samples"], first["query"]) == (0.25, 4, "a")
    # For the third query, three targets share ranks 2 to 4. Its own target is one of them, so it has rank 2 with
    # probability 1/3.
    assert metrics.recall(queries, targets, 2, names(4), about)["value"] == pytest.approx((3 + 1 / 3) / 4)
    assert "needs more than 5 vases; there are 4" in metrics.recall(queries, targets, 5, names(4), about)["reason"]


def test_views_of_one_vase_are_one_target() -> None:
    targets = np.eye(4)
    queries = targets[[1, 0, 2, 3]]  # the first two captions fit the other view of their vase
    assert metrics.recall(queries, targets, 1, ["a", "a", "b", "c"], {})["value"] == 1
    assert metrics.recall(queries, targets, 1, names(4), {})["value"] == 0.5
    assert metrics.recall(queries, targets, 1, ["a", "a", "b", "c"], {})["chance"] == pytest.approx(1 / 3)


def test_copying_gives_perfect_recall_and_random_answers_give_chance_level() -> None:
    rng = np.random.default_rng(0)
    truths, vases = rng.normal(size=(600, 16)), names(600)
    for k in metrics.RECALLS:
        assert metrics.recall(truths, truths, k, vases, {})["value"] == 1
        found = metrics.recall(rng.normal(size=(600, 16)), truths, k, vases, {})
        assert found["value"] == pytest.approx(k / 600, abs=4 * math.sqrt(k / 600 / 600))
        assert metrics.recall(np.ones((600, 16)), truths, k, vases, {})["value"] < 0.1, (
            "one answer to everything finds nothing"
        )
    assert metrics.recall(np.ones((600, 4)), np.ones((600, 4)), 5, vases, {})["value"] == pytest.approx(5 / 600)
    assert metrics.frechet(truths, truths)["value"] == pytest.approx(0, abs=1e-6)
    assert metrics.bleu(TRUTHS, TRUTHS, 4, 10)["value"] == pytest.approx(1)


def test_the_frechet_distance_equals_the_result_of_scipy() -> None:
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
