"""Report on the training steps, with charts of loss and reward, the rows that were left out, and checks of merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa import files
from vasevqa.dataset.report import DatasetReport
from vasevqa.report.charts import Chart, Measured, chart
from vasevqa.report.quality import read_json
from vasevqa.report.rewards import Combined, Completion
from vasevqa.training.swift.log import LogRow, read_log
from vasevqa.training.trained_rows import DROPPED

LOG = "training/logging.jsonl"
SUMMARY = "training_summary.json"
SIGNAL = "share of groups without a signal (all answers have the same reward)"
CUT = "share of answers cut at max_completion_length"
CHARTS: dict[str, tuple[tuple[str, str, dict[str, str]], ...]] = {  # step -> (title, unit, {log key: name})
    "sft": (
        ("Loss", "nats per token", {"loss": "training loss", "eval_loss": "validation loss"}),
        ("Right tokens", "share", {"token_acc": "training", "eval_token_acc": "validation"}),
        ("Learning rate", "size of a step", {"learning_rate": "learning rate"}),
    ),
    "grpo": (
        ("Reward", "points", {"reward": "mean reward"}),
        ("Spread of rewards", "points", {"reward_std": "spread of rewards in a group"}),
        ("Groups without a signal", "share", {"frac_reward_zero_std": SIGNAL}),
        ("Answers cut", "share", {"completions/clipped_ratio": CUT}),
        ("Length of answers", "tokens", {"completions/mean_length": "length of an answer in tokens"}),
        ("Distance from the model before GRPO", "nats", {"kl": "KL divergence"}),
        ("Learning rate", "size of a step", {"learning_rate": "learning rate"}),
    ),
}


@dataclass(frozen=True)
class Curves:
    """The charts of one training."""

    step: str
    charts: tuple[Chart, ...]


def logs(artifacts: Mapping[str, Path]) -> dict[str, list[LogRow]]:
    """Return the rows of the log of each training."""
    return {step: read_log(artifacts[step] / LOG) for step in CHARTS if step in artifacts}


def curves(
    artifacts: Mapping[str, Path],
    logged: Mapping[str, Sequence[LogRow]],
    answers: Sequence[Completion],
    rewards: Combined,
) -> list[Curves]:
    """Return the charts of sft and of grpo. `answers` are the answers that GRPO sampled.

    The title of the chart of the total reward contains the formula of `rewards`.
    """
    found = []
    for step, log in logged.items():
        resumed = _resumed(artifacts[step])
        drawn = []
        for title, unit, keys in CHARTS[step]:
            whole = f"{title}: {rewards.formula}" if "reward" in keys and rewards.formula else title
            drawn.append(chart(whole, unit, {name: _series(log, key) for key, name in keys.items()}, resumed))
        if step == "grpo":
            apart = {name: _series(log, f"rewards/{name}/mean") for name in rewards.names}
            drawn[1:1] = [
                chart("Rewards apart, without weights", "points", apart, resumed) if len(apart) > 1 else None,
                chart("Reward by attribute", "points", _attributes(answers), resumed),
            ]
        charts = tuple(one for one in drawn if one is not None)
        if charts:
            found.append(Curves(step, charts))
    return found


def _series(log: Sequence[LogRow], key: str) -> Measured:
    return [(row["step"], float(row[key])) for row in log if isinstance(row.get(key), int | float)]


def _resumed(artifact: Path) -> list[int]:
    """Return the steps of the checkpoints from which a training was resumed."""
    attempts = read_json(artifact / SUMMARY).get("attempts", [])
    begun = [attempt.get("from_step") for attempt in attempts if isinstance(attempt, dict)]
    return [step for step in begun if isinstance(step, int) and step > 0]


def _attributes(answers: Sequence[Completion]) -> dict[str, Measured]:
    """Return attribute -> [(training step, mean reward)], only for steps with questions about the attribute."""
    found: dict[str, dict[int, list[float]]] = {}
    for one in answers:
        if str(one.step).isdecimal():
            found.setdefault(one.attribute, {}).setdefault(int(one.step), []).append(one.reward)
    return {
        name: [(step, sum(rewards) / len(rewards)) for step, rewards in sorted(by_step.items())]
        for name, by_step in sorted(found.items())
    }


@dataclass(frozen=True)
class LeftOutRows:
    """The rows that a training left out of a file, because these rows were too long or broken.

    `count` is the number of rows that were left out. `rows` is the number of all rows in the file; None if it is not
    known.
    """

    step: str
    file: str
    rows: int | None
    count: int
    too_long: int
    example: str  # line number of the first such row, and the reason


def left_out(artifacts: Mapping[str, Path], dataset: DatasetReport | None = None) -> list[LeftOutRows]:
    """Return the rows that the trainings left out, with one entry per training and file.

    `dataset` is the report that contains the number of all rows in each file.
    """
    every = dataset.rows if dataset is not None else {}
    found = []
    for step in ("sft", "grpo"):
        path = artifacts[step] / DROPPED if step in artifacts else None
        if path is None or not path.is_file():
            continue
        table = list(files.read_table(path))
        for file in dict.fromkeys(row["file"] for row in table):
            rows = [row for row in table if row["file"] == file]
            too_long = sum(bool(row["length"]) for row in rows)
            example = f"line {rows[0]['line']}: {rows[0]['why']}"
            found.append(LeftOutRows(step, file, every.get(Path(file).stem), len(rows), too_long, example))
    return found


@dataclass(frozen=True)
class MergeRow:
    """The check of one merge. It compares the merged model with the unmerged model: the base model plus the adapter.

    `agreement` is the share of tokens after which the two models predict the same next token. `max_difference` is the
    largest difference between the logits of the two models.
    """

    step: str
    checkpoint: str
    torch_dtype: str
    agreement: float
    max_difference: float


def merges(artifacts: Mapping[str, Path]) -> list[MergeRow]:
    """Return the figures of each merge that has a report."""
    rows = []
    for step in ("merge-sft", "merge-grpo"):
        report = read_json(artifacts[step] / "merge_report.json") if step in artifacts else {}
        if "agreement" in report:
            told = {name: str(report.get(name, "")) for name in ("checkpoint", "torch_dtype")}
            rows.append(MergeRow(step, **told, agreement=report["agreement"], max_difference=report["max_difference"]))
    return rows
