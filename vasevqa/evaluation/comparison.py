"""Compare models in a Markdown table and a plot."""

from __future__ import annotations

import io
from collections.abc import Iterator

from vasevqa.evaluation.figures import Evaluation, Metric, ModelEvaluation
from vasevqa.statistics import FEWEST

# Each row: a figure of VaseVQA-3D's own comparison (vasevqa.evaluation.original), how it is computed, and how the
# corresponding metric in the main table differs.
DIFFERENCES = (
    ("clip_score", "CLIP, caption against reference caption", "clip_similarity: the same, with an interval by vase"),
    ("semantic_similarity", "CLIP again: the same number as clip_score", "semantic_similarity: by a sentence model"),
    (
        "fid_score",
        "sentence model; for any number of captions, with 1e-6 added to each variance",
        "frechet_distance: not available for fewer captions than dimensions",
    ),
    (
        "r_at_k",
        "finds the reference caption; each caption is a target, and ties are broken by order",
        "recall_at_k: finds the vase's picture, if there are pictures; each vase is one target, and ties count in part",
    ),
    (
        "lexical_similarity",
        "words are split at spaces: `kylix.` differs from `kylix`",
        "lexical_similarity: without punctuation",
    ),
    ("overall_score", "a figure that is not available counts as 0", "overall: not available if a part is missing"),
    (
        "pairs",
        "captions and references are paired by the first two parts of the first picture's name; of several references"
        " with these two parts, the last one is used",
        "captions and references are paired by the names of all pictures, or by the row; doubled captions are listed",
    ),
)


def metrics_of(model: ModelEvaluation) -> Iterator[tuple[str, Metric]]:
    """Yield (name in tables, metric) for each metric of a model in evaluation.json."""
    if "rewards" in model:
        yield "mean reward", model["rewards"]
    if "common_rewards" in model:
        yield "mean reward on common rows", model["common_rewards"]
    for attribute, measured in model.get("attributes", {}).items():
        for name, metric in measured.items():
            yield f"{attribute}: {name.replace('_', ' ')}", metric
    for name, metric in model.get("captions", {}).items():
        yield f"captions: {name.replace('_', ' ')}", metric


def columns_of(evaluation: Evaluation) -> dict[str, dict[str, Metric]]:
    """Return the metrics of each model and each baseline, by the names of models and metrics. Models come first."""
    columns = {**evaluation.get("models", {}), **evaluation.get("baselines", {})}
    return {name: dict(metrics_of(column)) for name, column in columns.items()}


def comparison(evaluation: Evaluation) -> str:
    """Return the text of comparison.md.

    The text has a table with a row for each metric and a column for each model and baseline. Below the table, it lists
    the differences between the models and how certain these differences are.
    """
    tables = columns_of(evaluation)
    rows = list(dict.fromkeys(row for table in tables.values() for row in table))
    of_vases = f" of {evaluation['vases']} vases" if "vases" in evaluation else ""
    lines = [
        "# Evaluation",
        "",
        f"{evaluation['samples']} held-out rows{of_vases}; 95% intervals by vase in brackets.",
        "",
    ]
    lines += ["| metric | " + " | ".join(tables) + " | vases | rows | chance |", "|---" * (len(tables) + 4) + "|"]
    reasons: dict[str, str] = {}
    for row in rows:
        known = [table[row] for table in tables.values() if row in table]
        lacking = {name: table[row] for name, table in tables.items() if row in table and _lacks(table[row])}
        if lacking:
            names = "" if len(lacking) == len(known) else f" ({', '.join(lacking)})"
            reasons[row + names] = "; ".join(dict.fromkeys(metric.get("reason", "") for metric in lacking.values()))
        cells = [_cell(table.get(row)) for table in tables.values()]
        # If some models lack the metric, the counts come from the first model that has the metric.
        some = next((metric for metric in known if not _lacks(metric)), known[0])
        chance = some.get("chance")
        counts = [str(some.get("vases", "")), str(some.get("samples", ""))]
        counts.append(f"{chance:.3f}" if chance is not None else "")
        lines.append("| " + " | ".join([row, *cells, *counts]) + " |")
    lines += _shown(evaluation)
    if any("no_interval" in metric for table in tables.values() for metric in table.values()):
        lines += ["", f"With fewer than {FEWEST} vases there is no interval."]
    if reasons:
        lines += ["", "Not available:", "", *(f"- {row}: {reason}." for row, reason in reasons.items())]
    retrieval = (metric for table in tables.values() for metric in table.values() if "query" in metric)
    recall = next(retrieval, None)
    if recall is not None:
        lines += ["", f"Retrieval: the query is the {recall['query']}, the target is the {recall['target']}."]
    if "mean reward on common rows" in rows:
        lines += ["", "Common rows: the rows that all models and all baselines answered."]
    for name, twin in evaluation["same"].items():
        lines += ["", f"{name} is the same model as {twin}: the step of {name} was skipped."]
    lines += _confidence(evaluation)
    lines += _original(evaluation)
    return "\n".join(lines) + "\n"


def _shown(evaluation: Evaluation) -> list[str]:
    """Return the lines about differences between models and about baselines."""
    lines = []
    pairs = evaluation.get("pairs", [])
    if pairs:
        shown = [pair for pair in pairs if not pair["attribute"] or pair["shown"]]
        lines += ["", "Differences in reward on the same rows:", "", *(f"- {pair['sentence']}." for pair in shown)]
        hidden = len(pairs) - len(shown)
        if hidden:
            lines.append(
                f"- {hidden} differences by attribute are not significant"
                " (after Holm's correction for several comparisons)."
            )
    about = evaluation.get("about_baselines", {})
    if about:
        lines += ["", "Baselines:", "", *(f"- {name}: {text}." for name, text in about.items())]
    return lines


def _confidence(evaluation: Evaluation) -> list[str]:
    """Return the section of comparison.md that compares each model's confidence with its share of right answers.

    Return [] if no model has figures of confidence.
    """
    rows = [
        (model, kind, name, one)
        for model, measured in evaluation["models"].items()
        for kind, table in (
            ("probability", measured.get("confidence", {}).get("probability", {})),
            ("agreement", measured.get("confidence", {}).get("agreement", {})),
        )
        for name, one in table.items()
    ]
    if not rows:
        return []
    lines = ["", "## Confidence of the models", ""]
    lines += ["If confidence - right is above 0, the model is overconfident. ECE: expected calibration error.", ""]
    lines += ["| model | confidence by | answers | confidence | right | confidence - right | ECE | vases | rows |"]
    lines += ["|---" * 9 + "|"]
    for model, kind, name, one in rows:
        difference = one["difference"]
        interval = difference.get("interval")
        told = f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else " (too few)"
        figures = [f"{one['confidence']:.3f}", f"{one['right']:.3f}", f"{difference['value']:+.3f}{told}"]
        counts = [f"{one['ece']:.3f}", str(difference["vases"]), str(difference["samples"])]
        lines.append("| " + " | ".join([model, kind, name, *figures, *counts]) + " |")
    return lines


def _original(evaluation: Evaluation) -> list[str]:
    """Return the section with the figures by VaseVQA-3D's rules, and a table of how this package's metrics differ.

    Return [] if no model has such figures.
    """
    models = {name: model["original"] for name, model in evaluation["models"].items() if model.get("original")}
    if not models:
        return []
    names = list(dict.fromkeys(name for measured in models.values() for name in measured))
    lines = ["", "## Figures by VaseVQA-3D's rules", ""]
    lines += ["Figures of captions by the rules of the original's eval/compare.py, without intervals.", ""]
    lines += ["| figure | " + " | ".join(models) + " | captions |", "|---" * (len(models) + 2) + "|"]
    for name in names:
        known = [measured[name] for measured in models.values()]
        lines.append("| " + " | ".join([name, *map(_cell, known), str(known[0].get("samples", ""))]) + " |")
    lines += ["", "What differs:", "", "| figure | the original | the table above |", "|---|---|---|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in DIFFERENCES)]


def _lacks(metric: Metric) -> bool:
    return metric.get("value") is None


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return ""
    if _lacks(metric):
        return "n/a"
    low_high = metric.get("interval")
    if low_high:
        return f"{metric['value']:.3f} [{low_high[0]:.3f}, {low_high[1]:.3f}]"
    return f"{metric['value']:.3f}" + (" (too few)" if "no_interval" in metric else "")


def plot(evaluation: Evaluation) -> bytes:
    """Return the bytes of comparison.png.

    The plot has a bar for each metric in [0, 1] of each model and baseline, with the metric's interval if it is known.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    tables = {
        name: {row: metric for row, metric in table.items() if metric.get("value") is not None and "frechet" not in row}
        for name, table in columns_of(evaluation).items()
    }
    rows = list(dict.fromkeys(row for table in tables.values() for row in table))
    height = 0.8 / max(1, len(tables))
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.32 * len(rows)), layout="constrained")
    for index, (name, table) in enumerate(tables.items()):
        for number, row in enumerate(rows):
            value, low_high = table.get(row, {}).get("value"), table.get(row, {}).get("interval")
            if value is None:
                continue
            error = [[max(0.0, value - low_high[0])], [max(0.0, low_high[1] - value)]] if low_high else None
            axes.barh(
                number + index * height,
                value,
                height,
                xerr=error,
                color=f"C{index}",
                label=name if number == 0 else None,
                error_kw={"lw": 0.8},
            )
    axes.set_yticks([number + 0.4 - height / 2 for number in range(len(rows))], rows, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"{evaluation['samples']} held-out rows, 95% intervals by vase", fontsize=8)
    if tables:
        axes.legend(fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return stream.getvalue()
