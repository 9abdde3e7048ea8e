"""Turn a classifier's logits into calibrated probabilities, and measure the calibration error.

The method is Platt scaling (Platt, "Probabilistic Outputs for Support Vector Machines", 1999). It fits a temperature
and a bias to smoothed targets. The bias matters if both classes had the same total weight in training. Without the
bias, the probabilities of a class that is rare in practice would be too high. The calibration error follows
Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015, with bins of equal counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

COLDEST, HOTTEST = 0.1, 20.0  # bounds of the temperature
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """The two numbers that turn a classifier's logits into a probability of class 1.

    The probability is sigmoid(margin / temperature + bias). The margin is the logit of class 1 minus that of class 0.
    """

    temperature: float = 1.0
    bias: float = 0.0

    @property
    def at_bound(self) -> bool:
        """True if the temperature is at its lower or upper limit. The fitted calibration is then not reliable."""
        return not COLDEST * 1.01 < self.temperature < HOTTEST * 0.99

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of class 1 for logits (N, 2)."""
        return ((logits[:, 1] - logits[:, 0]) / self.temperature + self.bias).sigmoid()


def calibrate(logits: Tensor, labels: Tensor) -> Calibration:
    """Return the calibration that fits logits (N, 2) best to labels (N,), which are 0 or 1.

    It minimizes the cross entropy against smoothed labels.
    """
    from scipy.optimize import minimize

    margins = (logits[:, 1] - logits[:, 0]).double().numpy()
    right = labels.double().numpy()
    positives, negatives = right.sum(), len(right) - right.sum()
    targets = np.where(right > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(point: np.ndarray) -> float:
        scores = margins * math.exp(-point[0]) + point[1]
        return float(np.mean(np.logaddexp(0, scores) - targets * scores))

    bounds = [(math.log(COLDEST), math.log(HOTTEST)), (-12.0, 12.0)]
    starts = [(0.0, 0.0), (0.0, math.log((positives + 1) / (negatives + 1)))]
    best = min((minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts), key=lambda one: one.fun)
    return Calibration(float(math.exp(best.x[0])), float(best.x[1]))


def calibration_error(probabilities: Sequence[float], labels: Sequence[int]) -> float:
    """Return the expected calibration error, computed with bins of equal counts.

    In each bin, the mean predicted probability of class 1 is compared with the share of rows that have label 1. The
    result is the mean of the absolute differences, weighted by the number of rows in each bin.
    """
    order = np.argsort(np.asarray(probabilities), kind="stable")
    promised, true = np.asarray(probabilities, dtype=float)[order], np.asarray(labels, dtype=float)[order]
    bins = [part for part in np.array_split(np.arange(len(order)), min(BINS, len(order))) if len(part)]
    return float(sum(abs(promised[part].mean() - true[part].mean()) * len(part) for part in bins) / len(order))
