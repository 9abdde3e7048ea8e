"""Report on the training steps: curves of loss and reward, sampled answers, evaluation and merges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vasevqa.evaluation.comparison import metrics_of
from vasevqa.evaluation.figures import Metric
from vasevqa.report.quality import read_json
from vasevqa.text import IMAGE_TAG
from vasevqa.training.swift.log import read_log

WIDTH, HEIGHT, PADDING = 720, 160, 6  # size of a plot, in SVG units
POINTS = 400
SAMPLES = 12
MAX_BYTES = 64 << 20  # larger files of completions are not read


@dataclass(frozen=True)
class Curve:
    """One measured series over the training steps; `points` is an SVG polyline."""

    title: str
    points: str
    first: float
    last: float
    low: float
    high: float
    steps: int
    width: int = WIDTH
    height: int = HEIGHT


def curve(title: str, measured: list[tuple[float, float]]) -> Curve | None:
    """Return a series of (step, value) as a curve of about POINTS points; None for fewer than two points."""
    if len(measured) < 2:
        return None
    every = -(-len(measured) // POINTS)
    shown = measured[::every] if measured[-1] == measured[::every][-1] else [*measured[::every], measured[-1]]
    values = [value for _, value in shown]
    low, high, begin, end = min(values), max(values), shown[0][0], shown[-1][0]
    across, up = (WIDTH - 2 * PADDING) / max(end - begin, 1), (HEIGHT - 2 * PADDING) / ((high - low) or 1.0)
    points = " ".join(
        f"{PADDING + (step - begin) * across:.1f},{HEIGHT - PADDING - (value - low) * up:.1f}" for step, value in shown
    )
    return Curve(title, points, values[0], values[-1], low, high, int(end))


SERIES = (
    ("loss", "sft", "training loss"),
    ("eval_loss", "sft", "validation loss"),
    ("reward", "grpo", "reward"),
    ("reward_std", "grpo", "spread of rewards in a group"),
)


def curves(artifacts: Mapping[str, Path]) -> list[Curve]:
    """Return the loss curves of sft and the reward curves of grpo."""
    logs = {step: read_log(artifacts[step] / "training/logging.jsonl") for step in ("sft", "grpo") if step in artifacts}
    drawn = []
    for key, step, title in SERIES:
        measured = [
            (row["step"], float(row[key])) for row in logs.get(step, []) if isinstance(row.get(key), int | float)
        ]
        drawn.append(curve(f"{step}: {title}", measured))
    return [one for one in drawn if one is not None]


@dataclass(frozen=True)
class Completion:
    """One answer that the model tried: its training step, question, truth, and rewards as text."""

    step: int | str
    question: str
    truth: str
    answer: str
    rewards: str


def completions(artifacts: Mapping[str, Path]) -> list[Completion]:
    """Return answers of the model during GRPO with their rewards, some from the beginning and some from the end."""
    path = artifacts["grpo"] / "training/completions.jsonl" if "grpo" in artifacts else None
    if path is None or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return []
    samples = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            batch = json.loads(line)
            columns = {
                name: values
                for name, values in batch.items()
                if isinstance(values, list) and len(values) == len(batch["completion"])
            }
        except (ValueError, KeyError, TypeError):
            continue
        rewards = [
            name
            for name, values in columns.items()
            if name != "advantages" and all(isinstance(value, int | float) for value in values)
        ]
        for number, answer in enumerate(columns["completion"]):
            samples.append(
                Completion(
                    step=columns["step"][number] if "step" in columns else "",
                    question=_question(str(columns["prompt"][number])) if "prompt" in columns else "",
                    truth=columns["solution"][number] if "solution" in columns else "",
                    answer=str(answer)[:400],
                    rewards=", ".join(f"{name} {columns[name][number]:.2f}" for name in rewards),
                )
            )
    return samples if len(samples) <= SAMPLES else samples[: SAMPLES // 2] + samples[-SAMPLES // 2 :]


def _question(prompt: str) -> str:
    """Return the last user turn of a prompt in Qwen's chat markup, without image tags; at most 200 characters."""
    turn = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return turn.replace(IMAGE_TAG, "").strip()[:200]


@dataclass(frozen=True)
class EvaluationTable:
    """The metrics of all models: a row has a metric and one cell for each model.

    `missing` has the metrics that were not available and the reasons, `same` the models that equal another one.
    """

    models: list[str]
    rows: list[tuple[str, list[str]]]
    missing: list[tuple[str, str]]
    same: list[tuple[str, str]]
    samples: int | None


def evaluated(artifacts: Mapping[str, Path]) -> EvaluationTable:
    """Return the metrics of all models as a table; an empty one without an evaluation."""
    found = read_json(artifacts["evaluate"] / "evaluation.json") if "evaluate" in artifacts else {}
    models = found.get("models", {})
    tables = {name: dict(metrics_of(model)) for name, model in models.items()}
    names = list(dict.fromkeys(metric for flat in tables.values() for metric in flat))
    missing = {
        metric: flat[metric]["reason"]
        for metric in names
        for flat in tables.values()
        if metric in flat and flat[metric].get("value") is None
    }
    rows = [
        (metric, [_measured(flat.get(metric)) for flat in tables.values()]) for metric in names if metric not in missing
    ]
    return EvaluationTable(
        models=list(models),
        rows=rows,
        missing=sorted(missing.items()),
        same=sorted(found.get("same", {}).items()),
        samples=found.get("samples"),
    )


def _measured(metric: Metric | None) -> str:
    if metric is None:
        return ""
    low_high = metric.get("interval")
    return f"{metric['value']:.3f}" + (f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else "")


@dataclass(frozen=True)
class MergeRow:
    """The figures of one merge: part of equal first choices, and the greatest difference of a logit."""

    step: str
    checkpoint: str
    torch_dtype: str
    agreement: float
    max_difference: float


def merges(artifacts: Mapping[str, Path]) -> list[MergeRow]:
    """Return the measurements of each merge that has a report."""
    found = []
    for step in ("merge-sft", "merge-grpo"):
        report = read_json(artifacts[step] / "merge_report.json") if step in artifacts else {}
        if "agreement" in report:
            names = ("checkpoint", "torch_dtype", "agreement", "max_difference")
            found.append(MergeRow(step, *(report[name] for name in names)))
    return found
