"""The figures of evaluation.json, as evaluate writes them and comparison and report read them. Loads nothing heavy."""

from __future__ import annotations

from typing import TypedDict


class Metric(TypedDict, total=False):
    """A figure as evaluation.json has it."""

    value: float | None  # None: not available
    reason: str  # why it isn't
    interval: list[float] | None  # 95%: low, high
    samples: int
    chance: float | None  # what guessing reaches
    threshold: float
    query: str  # of a retrieval: what is looked up, and among what
    target: str
    signature: str  # sacrebleu's
    weights: dict[str, float]


class ModelEvaluation(TypedDict, total=False):
    """What is known of one model (or of one set of captions)."""

    attributes: dict[str, dict[str, Metric]]  # attribute -> metric -> figure
    rewards: Metric
    captions: dict[str, Metric]
    problems: dict[str, list[str]]  # of a caption file


class Evaluation(TypedDict, total=False):
    """The content of evaluation.json."""

    samples: int
    models: dict[str, ModelEvaluation]
    same: dict[str, str]  # a model that is the same as another one
    reference_problems: dict[str, list[str]]
