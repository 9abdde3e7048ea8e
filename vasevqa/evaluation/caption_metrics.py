"""Compute the metrics of captions: overlap of words, similarity and distance of embeddings, and retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vasevqa.evaluation import metrics, original
from vasevqa.evaluation.figures import Metric
from vasevqa.evaluation.params import EvaluateParams

if TYPE_CHECKING:
    from vasevqa.curation.clip import ClipModel


class Encoders:
    """The embedding models. Each model is loaded on first use."""

    def __init__(self, inputs: Mapping[str, Path], device: Any) -> None:
        self._inputs, self._device = inputs, device

    @cached_property
    def clip(self) -> ClipModel | None:
        """The CLIP model, or None if no CLIP model was given."""
        if "clip_model" not in self._inputs:
            return None
        from vasevqa.curation.clip import load_clip

        return load_clip(self._inputs["clip_model"], self._device, "fp32")

    @cached_property
    def clip_texts(self) -> original.Encoder | None:
        """The function that returns CLIP features of texts, or None without a CLIP model.

        It encodes each text once.
        """
        if self.clip is None:
            return None
        from vasevqa.evaluation.encoders import Remembered, clip_texts

        return Remembered(partial(clip_texts, self.clip))

    @cached_property
    def sentences(self) -> original.Encoder | None:
        """The function that returns the sentence model's embeddings of texts, or None without a sentence model.

        It encodes each text once.
        """
        if "sentence_model" not in self._inputs:
            return None
        from vasevqa.evaluation.encoders import Remembered, SentenceModel

        return Remembered(SentenceModel(self._inputs["sentence_model"], self._device))


@dataclass(frozen=True)
class Caption:
    """A generated caption of a vase (`said`), and the true caption (`true`)."""

    vase: str
    said: str
    true: str


def caption_metrics(
    captions: Sequence[Caption], pictures: Sequence[Path], params: EvaluateParams, encoders: Encoders
) -> dict[str, Metric]:
    """Return the metrics of captions.

    In retrieval, a generated caption is the query. With a CLIP model and `pictures`, the targets are the pictures.
    Otherwise the targets are the true captions.
    """
    if not captions:
        return {}
    said, true = [caption.said or " " for caption in captions], [caption.true for caption in captions]
    vases = [caption.vase for caption in captions]
    # sacrebleu's bootstrap resamples captions. Its interval is right only if each vase has one caption.
    rounds = params.bootstrap if len(set(vases)) == len(vases) else 0
    measured: dict[str, Metric] = {
        "bleu_1": metrics.bleu(said, true, 1, rounds),
        "bleu_4": metrics.bleu(said, true, 4, rounds),
        "lexical_similarity": metrics.mean(metrics.lexical(said, true), vases),
    }
    queries = targets = None
    about = {"query": "generated caption", "target": "picture of the vase (CLIP)" if pictures else "reference caption"}
    if encoders.clip is not None and encoders.clip_texts is not None:
        from vasevqa.evaluation import encoders as embedding

        ours, theirs = encoders.clip_texts(said), encoders.clip_texts(true)
        measured["clip_similarity"] = metrics.mean(metrics.cosines(ours, theirs).tolist(), vases)
        queries, targets = ours, embedding.clip_images(encoders.clip, pictures) if pictures else theirs
        about["target"] = "picture of the vase (CLIP)" if pictures else "reference caption (CLIP)"
    else:
        measured["clip_similarity"] = metrics.unavailable("no CLIP model was given (--clip-model)")
    if encoders.sentences is not None:
        ours, theirs = encoders.sentences(said), encoders.sentences(true)
        measured["semantic_similarity"] = metrics.mean(metrics.cosines(ours, theirs).tolist(), vases)
        measured["frechet_distance"] = metrics.frechet(ours, theirs)
        if queries is None:
            queries, targets, about["target"] = ours, theirs, "reference caption (sentence model)"
    else:
        measured["semantic_similarity"] = metrics.unavailable("no sentence model was given (--sentence-model)")
        measured["frechet_distance"] = metrics.unavailable("no sentence model was given (--sentence-model)")
    for k in metrics.RECALLS:
        if queries is None:
            measured[f"recall_at_{k}"] = metrics.unavailable("neither a CLIP nor a sentence model was given", **about)
        else:
            assert targets is not None
            measured[f"recall_at_{k}"] = metrics.recall(np.asarray(queries), np.asarray(targets), k, vases, about)
    measured["overall"] = metrics.overall(measured)
    return measured
