"""Report on the rewards of GRPO: how they are combined, and which rewards the answers got during the training."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.dataset.asked import attribute_of
from vasevqa.dataset.questions import Questions
from vasevqa.report.provenance import Record
from vasevqa.text import IMAGE_TAG, byte_size, cut
from vasevqa.training.swift.log import LogRow

SAMPLES = 12
MOST_QUESTION, MOST_ANSWER = 200, 400  # maximum number of characters that are shown
MAX_BYTES = 64 << 20  # larger files of completions are not read
OTHER = "other questions"  # the group of answers whose attribute is not known
NO_REWARDS = ("step", "advantages", "entropy", "num_turns", "solution")  # columns of numbers that are not rewards
_MEAN = re.compile(r"rewards/(.+)/mean")


@dataclass(frozen=True)
class Combined:
    """The reward functions of a training in their order, with their weights.

    `weights` is None if the weights are not known.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...] | None

    @property
    def formula(self) -> str:
        """The reward as a formula, such as '0.7 × accuracy + 0.3 × format'; '' without a reward."""
        if self.weights is None:
            return f"sum of {' and '.join(self.names)}; the weights are not recorded"
        parts = [
            name if weight == 1 else f"{weight:g} × {name}"
            for name, weight in zip(self.names, self.weights, strict=True)
        ]
        return " + ".join(parts) + (", each with weight 1" if len(parts) > 1 and set(self.weights) == {1.0} else "")

    def total(self, given: Mapping[str, float]) -> float:
        """Return the weighted sum of the rewards that apply to an answer. A reward that doesn't apply is NaN."""
        weights = dict(zip(self.names, self.weights or (), strict=False))
        return sum(weights.get(name, 1.0) * value for name, value in given.items() if not math.isnan(value))


def combined(log: Sequence[LogRow], record: Record | None) -> Combined:
    """Return how a training combined its rewards, from its log and from the parameters in its record.

    The log of ms-swift names each reward after a Python class, in the order of the parameter `reward_funcs`.
    """
    names = tuple(dict.fromkeys(match[1] for row in log for key in row if (match := _MEAN.fullmatch(key))))
    asked = record.params if record is not None else {}
    functions, weights = asked.get("reward_funcs"), asked.get("reward_weights")
    if not isinstance(functions, list) or len(functions) != len(names):
        return Combined(names, (1.0,) if len(names) == 1 and not weights else None if names else ())
    return Combined(names, tuple(map(float, weights)) if weights else (1.0,) * len(names))


@dataclass(frozen=True)
class Completion:
    """One answer of the model during the training: its training step, question, truth, and rewards as text.

    `reward` is the weighted sum of the rewards.
    """

    step: int | str
    question: str
    truth: str
    answer: str
    rewards: str
    reward: float = 0.0
    attribute: str = OTHER


def some(answers: list[Completion]) -> list[Completion]:
    """Return at most SAMPLES answers: half from the beginning and half from the end of GRPO."""
    return answers if len(answers) <= SAMPLES else answers[: SAMPLES // 2] + answers[-SAMPLES // 2 :]


@dataclass(frozen=True)
class AttributeReward:
    """The mean reward of the answers about one attribute, in the first and in the second half of GRPO."""

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


def completions(artifacts: Mapping[str, Path], rewards: Combined, questions: Questions) -> list[Completion]:
    """Return the answers of GRPO with their rewards, in the order of the training.

    `questions` are the questions of the dataset. They are used to find the attribute of an answer.
    """
    path = _file(artifacts)
    if path is None or path.stat().st_size > MAX_BYTES:
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            batch = json.loads(line)
            columns = {
                name: values
                for name, values in batch.items()
                if isinstance(values, list) and len(values) == len(batch["completion"])
            }
        except (ValueError, KeyError, TypeError):
            continue
        names = _rewards(columns, rewards)
        found += [
            _completion(columns, number, names, rewards, questions.ask) for number in range(len(columns["completion"]))
        ]
    return found


def too_large(artifacts: Mapping[str, Path]) -> str:
    """Return a sentence if the file of the answers is too large for a report; otherwise ''."""
    path = _file(artifacts)
    if path is None or path.stat().st_size <= MAX_BYTES:
        return ""
    return (
        f"No answers of GRPO are shown: {path.name} in the step's training/ has {byte_size(path.stat().st_size)}, and a"
        f" report reads at most {byte_size(MAX_BYTES)}."
    )


def _file(artifacts: Mapping[str, Path]) -> Path | None:
    path = artifacts["grpo"] / "training/completions.jsonl" if "grpo" in artifacts else None
    return path if path is not None and path.is_file() else None


def _rewards(columns: Mapping[str, list[Any]], rewards: Combined) -> list[str]:
    """Return the names of the columns that hold rewards.

    These are the columns that the training's log names. If the log names none of the columns, the result is all columns
    of numbers except NO_REWARDS.
    """
    numbers = [
        name
        for name, values in columns.items()
        if all(value is None or isinstance(value, int | float) for value in values)
    ]
    return [name for name in rewards.names if name in numbers] or [name for name in numbers if name not in NO_REWARDS]


def _completion(
    columns: Mapping[str, list[Any]],
    number: int,
    names: Sequence[str],
    rewards: Combined,
    ask: Mapping[str, tuple[str, ...]],
) -> Completion:
    values = {name: math.nan if columns[name][number] is None else float(columns[name][number]) for name in names}
    question = _question(str(columns["prompt"][number])) if "prompt" in columns else ""
    return Completion(
        step=columns["step"][number] if "step" in columns else "",
        question=cut(question, MOST_QUESTION),
        attribute=attribute_of(question, ask) or OTHER,
        truth=columns["solution"][number] if "solution" in columns else "",
        answer=cut(str(columns["completion"][number]), MOST_ANSWER),
        rewards=", ".join(f"{name} {'-' if math.isnan(value) else f'{value:.2f}'}" for name, value in values.items()),
        reward=rewards.total(values),
    )


def _question(prompt: str) -> str:
    """Return the last user turn of a prompt in Qwen's chat markup, without image tags."""
    turn = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return turn.replace(IMAGE_TAG, "").strip()
