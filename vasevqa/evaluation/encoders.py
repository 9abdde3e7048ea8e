"""Compute embeddings of sentences and pictures for the metrics, with CLIP or with a sentence model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vasevqa.curation.clip import ClipModel
from vasevqa.errors import ConfigError, DataError
from vasevqa.evaluation.generation import open_picture
from vasevqa.storage import refuse_failed
from vasevqa.text import first_line

BATCH = 64
LONGEST = 512  # maximum tokens of a sentence, if the folder does not set it
POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}


def clip_texts(model: ClipModel, texts: Sequence[str]) -> np.ndarray:
    """Return CLIP text features (N, D). A text that is longer than CLIP's context length is truncated."""
    return np.concatenate(
        [model.encode_texts(list(texts[begin : begin + BATCH])).numpy() for begin in range(0, len(texts), BATCH)]
    ).astype(np.float64)


def clip_images(model: ClipModel, paths: Sequence[Path]) -> np.ndarray:
    """Return CLIP image features (N, D). Raise DataError if a picture can't be read."""
    batches = []
    for begin in range(0, len(paths), BATCH):
        pixels = torch.stack(
            [model.preprocess(open_picture(path, model.preprocess.cover)) for path in paths[begin : begin + BATCH]]
        )
        batches.append(model.encode_images(pixels).numpy())
    return np.concatenate(batches).astype(np.float64)


class Remembered:
    """A text encoder that stores its embeddings, so that each text is encoded only once."""

    def __init__(self, encode: Callable[[Sequence[str]], np.ndarray]) -> None:
        self._encode = encode
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return embeddings (N, D)."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known.update(zip(new, self._encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


@dataclass(frozen=True)
class _Sentences:
    """The settings of a sentence encoder.

    They say how the embedding of a text is computed from the hidden states of its tokens. A folder that
    sentence-transformers wrote holds these settings in modules.json and in the modules' own files. For a folder without
    modules.json, the defaults of sentence-transformers are used: the mean over tokens, not normalized.
    """

    pooling: str = "mean"
    normalize: bool = False
    lower: bool = False
    length: int | None = None

    @classmethod
    def of(cls, folder: Path) -> _Sentences:
        """Read the settings of a model folder. Raise DataError if they name an unsupported module or pooling method."""
        modules = _settings(folder / "modules.json")
        about = _settings(folder / "sentence_bert_config.json")
        if not isinstance(modules, list) or not isinstance(about or {}, dict):
            modules, about = [], about or {}
        pooling, normalize = "mean", False
        for module in modules:
            kind = str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else ""
            if kind == "Pooling":
                pooling = _pooling(folder / str(module.get("path", "")) / "config.json")
            elif kind == "Normalize":
                normalize = True
            elif kind != "Transformer":
                raise DataError(
                    f"The sentence model {folder} has a module '{kind}', which can't be computed here; give a model"
                    " with the modules Transformer, Pooling and Normalize."
                )
        length = about.get("max_seq_length") if isinstance(about, dict) else None
        lower = isinstance(about, dict) and about.get("do_lower_case") is True
        return cls(pooling, normalize, lower, length if isinstance(length, int) else None)


def _settings(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({first_line(error)}); copy the whole model folder.") from None


def _pooling(path: Path) -> str:
    config = _settings(path)
    config = config if isinstance(config, dict) else {}
    modes = [name for name, key in POOLINGS.items() if config.get(key) is True or config.get("pooling_mode") == name]
    others = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or len(others) > 1:
        raise DataError(
            f"{path} sets the pooling {', '.join(others) or 'none'}; give a sentence model that pools by mean, cls"
            " or max."
        )
    return modes[0]


class SentenceModel:
    """A sentence encoder in a Hugging Face folder, or in a folder that sentence-transformers wrote.

    The embedding of a text is pooled from the last hidden states of its tokens (Reimers and Gurevych, 2019). The
    pooling method comes from the folder's settings. Raise ConfigError if the folder has no config.json. Raise
    DataError if the model can't be loaded.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoModel, AutoTokenizer

        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"{folder} is not a sentence model: it has no config.json; give the folder of a Hugging Face encoder."
            )
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            refuse_failed(error, folder)
            first = first_line(error)
            raise DataError(
                f"The sentence model {folder} can't be loaded ({type(error).__name__}: {first}); copy the whole folder."
            ) from None
        self._model, self._device = model.to(device).eval(), device
        self._how = _Sentences.of(folder)
        most = getattr(model.config, "max_position_embeddings", None) or LONGEST
        self._length = self._how.length or min(self._tokenizer.model_max_length, most, LONGEST)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return embeddings (N, D)."""
        batches = []
        for begin in range(0, len(texts), BATCH):
            some = [text.lower() if self._how.lower else text for text in texts[begin : begin + BATCH]]
            tokens = self._tokenizer(
                some, padding=True, truncation=True, max_length=self._length, return_tensors="pt"
            ).to(self._device)
            states = self._model(**tokens).last_hidden_state.float()
            pooled = _pooled(states, tokens["attention_mask"].unsqueeze(-1).float(), self._how.pooling)
            batches.append((functional.normalize(pooled, dim=-1) if self._how.normalize else pooled).cpu().numpy())
        return np.concatenate(batches).astype(np.float64)


def _pooled(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return the pooled vectors (N, D) of N texts from the hidden states (N, T, D). `mask` is (N, T, 1)."""
    if pooling == "cls":
        first = mask.argmax(1, keepdim=True).expand(-1, -1, states.shape[-1])  # tokenizers may pad on the left
        return states.gather(1, first).squeeze(1)
    if pooling == "max":
        return states.masked_fill(mask == 0, -torch.inf).amax(1)
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
