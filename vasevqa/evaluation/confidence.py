"""Compare a model's confidence with its share of right answers.

There are two measures of the confidence in an answer. `probability` is the probability that the model assigns to the
answer. `agreement` is the share of sampled answers that have the same meaning as the answer. The expected calibration
error follows Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015, with ten bins of
equal width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vasevqa.evaluation.figures import Bin, Confidence, Reliability
from vasevqa.evaluation.metrics import TOO_FEW, Answered
from vasevqa.reward.score import exact
from vasevqa.reward.words import normalize
from vasevqa.statistics import paired

BINS = 10
ALL = "all"


def agreement(answer: str, samples: Sequence[str], attribute: str) -> float | None:
    """Return the share of samples with the same meaning as the answer, or None if there are no samples.

    A sample has the same meaning if its normalized text is equal to the answer's normalized text. It also has the same
    meaning if `exact` would accept the sample when the answer is the truth.
    """
    if not samples:
        return None
    return sum(_same(sample, answer, attribute) for sample in samples) / len(samples)


def _same(sample: str, answer: str, attribute: str) -> bool:
    return normalize(sample) == normalize(answer) or (bool(answer.strip()) and exact(sample, answer, attribute))


def confidence_of(answered: Sequence[Answered]) -> Confidence:
    """Return the reliability of a model's confidence, over all short answers and by attribute.

    Captions, and answers to questions without an attribute, are not used.
    """
    short = [one for one in answered if one.attribute not in ("", "caption")]
    found: Confidence = {}
    for name in sorted({one.attribute for one in short}):
        _add(found, name, [one for one in short if one.attribute == name])
    _add(found, ALL, short)
    return found


def _add(found: Confidence, name: str, answered: Sequence[Answered]) -> None:
    sure = [one for one in answered if one.probability is not None]
    if sure:
        found.setdefault("probability", {})[name] = reliability(sure, [one.probability or 0.0 for one in sure])
    sampled = [one for one in answered if one.agreement is not None]
    if sampled:
        found.setdefault("agreement", {})[name] = reliability(sampled, [one.agreement or 0.0 for one in sampled])


def reliability(answered: Sequence[Answered], confidences: Sequence[float]) -> Reliability:
    """Return the mean confidence, the share of right answers, their difference, the calibration error and the bins."""
    rights = [one.exact for one in answered]
    difference = paired(confidences, rights, [one.vase for one in answered])
    bins = list(_bins(confidences, rights))
    return {
        "confidence": sum(confidences) / len(confidences),
        "right": sum(rights) / len(rights),
        "difference": {
            "value": difference.value,
            "interval": list(difference.interval) if difference.interval else None,
            "samples": difference.rows,
            "vases": difference.vases,
            **({} if difference.interval else {"no_interval": TOO_FEW}),
        },
        "ece": sum(one["rows"] * abs(one["confidence"] - one["right"]) for one in bins) / len(rights),
        "bins": bins,
    }


def _bins(confidences: Sequence[float], rights: Sequence[float]) -> Iterator[Bin]:
    for number in range(BINS):
        inside = [at for at, one in enumerate(confidences) if min(BINS - 1, int(one * BINS)) == number]
        if inside:
            yield {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "confidence": sum(confidences[at] for at in inside) / len(inside),
                "right": sum(rights[at] for at in inside) / len(inside),
                "rows": len(inside),
            }
