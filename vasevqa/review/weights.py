"""Compute how many photographs each label stands for, so that the labels represent all photographs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vasevqa.review.agreement import answer
from vasevqa.review.record import Record


@dataclass(frozen=True)
class Sample:
    """The answers to a question with their weights, by photograph name. An answer is True for yes or False for no.

    The weight is the number of photographs that an answer stands for. `unsure` counts the drawn photographs without a
    clear answer. `undrawn` counts the labels of photographs that no draw chose, such as labels from Label Studio. These
    labels have no weight and are not in `answers`.
    """

    answers: dict[str, tuple[bool, float]]
    unsure: int
    undrawn: int


def sample_of(record: Record) -> Sample:
    """Return the labels of all reviewers as one sample.

    If several reviewers drew the same photograph, the weights of their draws are added.
    """
    weights: dict[str, float] = defaultdict(float)
    given = record.given()
    digests: dict[str, str] = {}
    undrawn = 0
    for who in record.reviewers():
        mine = record.mine(who)
        drawn = {name: line.probability for name, line in mine.items() if line.probability is not None}
        undrawn += len(mine) - len(drawn)
        left = max(len(drawn), len(record.photographs) - (len(mine) - len(drawn)))
        for name, weight in zip(drawn, draw_weights(list(drawn.values()), left), strict=True):
            weights[name] += weight
            digests[name] = mine[name].digest
    said = {name: answer(given[digests[name]], record.question) for name in weights}
    answers = {name: (one, weights[name]) for name, one in said.items() if one is not None}
    return Sample(answers, len(said) - len(answers), undrawn)


def draw_weights(probabilities: Sequence[float], photographs: int) -> list[float]:
    """Return the weight of each drawn photograph, in the order of the draws.

    Each of the `probabilities` is the chance of the drawn photograph among the photographs that were left at that draw.
    `photographs` is the number of photographs before the first draw. If few photographs are drawn, the weight is about
    1 / (left * probability), where `left` is the number of photographs that were left. If all are drawn, each weight is
    1. The weights are those of Farquhar, Gal and Rainforth, "On Statistical Bias in Active Learning", 2021.
    """
    drawn = len(probabilities)
    if drawn >= photographs:
        return [1.0] * drawn
    weights = []
    for number, probability in enumerate(probabilities):
        left = photographs - number
        share = (photographs - drawn) / (left - 1)
        weights.append(1 - share + share / (left * probability))
    return weights
