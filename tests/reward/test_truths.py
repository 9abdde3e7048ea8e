"""The true answer of a row, from any JSON in its column `solution`."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from vasevqa.reward.score import external_vase_acc
from vasevqa.reward.truths import truths


@pytest.mark.parametrize(
    ("solution", "attribute", "expected"),
    [
        ("amphora", None, ("amphora",)),
        (-450, "date", ("-450",)),
        (-450.0, "date", ("-450",)),
        ([-450, -425], "date", ("-450 to -425",)),
        ([-425, -450], "date", ("-450 to -425",)),
        (["amphora", "amphorae", "amphora"], "shape", ("amphora", "amphorae")),
        ({"role": "assistant", "content": "amphora"}, "shape", ("amphora",)),
        ({"role": "assistant", "content": [{"type": "text", "text": "neck"}, {"type": "text", "text": "amphora"}]},
         "shape", ("neck amphora",)),
        ([{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "amphora"}], None, ("amphora",)),
        ({"from": "gpt", "value": "amphora"}, None, ("amphora",)),
        ({"answer": ["amphora", "neck amphora"]}, None, ("amphora", "neck amphora")),
        ({"shape": "amphora", "fabric": "Attic"}, "shape", ("amphora",)),
        ({"shape": "amphora", "fabric": None}, "", ("amphora",)),  # ms-swift adds the keys of other rows
        ({"solution": {"content": "amphora"}}, None, ("amphora",)),
        (datetime.datetime(1899, 12, 31), "date", ("1899-12-31",)),
    ],
)  # fmt: skip
def test_the_truths_of_a_solution(solution: Any, attribute: str | None, expected: tuple[str, ...]) -> None:
    assert truths(solution, attribute) == expected


@pytest.mark.parametrize(
    ("solution", "said"),
    [
        (True, "true is neither a text nor a number"),
        (None, "null holds no text"),
        ("  ", "holds no text"),
        ([], "holds no text"),
        ([None, ""], "holds no text"),
        ({"shape": "amphora", "fabric": "Attic"}, "none of the keys content, text"),
        ({"role": "assistant", "content": None}, "none of the keys|holds no text"),
    ],
)
def test_a_solution_without_a_truth_is_an_error(solution: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        truths(solution, "technique")


def test_the_nearest_of_several_truths_is_used() -> None:
    message = {"role": "assistant", "content": "amphora"}
    solutions = ["amphora", message, ["kylix", "amphora"], ["kylix", "lekythos"], -450]
    answers = ["amphora", "amphora", "amphora", "amphora", "450 BC"]
    attributes = ["shape"] * 4 + ["date"]
    assert external_vase_acc(answers, solutions, attributes) == [1.0, 1.0, 1.0, 0.0, 1.0]
