"""Describe what the labels so far are enough for, and what more labels would add."""

from __future__ import annotations

from vasevqa.review.questions import QUALITY
from vasevqa.review.record import Record
from vasevqa.statistics import FEWEST, wilson

SIDES = 3  # parts of the classifier's split: training, validation and test; each needs a vase of each class


def gains(record: Record) -> list[str]:
    """Return sentences without full stops about what the labels so far are enough for."""
    answered = record.answered()
    vases = len(answered[True] | answered[False])
    said = []
    if record.question is QUALITY:
        counts = ((record.question.yes, len(answered[True])), (record.question.no, len(answered[False])))
        lacking = [f"{label} has {count}" for label, count in counts if count < SIDES]
        said.append(
            f"train-classifier needs photographs of {SIDES} vases with each label: {' and '.join(lacking)}"
            if lacking
            else "train-classifier can run with these labels"
        )
    return [*said, precision(vases)]


def precision(vases: int) -> str:
    """Return a sentence about how precisely a share, such as an accuracy, is measured if `vases` vases have labels.

    The precision is half the width of Wilson's 95% interval at a share of 1/2, with each vase as one observation.
    Several photographs of one vase can only make the interval narrower.
    """
    labels = f"labels of {vases} vase{'s' if vases != 1 else ''}"
    if vases < FEWEST:
        return f"{labels}: an interval of a share, such as an accuracy, needs labels of {FEWEST} vases"
    return (
        f"{labels} measure a share, such as an accuracy, to ±{_half(vases)} points; labels of {2 * vases} vases would"
        f" measure it to ±{_half(2 * vases)} points"
    )


def _half(vases: int) -> int:
    low, high = wilson(vases / 2, vases)
    return round(50 * (high - low))
