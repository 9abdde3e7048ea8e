"""The questions that a reviewer answers, and the words of the answers."""

from __future__ import annotations

from dataclasses import dataclass

UNSURE = "unsure"


@dataclass(frozen=True)
class Question:
    """A question with its two answers. `buys` says what the labels are used for."""

    name: str
    asks: str
    yes: str
    no: str
    buys: str

    @property
    def labels(self) -> tuple[str, str, str]:
        """All labels of the question: yes, no, and unsure."""
        return self.yes, self.no, UNSURE


QUALITY = Question("quality", "Is this a good photograph?", "high", "low", "train-classifier learns from them")
INTACT = Question(
    "intact",
    "Does the photograph show a complete, undamaged vase?",
    "intact",
    "damaged",
    "they show how well clip-filter's threshold works",
)
QUESTIONS = {question.name: question for question in (QUALITY, INTACT)}
