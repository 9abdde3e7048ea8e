"""The types of evaluation.json. This module imports no large package."""

from __future__ import annotations

from typing import Any, TypedDict


class Metric(TypedDict, total=False):
    """A metric in evaluation.json."""

    value: float | None  # None if the metric is not available
    reason: str  # why the metric is not available
    interval: list[float] | None  # 95% interval by vase: low, high
    no_interval: str  # why there is no interval
    samples: int  # number of rows
    vases: int
    chance: float | None  # expected value for random guesses
    threshold: float
    query: str  # in a retrieval: the kind of query, and the kind of target
    target: str
    signature: str  # sacrebleu's description of its settings
    weights: dict[str, float]


class Bin(TypedDict):
    """The answers whose confidence lies in [low, high)."""

    low: float
    high: float
    confidence: float  # mean
    right: float  # share of right answers
    rows: int


class Reliability(TypedDict):
    """How well a model's confidence and its right answers agree."""

    confidence: float  # mean
    right: float  # share of right answers
    difference: Metric  # confidence minus right
    ece: float  # expected calibration error
    bins: list[Bin]


class Confidence(TypedDict, total=False):
    """The figures by attribute, and for "all"."""

    probability: dict[str, Reliability]  # by the probability that the model gives to its answer
    agreement: dict[str, Reliability]  # by the share of sampled answers that say the same


class ModelEvaluation(TypedDict, total=False):
    """The results of one model or of one set of captions."""

    attributes: dict[str, dict[str, Metric]]  # attribute -> name of the metric -> metric
    rewards: Metric  # over all held-out rows; missing if some rows were not answered
    common_rewards: Metric  # over the rows that every model and every baseline answered, if these are not all rows
    confidence: Confidence
    captions: dict[str, Metric]
    original: dict[str, Metric]  # the figures of VaseVQA-3D's own comparison, by its names
    problems: dict[str, list[str]]  # of a caption file
    mistakes: Any  # evaluation.mistakes.Mistakes


class Pair(TypedDict):
    """The difference between two models on the same rows."""

    model: str
    other: str
    attribute: str  # empty for all rows
    value: float
    interval: list[float] | None  # 95% interval by vase
    p: float | None
    p_holm: float | None  # p-value, adjusted for all attributes of the pair
    vases: int
    samples: int
    shown: bool  # the interval doesn't contain zero, and for an attribute p_holm is below 0.05
    sentence: str


class Evaluation(TypedDict, total=False):
    """The content of evaluation.json."""

    samples: int
    vases: int
    models: dict[str, ModelEvaluation]
    baselines: dict[str, ModelEvaluation]  # answers without a model or without the picture
    about_baselines: dict[str, str]
    pairs: list[Pair]
    same: dict[str, str]  # model -> an earlier model with the same folder
    reference_problems: dict[str, list[str]]
