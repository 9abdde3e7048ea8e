"""The types of evaluation.json. This module doesn't import large packages."""

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
    query: str  # only for retrieval: what a query is; `target` says what a target is
    target: str
    signature: str  # sacrebleu's description of its settings
    weights: dict[str, float]


class Bin(TypedDict):
    """The answers whose confidence lies in [low, high). The last bin also includes the confidence 1."""

    low: float
    high: float
    confidence: float  # mean
    right: float  # share of right answers
    rows: int


class Reliability(TypedDict):
    """A comparison of a model's confidence with its share of right answers."""

    confidence: float  # mean
    right: float  # share of right answers
    difference: Metric  # confidence minus right
    ece: float  # expected calibration error
    bins: list[Bin]


class Confidence(TypedDict, total=False):
    """The reliability of a model's confidence, for each attribute and for all short answers (under the key "all")."""

    probability: dict[str, Reliability]  # confidence: the probability that the model assigns to its answer
    agreement: dict[str, Reliability]  # confidence: the share of sampled answers with the same meaning


class ModelEvaluation(TypedDict, total=False):
    """The results of one model or of one set of captions."""

    attributes: dict[str, dict[str, Metric]]  # attribute -> name of the metric -> metric
    rewards: Metric  # over all held-out rows; missing if some rows were not answered
    common_rewards: Metric  # over the rows that all models and baselines answered; missing if these are all rows
    confidence: Confidence
    captions: dict[str, Metric]
    original: dict[str, Metric]  # the figures of VaseVQA-3D's own comparison, with their names there
    problems: dict[str, list[str]]  # of a caption file
    mistakes: Any  # evaluation.mistakes.Mistakes


class Pair(TypedDict):
    """The difference in mean reward between two models on the same rows: `model` minus `other`."""

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
