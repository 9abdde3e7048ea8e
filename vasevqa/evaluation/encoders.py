"""Embeddings of sentences and pictures for the metrics: a CLIP model's two towers, and a sentence model by mean
pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vasevqa.curation.clip import ClipModel
from vasevqa.curation.images import open_image
from vasevqa.errors import ConfigError, DataError
from vasevqa.text import first_line

BATCH = 64


def clip_texts(model: ClipModel, texts: Sequence[str]) -> np.ndarray:
    """CLIP text features (N, D); CLIP cuts long texts at its context length."""
    return np.concatenate(
        [model.encode_texts(list(texts[begin : begin + BATCH])).numpy() for begin in range(0, len(texts), BATCH)]
    ).astype(np.float64)


def clip_images(model: ClipModel, paths: Sequence[Path]) -> np.ndarray:
    """CLIP image features (N, D)."""
    found = []
    for begin in range(0, len(paths), BATCH):
        pixels = torch.stack(
            [model.preprocess(open_image(path, model.preprocess.size)) for path in paths[begin : begin + BATCH]]
        )
        found.append(model.encode_images(pixels).numpy())
    return np.concatenate(found).astype(np.float64)


class SentenceModel:
    """A sentence encoder in a Hugging Face folder: the mean of its last hidden states over a text's tokens (Reimers and
    Gurevych, 2019).
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoModel, AutoTokenizer

        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"{folder} is no sentence model: there is no config.json; give the folder of a Hugging Face encoder."
            )
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            first = first_line(error)
            raise DataError(
                f"The sentence model {folder} can't be loaded ({type(error).__name__}: {first}); copy the whole folder."
            ) from None
        self._model, self._device = model.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (N, D)."""
        found = []
        for begin in range(0, len(texts), BATCH):
            tokens = self._tokenizer(
                list(texts[begin : begin + BATCH]), padding=True, truncation=True, max_length=512, return_tensors="pt"
            ).to(self._device)
            states = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            found.append(((states * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy())
        return np.concatenate(found).astype(np.float64)
