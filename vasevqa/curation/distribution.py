"""Describe the shape of scores, to help a user choose a threshold.

The shape is "two groups", "one group", "few" (there are too few scores) or "constant" (all scores are equal). Two
normal distributions are fitted to the scores. The scores form two groups if four conditions hold:

- By the Bayesian information criterion (Schwarz, 1978), the two distributions fit better than a single one.
- The two distributions are apart: Ashman's D is greater than 2 (Ashman, Bird and Zepf, 1994).
- There is a valley between the two means: the density falls to at most `VALLEY` times the lower peak.
- The smaller group's share of the images is at least `SMALLEST`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vasevqa.text import percent

FEWEST = 30
APART = 2.0  # Ashman's D
CONSTANT = 1e-4  # a smaller spread of cosine similarities is a rounding error
VALLEY = 0.4  # greatest density between two groups, as a part of the lower peak
SMALLEST = 0.05  # smallest part of the images that forms a group


@dataclass(frozen=True)
class Distribution:
    """The shape of scores (see the module), and advice for the user in one sentence.

    If the scores form two groups, `between` is a threshold between the groups. Otherwise it is None.
    """

    shape: str  # two groups, one group, few, constant
    advice: str
    between: float | None = None


def distribution(values: Sequence[float] | np.ndarray) -> Distribution:
    """Describe the shape of the scores. If they form two groups, find a threshold between the groups."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < FEWEST:
        return Distribution("few", f"{len(numbers)} images are too few to see groups; look at them one by one")
    if float(numbers.max() - numbers.min()) < CONSTANT:
        same = "all images have the same score: there is nothing to separate; check the CLIP model"
        return Distribution("constant", same)
    from sklearn.mixture import GaussianMixture

    column = numbers.reshape(-1, 1)
    one, two = (GaussianMixture(count, random_state=0, n_init=3).fit(column) for count in (1, 2))
    means, spreads = two.means_.ravel(), np.sqrt(two.covariances_.ravel())
    low, high = np.argsort(means)
    apart = float(np.sqrt(2) * abs(means[high] - means[low]) / np.sqrt(spreads[low] ** 2 + spreads[high] ** 2))
    grid = np.linspace(means[low], means[high], 512)
    density = np.exp(two.score_samples(grid.reshape(-1, 1)))
    # A valley, not a shoulder: a uniform or skewed group also fits two normal distributions better than one.
    valley = float(density.min() / min(density[0], density[-1]))
    better = two.bic(column) < one.bic(column) - 10
    if not better or apart <= APART or valley > VALLEY or float(two.weights_.min()) < SMALLEST:
        return Distribution(
            "one group",
            "the scores form one group: no threshold separates good images from bad ones; choose by the number of"
            " images to keep, and look at the images near the threshold",
        )
    between = float(grid[density.argmin()])
    keeps = float((numbers >= between).mean())
    return Distribution(
        "two groups",
        f"the scores form two groups: --threshold {between:.4f} lies between them and keeps {percent(keeps)}",
        between,
    )
