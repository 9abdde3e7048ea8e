"""Report on the evaluation with dot plots, sentences about the differences between models, and a table of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vasevqa.evaluation.comparison import columns_of
from vasevqa.evaluation.figures import Evaluation, Metric, Pair
from vasevqa.report.quality import read_json

OVERALL, COMMON, CAPTIONS = "mean reward", "mean reward on common rows", "captions: overall"
SHOWN = (OVERALL, COMMON, CAPTIONS)  # plotted in addition to the reward of each attribute
REWARD = ": reward"
UNTESTED = {  # the note on a plot whose differences evaluate doesn't test
    COMMON: "Differences between models are tested on all rows, not on these",
    CAPTIONS: "Differences between models in this metric are not tested",
}


@dataclass(frozen=True)
class Dot:
    """A model's value of a metric, with its 95% interval. Positions are in percent of an axis that runs from 0 to 1."""

    name: str
    kind: str  # model, baseline
    at: float
    left: float
    width: float | None  # None without an interval
    text: str


@dataclass(frozen=True)
class Plot:
    """The dots of one metric, and sentences about the differences between models.

    `chance` is the expected value for random guesses.
    """

    title: str
    dots: tuple[Dot, ...]
    chance: float | None  # in percent
    sentences: tuple[str, ...]
    counts: str


@dataclass(frozen=True)
class MetricRow:
    """A metric with one cell for each model and baseline, and with the numbers of rows and vases.

    `chance` is the expected value for random guesses.
    """

    name: str
    cells: tuple[str, ...]
    counts: str
    chance: str


@dataclass(frozen=True)
class EvaluationTable:
    """The metrics of all models and baselines.

    `plots` shows the most important metrics. `rows` shows all metrics that at least one model or baseline has.
    `missing` holds the remaining metrics, each with the reason. `same` holds pairs of identical models.

    The models are compared in each attribute. `hidden` counts the comparisons without a significant difference, and
    `untested` counts the comparisons with too few vases for a test. `few` is true if a metric has too few vases for an
    interval. `overall` holds the sentences about the differences over all rows, if no plot shows these sentences.
    """

    models: list[str]
    plots: list[Plot]
    rows: list[MetricRow]
    missing: list[tuple[str, str]]
    same: list[tuple[str, str]]
    samples: int | None
    vases: int | None
    baselines: list[tuple[str, str]]
    hidden: int
    untested: int
    few: bool
    overall: tuple[str, ...]


def evaluation_of(artifacts: Mapping[str, Path]) -> Evaluation:
    """Return the content of evaluation.json; {} without an evaluation."""
    return cast(Evaluation, read_json(artifacts["evaluate"] / "evaluation.json") if "evaluate" in artifacts else {})


def evaluated(evaluation: Evaluation) -> EvaluationTable:
    """Return the tables and plots of an evaluation; they are empty without an evaluation."""
    tables = columns_of(evaluation)
    names = list(dict.fromkeys(metric for flat in tables.values() for metric in flat))
    known = [metric for metric in names if any(_known(flat.get(metric)) for flat in tables.values())]
    reasons = ((metric, flat[metric].get("reason", "")) for flat in tables.values() for metric in flat)
    missing = {metric: why for metric, why in reasons if metric not in known}
    pairs = evaluation.get("pairs", [])
    return EvaluationTable(
        models=list(tables),
        plots=[_plot(metric, evaluation) for metric in known if metric in SHOWN or metric.endswith(REWARD)],
        rows=[_row(metric, tables) for metric in known],
        missing=sorted(missing.items()),
        same=sorted(evaluation.get("same", {}).items()),
        samples=evaluation.get("samples"),
        vases=evaluation.get("vases"),
        baselines=sorted(evaluation.get("about_baselines", {}).items()),
        hidden=sum(not pair["shown"] and not _untested(pair) for pair in pairs if pair["attribute"]),
        untested=sum(_untested(pair) for pair in pairs if pair["attribute"]),
        few=any("no_interval" in metric for flat in tables.values() for metric in flat.values()),
        overall=() if OVERALL in known else _sentences("", OVERALL, pairs, len(evaluation.get("models", {}))),
    )


def _row(metric: str, tables: Mapping[str, Mapping[str, Metric]]) -> MetricRow:
    found = _found(metric, tables)
    chance = _chance(found)
    cells = tuple(_measured(flat.get(metric)) for flat in tables.values())
    return MetricRow(metric, cells, _counts(found), "" if chance is None else f"{chance:.3f}")


def _found(metric: str, tables: Mapping[str, Mapping[str, Metric]]) -> dict[str, Metric]:
    return {name: flat[metric] for name, flat in tables.items() if _known(flat.get(metric))}


def _chance(found: Mapping[str, Metric]) -> float | None:
    return next((one["chance"] for one in found.values() if one.get("chance") is not None), None)


def _plot(metric: str, evaluation: Evaluation) -> Plot:
    baselines = evaluation.get("baselines", {})
    found = _found(metric, columns_of(evaluation))
    chance = _chance(found)
    attribute = metric.removesuffix(REWARD) if metric.endswith(REWARD) else ""
    return Plot(
        title=f"{attribute}: mean reward" if attribute else metric,
        dots=tuple(_dot(name, "baseline" if name in baselines else "model", one) for name, one in found.items()),
        chance=None if chance is None else _percent(chance),
        sentences=_sentences(attribute, metric, evaluation.get("pairs", []), len(found.keys() - baselines.keys())),
        counts=_counts(found),
    )


def _counts(found: Mapping[str, Metric]) -> str:
    """Return a text with the numbers of rows and vases. If these differ between models, the text lists each model."""
    counts = {}
    for name, one in found.items():
        parts = [f"{one['samples']:,} rows"] if "samples" in one else []
        parts += [f"{one['vases']:,} vases"] if "vases" in one else []
        counts[name] = " of ".join(parts)
    if len(set(counts.values())) == 1:
        return next(iter(counts.values()))
    return "; ".join(f"{name}: {told or 'number of rows not known'}" for name, told in counts.items())


def _sentences(attribute: str, metric: str, pairs: list[Pair], models: int) -> tuple[str, ...]:
    """Return the sentences that are shown beside the plot of a metric. The plot shows `models` models.

    If `attribute` is empty, the sentences are about all differences over all rows. Otherwise they are about the
    significant differences in this attribute. A metric in UNTESTED is plotted without tests. If
    its plot shows several models, the only sentence says that their differences are not tested. With one model, there
    is no sentence.
    """
    if metric in UNTESTED:
        return (UNTESTED[metric],) if models > 1 else ()
    ours = [pair for pair in pairs if pair["attribute"] == attribute and (pair["shown"] or not attribute)]
    return tuple(pair["sentence"].removeprefix(f"{attribute}: ") for pair in ours)


def _untested(pair: Pair) -> bool:
    return pair.get("interval", ()) is None


def _dot(name: str, kind: str, metric: Metric) -> Dot:
    low_high = metric.get("interval")
    left, right = (_percent(low_high[0]), _percent(low_high[1])) if low_high else (0.0, 0.0)
    at = _percent(metric["value"] or 0.0)
    return Dot(name, kind, at, left, round(right - left, 2) if low_high else None, _measured(metric))


def _percent(value: float) -> float:
    return round(100 * min(1.0, max(0.0, value)), 2)


def _known(metric: Metric | None) -> bool:
    return metric is not None and metric.get("value") is not None


def _measured(metric: Metric | None) -> str:
    if metric is None:
        return "-"
    if metric.get("value") is None:
        return f"- ({metric['reason']})" if metric.get("reason") else "-"
    low_high = metric.get("interval")
    if low_high:
        return f"{metric['value']:.3f} [{low_high[0]:.3f}, {low_high[1]:.3f}]"
    return f"{metric['value']:.3f}" + (" (too few)" if "no_interval" in metric else "")
