"""Compute the figures of VaseVQA-3D's comparison of captions by the same rules as its code.

Source: AIGeeksGroup/VaseVQA-3D, eval/compare.py (Zhang et al., "VaseVQA-3D", 2025, arXiv:2510.04479). The figures have
the same names as in that file. comparison.DIFFERENCES lists how this package's own metrics differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from vasevqa.evaluation.figures import Metric

Encoder = Callable[[Sequence[str]], np.ndarray]  # texts -> embeddings (N, D)

WEIGHTS = {
    "clip_score": 0.25,
    "semantic_similarity": 0.25,
    "r_at_10": 0.20,
    "lexical_similarity": 0.15,
    "r_at_5": 0.10,
    "r_at_1": 0.05,
}
NAMES = ("clip_score", "fid_score", "semantic_similarity", "r_at_1", "r_at_5", "r_at_10", "lexical_similarity")
RIDGE = 1e-6  # added to the diagonals of the covariances


class Caption(NamedTuple):
    """A caption, and the name of its first picture."""

    picture: str
    text: str


def picture_id(picture: str) -> str:
    """Return the part of a picture's file name that is used to pair captions with references."""
    name = PurePosixPath(picture.replace("\\", "/")).name
    parts = name.split("_")
    return "_".join(parts[:2]) if len(parts) >= 3 else name.replace(".jpg", "")


def pairs(generated: Sequence[Caption], references: Sequence[Caption]) -> list[tuple[str, str]]:
    """Return pairs (caption, reference) in the order of the captions. Skip captions without a reference."""
    known = {picture_id(reference.picture): reference.text for reference in references}
    return [
        (caption.text, known[picture_id(caption.picture)])
        for caption in generated
        if picture_id(caption.picture) in known
    ]


def figures(paired: Sequence[tuple[str, str]], clip: Encoder | None, sentences: Encoder | None) -> dict[str, Metric]:
    """Return VaseVQA-3D's figures for pairs (caption, reference).

    `clip` returns CLIP text features, and `sentences` returns embeddings of a sentence model. If a function is None,
    the figures that need this function are not available. As in VaseVQA-3D's code, such figures count as 0 in the
    overall score.
    """
    if not paired:
        return {}
    said, true = [one for one, _ in paired], [other for _, other in paired]
    values: dict[str, float] = {"lexical_similarity": float(np.mean([_jaccard(*pair) for pair in paired]))}
    if clip is not None:
        ours, theirs = _unit(clip(said)), _unit(clip(true))
        values["clip_score"] = values["semantic_similarity"] = float(np.mean((ours * theirs).sum(-1)))
        values |= {f"r_at_{k}": share for k, share in _recalls(ours, theirs).items()}
    if sentences is not None and len(paired) > 1:
        values["fid_score"] = _fid(sentences(said).astype(np.float32), sentences(true).astype(np.float32))
    measured: dict[str, Metric] = {
        name: {"value": values[name], "interval": None, "samples": len(paired)}
        if name in values
        else {"value": None, "reason": _missing(name, sentences is not None), "samples": len(paired)}
        for name in NAMES
    }
    overall = sum(weight * values.get(name, 0.0) for name, weight in WEIGHTS.items())
    measured["overall_score"] = {"value": overall, "interval": None, "samples": len(paired), "weights": WEIGHTS}
    return measured


def _missing(name: str, sentences: bool) -> str:
    if name != "fid_score":
        return "no CLIP model was given (--clip-model)"
    return "one caption has no covariance" if sentences else "no sentence model was given (--sentence-model)"


def _unit(features: np.ndarray) -> np.ndarray:
    single = features.astype(np.float32)
    return np.asarray(single / np.linalg.norm(single, axis=-1, keepdims=True))


def _jaccard(said: str, true: str) -> float:
    one, other = set(said.lower().split()), set(true.lower().split())
    return len(one & other) / len(one | other) if one | other else 0.0


def _recalls(ours: np.ndarray, theirs: np.ndarray) -> dict[int, float]:
    order = np.argsort(ours @ theirs.T, axis=1)[:, ::-1]
    ranks = np.argmax(order == np.arange(len(ours))[:, None], axis=1)
    return {k: float((ranks < k).mean()) for k in (1, 5, 10)}


def _fid(ours: np.ndarray, theirs: np.ndarray) -> float:
    from scipy import linalg

    shift = ours.mean(0) - theirs.mean(0)
    one, other = (np.cov(both, rowvar=False) + RIDGE * np.eye(both.shape[1]) for both in (ours, theirs))
    root = np.real(linalg.sqrtm(one @ other))
    return float(shift @ shift + np.trace(one + other - 2 * root))
