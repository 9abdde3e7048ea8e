"""Report on the training steps: charts of loss and reward, sampled answers, rows left out, and merges."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa import files
from vasevqa.dataset.asked import attribute_of
from vasevqa.dataset.questions import load_questions
from vasevqa.report.charts import Chart, Measured, chart
from vasevqa.report.quality import read_json
from vasevqa.text import IMAGE_TAG
from vasevqa.training.swift.log import LogRow, read_log
from vasevqa.training.trained_rows import DROPPED

SAMPLES = 12
MAX_BYTES = 64 << 20  # larger files of completions are not read
OTHER = "other questions"  # in place of an attribute

LOG = "training/logging.jsonl"
SUMMARY = "training_summary.json"
REWARDS = re.compile(r"rewards/(.+)/mean")
SIGNAL = "share of groups without a signal (all answers have the same reward)"
CUT = "share of answers cut at max_completion_length"
CHARTS: dict[str, tuple[tuple[str, str, dict[str, str]], ...]] = {  # step -> title, unit, key in the log -> name
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


def curves(artifacts: Mapping[str, Path], answers: Sequence[Completion]) -> list[Curves]:
    """Return the charts of sft and of grpo. `answers` are the answers that GRPO sampled."""
    found = []
    for step, wanted in CHARTS.items():
        log = read_log(artifacts[step] / LOG) if step in artifacts else []
        resumed = _resumed(artifacts[step]) if step in artifacts else []
        drawn = []
        for title, unit, keys in wanted:
            named = _rewards(log) if "reward" in keys else ""
            drawn.append(chart(title, unit, {name + named: _series(log, key) for key, name in keys.items()}, resumed))
        if step == "grpo":
            drawn[1:1] = [
                chart("Rewards apart", "points", _apart(log), resumed),
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


def _apart(log: Sequence[LogRow]) -> dict[str, Measured]:
    """Return the series of each reward function; nothing for a single function, which is the mean reward."""
    names = _functions(log)
    return {name: _series(log, f"rewards/{name}/mean") for name in names} if len(names) > 1 else {}


def _functions(log: Sequence[LogRow]) -> list[str]:
    return sorted({match[1] for row in log for key in row if (match := REWARDS.fullmatch(key))})


def _rewards(log: Sequence[LogRow]) -> str:
    """Return the names of the reward functions in the log, as the end of a title."""
    names = _functions(log)
    return f" (sum of {' and '.join(names)})" if len(names) > 1 else f" ({names[0]})" if names else ""


def _attributes(answers: Sequence[Completion]) -> dict[str, Measured]:
    """Return the mean reward of each attribute at each training step that asked about it."""
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
    """The number of rows of a file that a training left out. The rows were too long or broken."""

    step: str
    file: str
    count: int
    too_long: int
    example: str  # the first of these rows: its line number and the reason


def left_out(artifacts: Mapping[str, Path]) -> list[LeftOutRows]:
    """Return the rows that the trainings left out, counted by file; [] if no row was left out."""
    found = []
    for step in ("sft", "grpo"):
        path = artifacts[step] / DROPPED if step in artifacts else None
        if path is None or not path.is_file():
            continue
        table = list(files.read_table(path))
        for file in dict.fromkeys(row["file"] for row in table):
            rows = [row for row in table if row["file"] == file]
            too_long = sum(bool(row["length"]) for row in rows)
            found.append(LeftOutRows(step, file, len(rows), too_long, f"line {rows[0]['line']}: {rows[0]['why']}"))
    return found


@dataclass(frozen=True)
class Completion:
    """One answer of the model during the training: its training step, question, truth, and rewards as text.

    `reward` is the sum of the rewards.
    """

    step: int | str
    question: str
    truth: str
    answer: str
    rewards: str
    reward: float = 0.0
    attribute: str = OTHER


def some(answers: list[Completion]) -> list[Completion]:
    """Return some answers from the beginning and from the end of GRPO."""
    return answers if len(answers) <= SAMPLES else answers[: SAMPLES // 2] + answers[-SAMPLES // 2 :]


@dataclass(frozen=True)
class AttributeReward:
    """The mean reward of the answers about an attribute, in the first and in the second half of GRPO."""

    attribute: str
    answers: int
    first: float
    second: float


def by_attribute(answers: Sequence[Completion]) -> list[AttributeReward]:
    """Return the mean rewards of each attribute that has answers in both halves of GRPO."""
    halves: dict[str, tuple[list[float], list[float]]] = {}
    for number, one in enumerate(answers):
        halves.setdefault(one.attribute, ([], []))[2 * number >= len(answers)].append(one.reward)
    return [
        AttributeReward(name, len(first) + len(second), sum(first) / len(first), sum(second) / len(second))
        for name, (first, second) in sorted(halves.items())
        if first and second
    ]


def completions(artifacts: Mapping[str, Path]) -> list[Completion]:
    """Return the answers of GRPO with their rewards, in the order of the training."""
    path = artifacts["grpo"] / "training/completions.jsonl" if "grpo" in artifacts else None
    if path is None or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return []
    ask = load_questions(None).ask
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
            if name not in ("advantages", "step") and all(isinstance(value, int | float) for value in values)
        ]
        for number, answer in enumerate(columns["completion"]):
            question = _question(str(columns["prompt"][number])) if "prompt" in columns else ""
            samples.append(
                Completion(
                    step=columns["step"][number] if "step" in columns else "",
                    question=question,
                    attribute=attribute_of(question, ask) or OTHER,
                    truth=columns["solution"][number] if "solution" in columns else "",
                    answer=str(answer)[:400],
                    rewards=", ".join(f"{name} {columns[name][number]:.2f}" for name in rewards),
                    reward=sum(columns[name][number] for name in rewards),
                )
            )
    return samples


def _question(prompt: str) -> str:
    """Return the last user turn of a prompt in Qwen's chat markup, without image tags; at most 200 characters."""
    turn = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return turn.replace(IMAGE_TAG, "").strip()[:200]


@dataclass(frozen=True)
class MergeRow:
    """The figures of one merge: how often both models choose the same token, and the largest difference of a logit."""

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
            names = ("checkpoint", "torch_dtype", "agreement", "max_difference")
            rows.append(MergeRow(step, *(report[name] for name in names)))
    return rows
