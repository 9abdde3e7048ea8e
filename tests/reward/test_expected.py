"""The reward equals the expectations of a reader of vase records. The tables in expected/ were written before the
code.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from vasevqa.reward.score import score

TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(Path(__file__).parent.glob("expected/*.yaml"))}
ROWS = [
    (attribute, truth, rule, answer, value)
    for attribute, table in TABLES.items()
    for truth, rules in table.items()
    for rule, answers in rules.items()
    for answer, value in answers.items()
]
BAND = 0.1
APART = 0.2  # if two expected values differ by more than this, the higher value belongs to the closer answer


@lru_cache(maxsize=1)
def values() -> dict[tuple[str, str, str], float]:
    return {(kind, truth, answer): score(answer, truth, kind).value for kind, truth, _, answer, _ in ROWS}


def off(attribute: str) -> list[str]:
    return [
        f"{truth!r} <- {answer!r} ({rule}): {values()[kind, truth, answer]:.2f}, expected {expected}"
        for kind, truth, rule, answer, expected in ROWS
        if kind == attribute and abs(values()[kind, truth, answer] - expected) > BAND + 1e-9
    ]


@pytest.mark.parametrize("attribute", TABLES)
def test_rewards_equal_the_expected_values(attribute: str) -> None:
    wrong = off(attribute)
    count = sum(row[0] == attribute for row in ROWS)
    assert count >= 200
    assert len(wrong) <= (0.05 if attribute == "date" else 0.06) * count, "\n".join(wrong)


@pytest.mark.parametrize("attribute", TABLES)
def test_a_closer_answer_scores_higher(attribute: str) -> None:
    answers: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for kind, truth, _, answer, expected in ROWS:
        if kind == attribute:
            answers[truth].append((expected, values()[kind, truth, answer], answer))
    inverted = [
        f"{truth!r}: {near[2]!r} {near[1]:.2f} below {far[2]!r} {far[1]:.2f}"
        for truth, each in answers.items()
        for far, near in combinations(sorted(each), 2)
        if near[0] - far[0] > APART + 1e-9 and near[1] < far[1] - 1e-9
    ]
    assert inverted == []
