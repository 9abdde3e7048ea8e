"""The table that compares models shows every figure that a model has."""

from __future__ import annotations

from vasevqa.evaluation.comparison import comparison
from vasevqa.evaluation.figures import Evaluation, Metric


def test_a_metric_that_one_model_lacks_keeps_the_counts_and_the_chance_of_the_others() -> None:
    lacking: Metric = {"value": None, "reason": "no samples", "samples": 0, "vases": 0}
    known: Metric = {"value": 0.5, "interval": [0.4, 0.6], "samples": 90, "vases": 30, "chance": 0.25}
    evaluation: Evaluation = {
        "samples": 90,
        "models": {
            "base": {"rewards": lacking, "captions": {"overall": lacking}},
            "sft": {"rewards": known, "captions": {"overall": lacking}},
        },
        "same": {},
    }
    lines = comparison(evaluation).splitlines()
    assert "| mean reward | n/a | 0.500 [0.400, 0.600] | 30 | 90 | 0.250 |" in lines
    assert [line for line in lines if line.startswith("- ")] == [
        "- mean reward (base): no samples.",
        "- captions: overall: no samples.",
    ]
