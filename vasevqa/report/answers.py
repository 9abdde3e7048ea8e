"""Show some held-out questions, each with the answers of all models side by side.

The questions are those with the worst answers, those with the most improved answers, and a random sample of the others.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.dataset.row_checks import json_rows
from vasevqa.dataset.rows import FILES
from vasevqa.errors import DataError
from vasevqa.evaluation.figures import Evaluation
from vasevqa.report.sources import Sources
from vasevqa.text import IMAGE_TAG, byte_size, cut

FILE = "answers.csv"
MAX_BYTES = 64 << 20  # a larger file of answers is not read
FEW, SAMPLE = 6, 12  # number of worst and of most improved questions; number of questions in the sample
SEED = 0
MOST = 400  # maximum number of characters of a text
WORST, IMPROVED, DRAWN = "worst answer", "most improved", "sample"
Question = tuple[str, str, str]  # vase, attribute, question


@dataclass(frozen=True)
class ModelAnswer:
    """The answer of one model. `mark` is right, partly right or wrong. It follows from the recorded scores."""

    model: str
    text: str
    mark: str
    reward: float

    @property
    def kind(self) -> str:
        """The mark as a CSS class."""
        return self.mark.split()[0]


@dataclass(frozen=True)
class AnswerCard:
    """A held-out question with its photograph, its true answer and the answers of the models.

    `reasons` says why the card is shown. `gain` is the reward of the last model minus that of the first.
    """

    vase: str
    attribute: str
    question: str
    truth: str
    picture: str | None
    answers: tuple[ModelAnswer, ...]
    reasons: tuple[str, ...]
    reward: float
    gain: float


@dataclass(frozen=True)
class AnswerCards:
    """The cards that are shown, and the number of questions to choose from. `note` says why there are no cards."""

    cards: tuple[AnswerCard, ...]
    count: int
    note: str = ""


@dataclass(frozen=True)
class _Asked:
    """A held-out question, with each model's answer from answers.csv."""

    about: Question
    number: int  # of this question about this vase, if it occurs several times
    truth: str
    answers: Mapping[str, ModelAnswer]


def answer_cards(sources: Sources, evaluation: Evaluation) -> AnswerCards | None:
    """Return the cards; None if no question has recorded answers of both the first and the last model."""
    path = sources.artifacts["evaluate"] / FILE if "evaluate" in sources.artifacts else None
    models = list(evaluation.get("models", {}))
    if path is None or not models or not path.is_file():
        return None
    size = path.stat().st_size
    if size > MAX_BYTES:
        note = f"No answers are shown: {FILE} has {byte_size(size)}, and a report reads at most {byte_size(MAX_BYTES)}."
        return AnswerCards((), 0, note)
    asked = [one for one in _asked(path) if models[0] in one.answers and models[-1] in one.answers]
    if not asked:
        return None
    chosen = _chosen(asked, models[0], models[-1])
    pictures = _Pictures(sources)
    cards = tuple(
        AnswerCard(
            vase=one.about[0],
            attribute=one.about[1],
            question=cut(one.about[2].replace(IMAGE_TAG, "").strip(), MOST),
            truth=one.truth,
            picture=pictures.of(one),
            answers=tuple(one.answers.values()),
            reasons=reasons,
            reward=one.answers[models[-1]].reward,
            gain=round(_gain(one, models[0], models[-1]), 4),
        )
        for one, reasons in chosen
    )
    return AnswerCards(cards, len(asked))


def _asked(path: Path) -> list[_Asked]:
    """Return the questions of answers.csv in their order, each with the answers of all models."""
    found: dict[tuple[Question, int], dict[str, ModelAnswer]] = {}
    truths: dict[tuple[Question, int], str] = {}
    seen: dict[tuple[str, Question], int] = defaultdict(int)
    for row in files.read_table(path):
        answer = _answer(row)
        if answer is None:
            continue
        about = (row.get("vase", ""), row.get("attribute", ""), row.get("question", ""))
        place = (about, seen[answer.model, about])
        seen[answer.model, about] += 1
        found.setdefault(place, {})[answer.model] = answer
        truths.setdefault(place, cut(row.get("truth", ""), MOST))
    return [_Asked(about, number, truths[about, number], given) for (about, number), given in found.items()]


def _answer(row: Mapping[str, str]) -> ModelAnswer | None:
    """Return the answer in a row of answers.csv; None if the row is damaged."""
    try:
        exact, reward = float(row["exact"]), float(row["reward"])
        mark = "right" if exact or reward >= 1 else "partly right" if reward > 0 else "wrong"
        return ModelAnswer(row["model"], cut(row["answer"], MOST), mark, reward)
    except (KeyError, ValueError):
        return None


def _gain(one: _Asked, first: str, last: str) -> float:
    return one.answers[last].reward - one.answers[first].reward


def _chosen(asked: Sequence[_Asked], first: str, last: str) -> list[tuple[_Asked, tuple[str, ...]]]:
    """Return the questions to show, each with the reasons why it is shown."""
    by_reward = sorted(asked, key=lambda one: one.answers[last].reward)
    by_gain = sorted(asked, key=lambda one: -_gain(one, first, last))
    worst = [one for one in by_reward if one.answers[last].reward < 1][:FEW]
    improved = [one for one in by_gain if _gain(one, first, last) > 0][:FEW]
    taken = {(one.about, one.number) for one in (*worst, *improved)}
    rest = [one for one in asked if (one.about, one.number) not in taken]
    drawn = random.Random(SEED).sample(rest, min(SAMPLE, len(rest)))
    reasons: dict[tuple[Question, int], list[str]] = defaultdict(list)
    chosen: dict[tuple[Question, int], _Asked] = {}
    for reason, group in ((IMPROVED, improved), (WORST, worst), (DRAWN, drawn)):
        for one in group:
            chosen[one.about, one.number] = one
            reasons[one.about, one.number].append(reason)
    return [(one, tuple(reasons[place])) for place, one in chosen.items()]


class _Pictures:
    """Finds the photographs of held-out questions in the dataset's eval.jsonl."""

    def __init__(self, sources: Sources) -> None:
        self._thumbnails = sources.thumbnails
        self._paths: dict[tuple[Question, int], str] = {}
        folder = sources.artifacts.get("build-dataset")
        if folder is not None:
            root = sources.dataset.image_root if sources.dataset else "."
            self._root = Path(os.path.normpath(folder.absolute() / root))
            self._paths = dict(_places(folder / FILES["eval"]))

    def of(self, one: _Asked) -> str | None:
        name = self._paths.get((one.about, one.number))
        if name is None or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        return self._thumbnails.of(self._root / name)


def _places(path: Path) -> Iterator[tuple[tuple[Question, int], str]]:
    """Yield the first photograph of each question in a file of rows, up to the first row that can't be read."""
    seen: dict[Question, int] = defaultdict(int)
    try:
        for _, row in json_rows(path):
            name, about = _place(row)
            yield (about, seen[about]), name
            seen[about] += 1
    except (OSError, DataError, KeyError, IndexError, TypeError, AttributeError):
        return


def _place(row: Any) -> tuple[str, Question]:
    name = row["images"][0]
    said = [turn["content"] for turn in row["messages"] if turn["role"] == "user"]
    return name, (row.get("vase_id") or name, row.get("attribute") or "", said[-1] if said else "")
