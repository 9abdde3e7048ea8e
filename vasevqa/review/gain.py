"""What the labels so far are good for, and how many more would help."""

from __future__ import annotations

from vasevqa.review.questions import QUALITY
from vasevqa.review.record import Record
from vasevqa.statistics import FEWEST, wilson

SIDES = 3  # of the classifier's split: training, validation and test need a vase of each class


def gains(record: Record) -> list[str]:
    """Return sentences without full stops."""
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
    """Return how precisely labels of so many vases tell a share, such as an accuracy.

    It is the half of Wilson's 95% interval at a share of one half, with each vase as one observation. Photographs of
    one vase can only make it better.
    """
    labels = f"labels of {vases} vase{'s' if vases != 1 else ''}"
    if vases < FEWEST:
        return f"{labels}: {FEWEST} vases are needed before a share, such as an accuracy, gets an interval"
    return (
        f"{labels} tell a share, such as an accuracy, to ±{_half(vases)} points; {2 * vases} vases: ±{_half(2 * vases)}"
    )


def _half(vases: int) -> int:
    low, high = wilson(vases / 2, vases)
    return round(50 * (high - low))
