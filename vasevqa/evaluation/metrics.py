"""Metrics of answers and captions.

Accuracy and overlap are means over rows. Their intervals treat vases as the units (vasevqa.statistics). BLEU is
computed by sacrebleu (Post, 2018). The Fréchet distance (Heusel et al., 2017) is computed over sentence embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from vasevqa.dataset.rows import Row
from vasevqa.evaluation.figures import Metric
from vasevqa.reward.answers import read_answer
from vasevqa.reward.claims import claims
from vasevqa.reward.dates import iou, parse_dates
from vasevqa.reward.score import exact, score
from vasevqa.reward.words import jaccard, words
from vasevqa.statistics import FEWEST, by_vase

# The weights of the original project's overall score of captions.
OVERALL = {
    "clip_similarity": 0.25,
    "semantic_similarity": 0.25,
    "recall_at_10": 0.20,
    "lexical_similarity": 0.15,
    "recall_at_5": 0.10,
    "recall_at_1": 0.05,
}
RECALLS = (1, 5, 10)


TOO_FEW = f"too few vases (at least {FEWEST} are needed)"


@dataclass(frozen=True)
class Answered:
    """An answer to a held-out row with its scores. `exact` is 1 for a right answer and 0 otherwise.

    `reward` lies in [0, 1]. `probability` is the probability that the model assigns to its answer. `agreement` is the
    share of sampled answers with the same meaning as `answer`. `probability` and `agreement` are None if they are
    unknown.
    """

    vase: str
    attribute: str
    question: str
    truth: str
    answer: str
    exact: float
    reward: float
    probability: float | None = None
    agreement: float | None = None


def answered(row: Row, answer: str) -> Answered:
    """Return the answer to `row` with its scores."""
    attribute, truth, question = row["attribute"], row["solution"], question_of(row)
    return Answered(
        vase=vase_of(row),
        attribute=attribute,
        question=question,
        truth=truth,
        answer=answer,
        exact=float(exact(answer, truth, attribute)),
        reward=score(answer, truth, attribute, question).value,
    )


def vase_of(row: Row) -> str:
    """Return the vase of a row, or the path of the row's first picture if the row names no vase."""
    return row.get("vase_id") or row["images"][0]


def question_of(row: Row) -> str:
    """Return the last question of a row, or "" if the row has no question."""
    return next((turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "user"), "")


def unavailable(reason: str, **about: Any) -> Metric:
    """Return a metric without a value. `reason` says why the metric could not be computed."""
    return cast(Metric, {"value": None, "reason": reason, **about})


def mean(values: Sequence[float], vases: Sequence[str], **about: Any) -> Metric:
    """Return the mean of values in [0, 1] with a 95% interval that treats vases as the units.

    `vases` holds the vase of each value. If there are no values, the metric is not available. If there are fewer than
    `statistics.FEWEST` vases, the metric has no interval.
    """
    if not len(values):
        return unavailable("no samples", samples=0, vases=0, **about)
    estimate = by_vase(values, vases)
    interval = list(estimate.interval) if estimate.interval else None
    figures = {
        "value": estimate.value,
        "interval": interval,
        "samples": estimate.rows,
        "vases": estimate.vases,
        **({} if interval else {"no_interval": TOO_FEW}),
        **about,
    }
    return cast(Metric, figures)


def attribute_accuracy(answered: Sequence[Answered], fuzzy: float) -> dict[str, dict[str, Metric]]:
    """Return exact accuracy, fuzzy accuracy and mean reward for each attribute, and the mean IoU of dates.

    In fuzzy accuracy, an answer is right if its reward is at least `fuzzy`. The IoU (intersection over union) compares
    the years in the answer with the years in the true answer.
    """
    by: dict[str, list[Answered]] = {}
    for one in answered:
        by.setdefault(one.attribute or "conversation", []).append(one)
    figures: dict[str, dict[str, Metric]] = {}
    for attribute, several in sorted(by.items()):
        vases = [one.vase for one in several]
        figures[attribute] = {
            "exact": mean([one.exact for one in several], vases),
            "fuzzy": mean([float(one.reward >= fuzzy) for one in several], vases, threshold=fuzzy),
            "reward": mean([one.reward for one in several], vases),
        }
        if attribute == "date":
            dated = [
                (one.vase, overlap) for one in several if (overlap := date_overlap(one.answer, one.truth)) is not None
            ]
            figures[attribute]["interval_iou"] = mean([overlap for _, overlap in dated], [vase for vase, _ in dated])
    return figures


def date_overlap(answer: str, truth: str) -> float | None:
    """Return the IoU of the years in the answer and the years in the true answer.

    Only years that the answer asserts are used. Return 0 if the answer asserts no year, and None if the true answer
    names no year.
    """
    known, said = parse_dates(truth), parse_dates(claims(read_answer(answer, "date")).asserted)
    if not known:
        return None
    return iou(said[0], known[0]) if said else 0.0


def bleu(answers: Sequence[str], truths: Sequence[str], order: int, rounds: int) -> Metric:
    """Return corpus BLEU in [0, 1] with n-grams of up to `order` words.

    The interval comes from sacrebleu's bootstrap over captions with `rounds` samples. It is None if there are fewer
    than `FEWEST` captions, or if `rounds` is less than 2.
    """
    from sacrebleu.metrics import BLEU

    if not answers:
        return unavailable("no captions", samples=0)
    metric = BLEU(max_ngram_order=order)
    several = len(answers) >= FEWEST and rounds > 1
    corpus = metric.corpus_score(list(answers), [list(truths)], n_bootstrap=rounds if several else 1)
    low_high = None
    if several:
        middle, half = float(corpus._mean), float(corpus._ci)
        low_high = [max(0.0, (middle - half) / 100), min(1.0, (middle + half) / 100)]
    return {
        "value": corpus.score / 100,
        "interval": low_high,
        "samples": len(answers),
        "signature": str(metric.get_signature()),
    }


def lexical(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Return, for each answer and its true answer, the Jaccard similarity of their sets of words."""
    return [jaccard(words(answer), words(truth)) for answer, truth in zip(answers, truths, strict=True)]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine similarities (N,) of the rows with the same index in two arrays (N, D)."""
    return np.asarray((_unit(one) * _unit(other)).sum(-1))


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows, dtype=np.float64), where=norms > 0))


def recall(queries: np.ndarray, targets: np.ndarray, k: int, vases: Sequence[str], about: Mapping[str, str]) -> Metric:
    """Return the share of queries (N, D) whose own vase is among the `k` nearest vases by cosine similarity.

    `vases[i]` is the vase of query i and of target i. Targets are grouped by vase, and the similarity of a vase is the
    similarity of its most similar target. Other vases may be exactly as similar as the query's own vase. The order of
    these equal vases is treated as random. The query then counts as a fraction of a hit: the probability that its own
    vase is among the `k` nearest.
    """
    names = list(dict.fromkeys(vases))
    count = len(names)
    described: dict[str, object] = {"chance": min(1.0, k / count) if count else None, **about}
    if count <= k:
        reason = f"R@{k} needs more than {k} vases; there are {count}"
        return unavailable(reason, samples=len(queries), vases=count, **described)
    owner = np.asarray([names.index(vase) for vase in vases])
    each = _unit(queries) @ _unit(targets).T
    similar = np.full((len(queries), count), -np.inf)
    for number in range(count):
        similar[:, number] = each[:, owner == number].max(1)
    own = similar[np.arange(len(queries)), owner][:, None]
    nearer = (similar > own + 1e-9).sum(1)
    tied = (np.abs(similar - own) <= 1e-9).sum(1)
    hits = np.clip((k - nearer) / tied, 0.0, 1.0)
    return cast(Metric, {**mean(hits.tolist(), vases), **described})


def frechet(answers: np.ndarray, truths: np.ndarray) -> Metric:
    """Return the Fréchet distance of two Gaussians fitted to the embeddings (N, D) of answers and true answers.

    The metric is available only if there are more samples than dimensions. It has no interval.
    """
    count, dimensions = answers.shape
    if count <= dimensions:
        return unavailable(
            f"the Fréchet distance of {dimensions}-dimensional embeddings needs more than {dimensions} samples; there"
            f" are {count}",
            samples=count,
        )
    one, other = np.cov(answers, rowvar=False), np.cov(truths, rowvar=False)
    values = np.linalg.eigvals(np.atleast_2d(one) @ np.atleast_2d(other))
    root = float(np.sqrt(np.clip(values.real, 0, None)).sum())  # trace of the square root of the covariances' product
    shift = float(((answers.mean(0) - truths.mean(0)) ** 2).sum())
    return {
        "value": max(0.0, shift + float(np.trace(np.atleast_2d(one)) + np.trace(np.atleast_2d(other))) - 2 * root),
        "interval": None,
        "samples": count,
    }


def overall(measured: Mapping[str, Metric]) -> Metric:
    """Return the original project's overall score, a weighted sum of metrics (OVERALL).

    The score is not available if one of these metrics is not available.
    """
    values = {name: measured[name]["value"] for name in OVERALL if name in measured}
    known = {name: value for name, value in values.items() if value is not None}
    missing = [name for name in OVERALL if name not in known]
    if missing:
        return unavailable(f"needs {', '.join(missing)}", weights=OVERALL)
    return {
        "value": sum(weight * known[name] for name, weight in OVERALL.items()),
        "interval": None,
        "weights": OVERALL,
    }
