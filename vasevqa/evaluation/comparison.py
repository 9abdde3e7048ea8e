"""Models side by side: a table in Markdown and a plot."""

from __future__ import annotations

import io
from collections.abc import Iterator

from vasevqa.evaluation.figures import Evaluation, Metric, ModelEvaluation


def metrics_of(model: ModelEvaluation) -> Iterator[tuple[str, Metric]]:
    """Every metric of a model in evaluation.json, by the name that tables give it."""
    if "rewards" in model:
        yield "mean reward", model["rewards"]
    for attribute, measured in model.get("attributes", {}).items():
        for name, metric in measured.items():
            yield f"{attribute}: {name.replace('_', ' ')}", metric
    for name, metric in model.get("captions", {}).items():
        yield f"captions: {name.replace('_', ' ')}", metric


def comparison(found: Evaluation) -> str:
    """comparison.md: a row a metric, a column a model, 95% intervals in brackets, and why a metric is missing."""
    models = found["models"]
    tables = {name: dict(metrics_of(model)) for name, model in models.items()}
    rows = list(dict.fromkeys(row for table in tables.values() for row in table))
    lines = ["# Evaluation", "", f"{found['samples']} held-out samples; 95% bootstrap intervals in brackets.", ""]
    lines += ["| metric | " + " | ".join(models) + " | samples | chance |", "|---" * (len(models) + 3) + "|"]
    reasons: dict[str, str] = {}
    for row in rows:
        cells = []
        for name in models:
            metric = tables[name].get(row)
            if metric is not None and metric.get("value") is None:
                reasons[row] = metric.get("reason", "")
            cells.append(_cell(metric))
        some = next(table[row] for table in tables.values() if row in table)
        chance = some.get("chance")
        lines.append(
            f"| {row} | "
            + " | ".join(cells)
            + f" | {some.get('samples', '')} | {f'{chance:.3f}' if chance is not None else ''} |"
        )
    if reasons:
        lines += ["", "Not available:", "", *(f"- {row}: {reason}." for row, reason in reasons.items())]
    recall = next(
        (
            metric
            for table in tables.values()
            for row, metric in table.items()
            if "recall at" in row and "query" in metric
        ),
        None,
    )
    if recall is not None:
        lines += ["", f"Retrieval: the query is the {recall['query']}, the target is the {recall['target']}."]
    for name, twin in found["same"].items():
        lines += ["", f"{name} is the same model as {twin}: its step was skipped."]
    return "\n".join(lines) + "\n"


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return ""
    if metric.get("value") is None:
        return "n/a"
    low_high = metric.get("interval")
    return f"{metric['value']:.3f}" + (f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else "")


def plot(found: Evaluation) -> bytes:
    """comparison.png: every metric in [0, 1] as bars with their intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    tables = {
        name: {
            row: metric for row, metric in metrics_of(model) if metric.get("value") is not None and "frechet" not in row
        }
        for name, model in found["models"].items()
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
    axes.set_xlabel(f"{found['samples']} held-out samples, 95% intervals", fontsize=8)
    if tables:
        axes.legend(fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return stream.getvalue()
