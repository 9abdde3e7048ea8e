"""Combine the labels of several reviewers: the joint answer for each photograph, and how far reviewers agree."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vasevqa.review.labels import Line
from vasevqa.review.questions import Question

Labels = Mapping[str, Mapping[str, Line]]  # digest -> reviewer -> the reviewer's label


@dataclass(frozen=True)
class Agreement:
    """How far two reviewers agree on the photographs that both labelled.

    `alike` counts the photographs with the same label. `chance` is the expected number of such photographs if both
    reviewers gave their labels at random, with the same frequency of each label.
    """

    one: str
    other: str
    pictures: int
    vases: int
    alike: int
    chance: float

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa (1960). It is None if the agreement expected by chance is already perfect."""
        share, expected = self.alike / self.pictures, self.chance / self.pictures
        return (share - expected) / (1 - expected) if expected < 1 else None

    def said(self) -> str:
        """Return the agreement as a sentence without a full stop."""
        kappa = f"Cohen's kappa {self.kappa:.2f}" if self.kappa is not None else "Cohen's kappa is not defined"
        return (
            f"{self.one} and {self.other} gave the same label to {self.alike} of {self.pictures} photographs of"
            f" {self.vases} vase{'s' if self.vases != 1 else ''} ({self.chance:.1f} by chance): {kappa}"
        )


def agreements(labels: Labels) -> list[Agreement]:
    """Return the agreement of each pair of reviewers who labelled at least one photograph in common."""
    reviewers = sorted({who for given in labels.values() for who in given})
    found = []
    for one, other in itertools.combinations(reviewers, 2):
        both = [(given[one], given[other]) for given in labels.values() if one in given and other in given]
        if both:
            mine, yours = (Counter(pair[side].label for pair in both) for side in (0, 1))
            chance = sum(mine[label] * yours[label] for label in mine) / len(both)
            alike = sum(first.label == second.label for first, second in both)
            vases = len({first.vase for first, _ in both})
            found.append(Agreement(one, other, len(both), vases, alike, chance))
    return found


def answer(given: Mapping[str, Line], question: Question) -> bool | None:
    """Return the reviewers' joint answer about a photograph: True for yes, False for no, None if there is none.

    The label `unsure` is ignored. There is no joint answer if the remaining labels differ, or if no label remains.
    """
    answers = {line.label for line in given.values()} & {question.yes, question.no}
    return answers == {question.yes} if len(answers) == 1 else None


def disputed(given: Mapping[str, Line], question: Question) -> bool:
    """Return whether a photograph has both answers: yes from a reviewer, and no from a different reviewer."""
    return {question.yes, question.no} <= {line.label for line in given.values()}
