"""Choose a step's threshold from labels, which show the precision and recall at each candidate threshold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vasevqa.errors import DataError
from vasevqa.pipeline.calibrated import Calibration, Candidate, Share
from vasevqa.review.choosing import Scores
from vasevqa.review.photographs import Photograph
from vasevqa.review.record import Record
from vasevqa.review.weights import Sample, sample_of
from vasevqa.statistics import FEWEST, Estimate, by_vase

STEPS = 20  # the candidates are the quantiles 0/20, 1/20, ... of the scores
DIGITS = 4  # decimal places of a candidate
AIM = 0.95  # the default precision: the share of the accepted photographs that should be good
PARAMETERS = {"classify": "confidence_threshold", "clip-filter": "threshold"}


@dataclass(frozen=True)
class Labelled:
    """A labelled photograph: its score, its vase, whether the answer is yes, and the weight of the label."""

    score: float
    vase: str
    good: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Scored:
    """All photographs that a step scored: their scores and vases by name, and the step's present threshold."""

    step: str
    threshold: float
    values: Mapping[str, float]
    vases: Mapping[str, str]

    def candidates(self) -> list[float]:
        """Return the candidate thresholds, lowest first. They depend on the scores alone, not on the labels."""
        ordered = sorted(self.values.values())
        quantiles = {ordered[number * len(ordered) // STEPS] for number in range(STEPS)}
        return sorted({*(math.floor(value * 10**DIGITS) / 10**DIGITS for value in quantiles), self.threshold})

    def lost(self, threshold: float) -> tuple[int, int]:
        """Return how many photographs are below a threshold, and how many vases have all photographs below it."""
        kept = {self.vases[name] for name, value in self.values.items() if value >= threshold}
        below = sum(value < threshold for value in self.values.values())
        return below, len({self.vases[name] for name in self.values} - kept)


def scored_of(photographs: Sequence[Photograph], scores: Scores) -> Scored:
    """Return the scores of `photographs`. Raise DataError if the step scored none of these photographs."""
    vases = {one.name: one.vase for one in photographs if one.name in scores.values}
    if not vases:
        raise DataError(
            f"{scores.step} scored none of the photographs that are here; give the run that scored these photographs."
        )
    return Scored(scores.step, scores.threshold, {name: scores.values[name] for name in vases}, vases)


def calibration_of(sample: Sample, question: str, scored: Scored, aim: float) -> Calibration:
    """Choose a threshold from the labels of `sample`, and return the result with all candidates.

    Raise DataError if no labelled photograph of `sample` has a score.
    """
    rows = [
        Labelled(scored.values[name], scored.vases[name], good, weight)
        for name, (good, weight) in sorted(sample.answers.items())
        if name in scored.values
    ]
    if not rows:
        raise DataError(
            f"No label gives a clear answer about a photograph that the review drew and {scored.step} scored"
            f" ({len(sample.answers)} other answers, {sample.unsure} unsure, {sample.undrawn} not drawn); label"
            " photographs of this run first, with the same command without --calibrate."
        )
    candidates, chosen = calibrate(rows, scored, aim)
    return Calibration(
        question=question,
        step=scored.step,
        aim=aim,
        present=scored.threshold,
        photographs=len(scored.values),
        vases=len(set(scored.vases.values())),
        labels=len(rows),
        labelled_vases=len({row.vase for row in rows}),
        unsure=sample.unsure,
        undrawn=sample.undrawn,
        candidates=candidates,
        chosen=chosen.threshold if chosen else None,
        says=said(candidates, chosen, scored, len(rows), aim),
        recipe=f"{scored.step}: {{{PARAMETERS[scored.step]}: {chosen.threshold:g}}}" if chosen else None,
    )


def aim_of(record: Record, scores: Scores, aim: float) -> str | None:
    """Return a sentence about the threshold that reaches the precision `aim`, without a full stop.

    The result is None while no photograph that the review drew has both a score and a clear answer.
    """
    scored = {one.name for one in record.photographs if one.name in scores.values}
    sample = sample_of(record)
    if not scored & set(sample.answers):
        return None
    found = calibration_of(sample, record.question.name, scored_of(record.photographs, scores), aim)
    return found.says.removesuffix(".")


def calibrate(rows: Sequence[Labelled], scored: Scored, aim: float) -> tuple[list[Candidate], Candidate | None]:
    """Return all candidates, and the lowest one for which the labels show a precision of at least `aim`.

    The second value is None if there is no such candidate. Each test of a candidate has a risk of a false result.
    Therefore the candidates are tested in a fixed sequence, from the highest threshold down to the first that fails.
    The risk is then that of a single test (Maurer, Hothorn and Lehmacher, 1995; Angelopoulos et al., "Learn then Test",
    2021). Candidates with too few labels are skipped. Whether a candidate is skipped doesn't depend on the answers, so
    skipping adds no risk.
    """
    candidates = [_candidate(rows, scored, threshold, aim) for threshold in scored.candidates()]
    tested = (one for one in reversed(candidates) if one.testable)
    passed = list(itertools.takewhile(lambda one: _low(one) >= aim, tested))
    return candidates, passed[-1] if passed else None


def rates(rows: Sequence[Labelled], threshold: float) -> tuple[Estimate | None, Estimate | None]:
    """Return precision and recall of a threshold.

    Precision is None if the threshold accepts no labelled photograph. Recall is None if no photograph is labelled good.
    """
    accepted = [row for row in rows if row.score >= threshold]
    good = [row for row in rows if row.good]
    return (
        _share((row, row.good) for row in accepted),
        _share((row, row.score >= threshold) for row in good),
    )


def said(candidates: Sequence[Candidate], chosen: Candidate | None, scored: Scored, labels: int, aim: float) -> str:
    """Return the result of a calibration as one sentence."""
    if chosen is not None and chosen.precision is not None:
        recall = f", with a recall of {chosen.recall.said()}" if chosen.recall else ""
        return (
            f"A threshold of {chosen.threshold:g} reaches a precision of {aim:g}: {chosen.precision.said()} from"
            f" {chosen.labels} accepted labels of {chosen.vases} vases{recall}; {_losses(chosen, scored)}."
        )
    best = max(candidates, key=_low)
    if best.precision is None or best.precision.low is None:
        most = max(one.vases for one in candidates)
        return (
            f"There are too few labels to show a precision of {aim:g}: an interval needs labels of {FEWEST} accepted"
            f" vases, and there are {most}; label more photographs."
        )
    shown = (
        f"No threshold is shown to reach a precision of {aim:g}; what is shown is at least {best.precision.low:.2f} at"
        f" {best.threshold:g} ({best.precision.said()}, {_losses(best, scored)})"
    )
    needed, which = [one.precision for one in candidates if one.precision], "no estimate with an interval is"
    first = next((one for one in reversed(candidates) if one.testable), None)
    if best.precision.low >= aim and first is not None and first.precision is not None:
        shown = (
            f"No threshold is shown to reach a precision of {aim:g}: thresholds are tested from the highest down to the"
            f" first that fails, and already {first.threshold:g} fails ({first.precision.said()})"
        )
        needed, which = [first.precision], "its estimate isn't"
    missing = min((more(one, labels, aim) for one in needed), default=math.inf)
    if missing == math.inf:
        return f"{shown}, and more labels alone won't show it, because {which} above {aim:g}."
    left = len(scored.values) - labels
    short = f", more than the {left} photographs that are left" if missing > left else ""
    return (
        f"{shown}; about {missing:g} more labels would show it if the share of good photographs stays the same{short}."
    )


def more(precision: Share, labels: int, aim: float) -> float:
    """Estimate how many more labels would raise the lower limit of `precision` to `aim`.

    The result is infinity if no number of labels is enough, or if there is no lower limit above 0. The estimate uses
    Wilson's interval. If the lower limit of a share `value` is `low`, the interval has the following number of
    observations:

    quantile^2 * low * (1 - low) / (value - low)^2
    """
    low = precision.low
    if low is None or low <= 0 or precision.value <= aim:
        return math.inf
    needed = aim * (1 - aim) / (precision.value - aim) ** 2
    there = low * (1 - low) / (precision.value - low) ** 2
    count = labels * max(0.0, needed / there - 1)
    unit = 10.0 ** max(0, math.floor(math.log10(max(1.0, count))) - 1)
    return max(1, math.ceil(count / unit) * unit)


def lines(calibration: Calibration) -> list[str]:
    """Return the lines for a terminal: the table of candidates, the result, and the setting for the recipe."""
    more = [(calibration.unsure, "without a clear answer"), (calibration.undrawn, "that no draw chose")]
    aside = [f"{count} {what}" for count, what in more if count]
    head = (
        f"{calibration.labels} labels of {calibration.labelled_vases} vases stand for {calibration.photographs}"
        f" photographs of {calibration.vases} vases that {calibration.step} scored"
    )
    shown = [f"{head}; left out: {', '.join(aside)}" if aside else head, *_table(calibration), calibration.says]
    if calibration.step == "classify":
        shown.append("Labels from which this classifier learned make it look better than it is.")
    return shown if calibration.recipe is None else [*shown, "In the recipe, below steps:", f"  {calibration.recipe}"]


def _table(calibration: Calibration) -> list[str]:
    rows = [["threshold", "precision", "recall", "labels", "vases", "photographs lost", "vases lost"]]
    for one in calibration.candidates:
        now = " (now)" if one.threshold == calibration.present else ""
        shares = [share.said() if share else "-" for share in (one.precision, one.recall)]
        counts = [str(count) for count in (one.labels, one.vases, one.lost_photographs, one.lost_vases)]
        rows.append([f"{one.threshold:g}{now}", *shares, *counts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _candidate(rows: Sequence[Labelled], scored: Scored, threshold: float, aim: float) -> Candidate:
    precision, recall = rates(rows, threshold)
    photographs, vases = scored.lost(threshold)
    return Candidate(
        threshold=threshold,
        precision=_shown(precision),
        recall=_shown(recall),
        labels=precision.rows if precision else 0,
        vases=precision.vases if precision else 0,
        testable=_best(rows, threshold) >= aim,
        lost_photographs=photographs,
        lost_vases=vases,
    )


def _share(pairs: Iterable[tuple[Labelled, bool]]) -> Estimate | None:
    given = list(pairs)
    if not given:
        return None
    values, rows = [float(value) for _, value in given], [row for row, _ in given]
    return by_vase(values, [row.vase for row in rows], [row.weight for row in rows])


def _shown(estimate: Estimate | None) -> Share | None:
    if estimate is None:
        return None
    low, high = estimate.interval or (None, None)
    return Share(value=estimate.value, low=low, high=high)


def _best(rows: Sequence[Labelled], threshold: float) -> float:
    """Return the lower limit of the precision if all accepted photographs were good; -1 if there is no interval."""
    estimate = _share((row, True) for row in rows if row.score >= threshold)
    return estimate.interval[0] if estimate is not None and estimate.interval is not None else -1.0


def _low(candidate: Candidate) -> float:
    """Return the lower limit of the candidate's precision; -1 if there is no interval."""
    low = candidate.precision.low if candidate.precision else None
    return -1.0 if low is None else low


def _losses(candidate: Candidate, scored: Scored) -> str:
    return (
        f"{candidate.lost_photographs} of {len(scored.values)} photographs and {candidate.lost_vases} of"
        f" {len({scored.vases[name] for name in scored.values})} vases are lost"
    )
