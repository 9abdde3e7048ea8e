"""Scores against hand-computed values, and prompts from a user's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vasevqa.curation import scoring
from vasevqa.errors import ConfigError


def test_the_mean_is_taken_before_normalization() -> None:
    high = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    low = torch.tensor([[0.0, 2.0]])
    found = scoring.score(torch.tensor([[3.0, 0.0], [0.0, 5.0]]), high, low)
    # The mean of the high prompts is (5, .5), because the first prompt has the largest vector.
    length = np.sqrt(25.25)
    np.testing.assert_allclose(found.high, [5 / length, 0.5 / length], atol=1e-6)
    np.testing.assert_allclose(found.score, [5 / length - 0, 0.5 / length - 1], atol=1e-6)
    assert found.nearest_high.tolist() == [0, 1]


def test_statistics_and_recommendations() -> None:
    values = np.arange(101) / 100
    stats = scoring.statistics(values)
    assert (stats["mean"], stats["median"], stats["p10"], stats["p90"]) == pytest.approx((0.5, 0.5, 0.1, 0.9))
    advice = {item.name: item for item in scoring.recommendations(values)}
    assert advice["conservative"].threshold == pytest.approx(0.1)
    assert advice["conservative"].keeps == pytest.approx(0.9, abs=0.02)
    assert advice["strict"].keeps == pytest.approx(0.1, abs=0.02)
    assert [item.percentile for item in scoring.recommendations(values)] == [10, 25, 50, 75, 90]


def test_without_a_threshold_the_moderate_one_is_used() -> None:
    advice = scoring.recommendations(np.arange(5.0))
    assert scoring.choose(None, advice)[0] == 1.0
    assert "moderate" in scoring.choose(None, advice)[1]
    assert scoring.choose(0.15, advice) == (0.15, "given")


def test_each_side_has_eight_prompts() -> None:
    assert len(set(scoring.HIGH_PROMPTS)) == len(set(scoring.LOW_PROMPTS)) == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("high: [a\nlow: [b]", "line"),
        ("high: [a]", "`low`"),
        ("high: []\nlow: [b]", "`high`"),
        ("high: a\nlow: b", "`high`"),
        ("high: [a]\nlow: [3]", "`low`"),
        ("- a", "`high`"),
        ("high: [a]\nlow: [b]\nmiddle: [c]", "middle"),
    ],
)
def test_the_error_about_a_broken_prompts_file_names_the_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "prompts.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        scoring.load_prompts(tmp_path / "prompts.yaml")


def test_the_users_prompts_replace_the_default_prompts(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text('{"high": ["a vase"], "low": ["a sherd", "dust"]}')
    assert scoring.load_prompts(tmp_path / "prompts.json") == scoring.Prompts(("a vase",), ("a sherd", "dust"))
