"""Metrics of answers and captions, each with a bootstrap interval or the reason why it is not available.

Accuracy and overlap are means over samples, with percentile intervals of their bootstrap (Efron, 1979). BLEU is
sacrebleu's (Post, 2018). The Fréchet distance is that of Heusel et al., 2017, over sentence embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from vasevqa.dataset.rows import Row
from vasevqa.evaluation.figures import Metric
from vasevqa.reward.dates import iou, parse_dates
from vasevqa.reward.score import score
from vasevqa.reward.vocabulary import jaccard, normalize, terms, words

# The original's overall score of captions.
OVERALL = {
    "clip_similarity": 0.25,
    "semantic_similarity": 0.25,
    "recall_at_10": 0.20,
    "lexical_similarity": 0.15,
    "recall_at_5": 0.10,
    "recall_at_1": 0.05,
}
RECALLS = (1, 5, 10)


def unavailable(reason: str, **about: Any) -> Metric:
    """A metric that could not be computed: never a 0."""
    return cast(Metric, {"value": None, "reason": reason, **about})


def mean(values: Sequence[float], rounds: int, seed: int, **about: Any) -> Metric:
    """The mean with its 95% interval from `rounds` resamples; not available without values."""
    if not len(values):
        return unavailable("no samples", samples=0, **about)
    found = np.asarray(values, dtype=np.float64)
    figures = {"value": float(found.mean()), "interval": interval(found, rounds, seed), "samples": len(found), **about}
    return cast(Metric, figures)


def interval(values: np.ndarray, rounds: int, seed: int) -> list[float] | None:
    """The 2.5th and 97.5th percentile of the mean of resamples; None for a single value."""
    if len(values) < 2 or rounds < 1:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(rounds)
    step = max(1, 2_000_000 // len(values))  # resamples at once, so that memory stays flat
    for begin in range(0, rounds, step):
        size = min(step, rounds - begin)
        means[begin : begin + size] = values[rng.integers(0, len(values), (size, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return [float(low), float(high)]


def same(answer: str, truth: str, attribute: str) -> bool:
    """Whether an answer is exactly right: the same words, or the same known name in another spelling."""
    if normalize(answer).strip(" .") == normalize(truth).strip(" ."):
        return True
    if attribute == "date":
        return bool(parse_dates(truth)) and parse_dates(answer) == parse_dates(truth)
    if attribute in ("shape", "technique", "fabric"):
        return bool(terms(truth, attribute)) and terms(answer, attribute) == terms(truth, attribute)
    return words(answer) == words(truth)


def attribute_accuracy(
    rows: Sequence[Row], answers: Sequence[str], fuzzy: float, rounds: int, seed: int
) -> dict[str, dict[str, Metric]]:
    """Per attribute: exact and fuzzy accuracy (a reward of at least `fuzzy`), the mean reward, and for dates the IoU of
    years.
    """
    by: dict[str, list[tuple[str, str]]] = {}
    for row, answer in zip(rows, answers, strict=True):
        by.setdefault(row["attribute"] or "conversation", []).append((answer, row["solution"]))
    found: dict[str, dict[str, Metric]] = {}
    for attribute, pairs in sorted(by.items()):
        rewards = [score(answer, truth, attribute).value for answer, truth in pairs]
        found[attribute] = {
            "exact": mean([float(same(answer, truth, attribute)) for answer, truth in pairs], rounds, seed),
            "fuzzy": mean([float(reward >= fuzzy) for reward in rewards], rounds, seed, threshold=fuzzy),
            "reward": mean(rewards, rounds, seed),
        }
        if attribute == "date":
            found[attribute]["interval_iou"] = mean(date_overlap(pairs), rounds, seed)
    return found


def date_overlap(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """IoU of the years that answer and truth name, of the truths that name any; an answer without years is 0."""
    found = []
    for answer, truth in pairs:
        known, said = parse_dates(truth), parse_dates(answer)
        if known:
            found.append(iou(said[0], known[0]) if said else 0.0)
    return found


def bleu(answers: Sequence[str], truths: Sequence[str], order: int, rounds: int) -> Metric:
    """Corpus BLEU up to n-grams of `order`, in [0, 1], with sacrebleu's own bootstrap."""
    from sacrebleu.metrics import BLEU

    if not answers:
        return unavailable("no captions", samples=0)
    metric = BLEU(max_ngram_order=order)
    several = len(answers) > 1 and rounds > 1
    found = metric.corpus_score(list(answers), [list(truths)], n_bootstrap=rounds if several else 1)
    low_high = None
    if several:
        middle, half = float(found._mean), float(found._ci)
        low_high = [max(0.0, (middle - half) / 100), min(1.0, (middle + half) / 100)]
    return {
        "value": found.score / 100,
        "interval": low_high,
        "samples": len(answers),
        "signature": str(metric.get_signature()),
    }


def lexical(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Jaccard similarity of the sets of words, a pair a value."""
    return [jaccard(words(answer), words(truth)) for answer, truth in zip(answers, truths, strict=True)]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine similarity of rows (N, D) with rows (N, D)."""
    return np.asarray((_unit(one) * _unit(other)).sum(-1))


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows, dtype=np.float64), where=norms > 0))


def recall(
    queries: np.ndarray, targets: np.ndarray, k: int, rounds: int, seed: int, about: Mapping[str, str]
) -> Metric:
    """Part of the queries (N, D) whose own target (row i of (N, D)) is among the `k` nearest by cosine similarity.

    Ties count by their share: where m targets are as near as the own one, it is as likely in any of their m places.
    """
    count = len(queries)
    described: dict[str, object] = {"samples": count, "chance": min(1.0, k / count) if count else None, **about}
    if count <= k:
        return unavailable(f"R@{k} needs more than {k} samples; there are {count}", **described)
    similar = _unit(queries) @ _unit(targets).T
    own = np.diag(similar)[:, None]
    nearer = (similar > own + 1e-9).sum(1)
    tied = (np.abs(similar - own) <= 1e-9).sum(1)
    hits = np.clip((k - nearer) / tied, 0.0, 1.0)
    return cast(Metric, {"value": float(hits.mean()), "interval": interval(hits, rounds, seed), **described})


def frechet(answers: np.ndarray, truths: np.ndarray) -> Metric:
    """Fréchet distance of two Gaussians fitted to embeddings (N, D); needs more samples than dimensions, and gets no
    interval.
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
    root = float(np.sqrt(np.clip(values.real, 0, None)).sum())  # trace of the square root of a product of covariances
    shift = float(((answers.mean(0) - truths.mean(0)) ** 2).sum())
    return {
        "value": max(0.0, shift + float(np.trace(np.atleast_2d(one)) + np.trace(np.atleast_2d(other))) - 2 * root),
        "interval": None,
        "samples": count,
    }


def overall(found: Mapping[str, Metric]) -> Metric:
    """The original's weighted score; not available as long as a part of it isn't."""
    values = {name: found[name]["value"] for name in OVERALL if name in found}
    known = {name: value for name, value in values.items() if value is not None}
    missing = [name for name in OVERALL if name not in known]
    if missing:
        return unavailable(f"needs {', '.join(missing)}", weights=OVERALL)
    return {
        "value": sum(weight * known[name] for name, weight in OVERALL.items()),
        "interval": None,
        "weights": OVERALL,
    }
