"""A threshold is recommended only if the scores form two groups."""

from __future__ import annotations

import numpy as np
import pytest

from vasevqa.curation.distribution import distribution

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_two_groups_have_a_threshold_between_them(part: float) -> None:
    bad, good = RNG.normal(-0.02, 0.005, round(400 * (1 - part))), RNG.normal(0.02, 0.006, round(400 * part))
    found = distribution(np.concatenate([bad, good]))
    assert found.shape == "two groups"
    assert found.between is not None
    assert bad.max() < found.between < good.min() or -0.01 < found.between < 0.012
    assert f"keeps {part:.0%}" in found.advice


@pytest.mark.parametrize("seed", range(8))
def test_one_group_is_not_separated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for values in (rng.normal(0.01, 0.0085, 500), rng.uniform(-0.02, 0.02, 300), rng.gamma(3, 0.004, 400)):
        assert distribution(values).shape == "one group"
    assert "no threshold separates" in distribution(rng.normal(0, 1, 100)).advice


def test_few_or_constant_scores_are_reported() -> None:
    assert distribution([0.1] * 10).shape == "few"
    constant = distribution(np.full(100, 0.03) + RNG.normal(0, 1e-6, 100))
    assert (constant.shape, constant.between) == ("constant", None)
    assert "nothing to separate" in constant.advice
