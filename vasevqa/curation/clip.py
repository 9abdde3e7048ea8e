"""CLIP models from a Hugging Face folder, an open_clip folder or a hub id, behind one small interface.

CLIP: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021. OpenAI's weights
use QuickGELU; a Hugging Face folder says so in its config (`hidden_act`), an open_clip folder in its model config.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from vasevqa import files
from vasevqa.curation.devices import fast_bf16
from vasevqa.errors import ConfigError, DataError
from vasevqa.text import first_line

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """How pixels reach the model: resize the shorter side to `size` (bicubic, on PIL's pixels), crop the centre,
    normalize.
    """

    size: int
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB image as a (3, size, size) float32 tensor."""
        small = functional.resize(image, [self.size], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        # Where the margin is odd, transformers rounds down and torchvision to even; one rule for both formats: down.
        left, top = (small.width - self.size) // 2, (small.height - self.size) // 2
        cropped = small.crop((left, top, left + self.size, top + self.size))
        pixels = functional.to_dtype(functional.pil_to_tensor(cropped), torch.float32, scale=True)
        return functional.normalize(pixels, list(self.mean), list(self.std))


class _Towers(Protocol):
    def images(self, pixels: Tensor) -> Tensor: ...

    def texts(self, prompts: list[str]) -> Tensor: ...


@dataclass
class ClipModel:
    """A CLIP model ready to embed. `digest` stands for its weights, so that embeddings can be matched with it later."""

    name: str
    digest: str
    preprocess: Preprocess
    device: torch.device
    precision: str  # fp32 or bf16
    towers: _Towers

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Image features (B, D) in float32 on the CPU, not normalized, from pixels (B, 3, size, size)."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return self.towers.images(pixels.to(self.device, dtype, non_blocking=True)).float().cpu()

    @torch.inference_mode()
    def encode_texts(self, prompts: list[str]) -> Tensor:
        """Text features (N, D) in float32 on the CPU, not normalized; always computed in float32."""
        return self.towers.texts(prompts).float().cpu()


class _OpenClip:
    # The image tower's weights are converted once: autocast converts them again for every batch, which on a CPU costs
    # twice the time of the products themselves.
    def __init__(self, model: Any, tokenizer: Any, device: torch.device, precision: str) -> None:
        self._model, self._tokenizer, self._device = model.to(device).eval(), tokenizer, device
        if precision == "bf16":
            self._model.visual.to(torch.bfloat16)

    def images(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(pixels)
        return features

    def texts(self, prompts: list[str]) -> Tensor:
        features: Tensor = self._model.encode_text(self._tokenizer(prompts).to(self._device))
        return features


class _HuggingFace:
    def __init__(self, model: Any, tokenizer: Any, device: torch.device, precision: str) -> None:
        self._model, self._tokenizer, self._device = model.to(device).eval(), tokenizer, device
        if precision == "bf16":
            self._model.vision_model.to(torch.bfloat16)
            self._model.visual_projection.to(torch.bfloat16)

    def images(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output)
        return features

    def texts(self, prompts: list[str]) -> Tensor:
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self._device)
        features: Tensor = self._model.text_projection(self._model.text_model(**tokens).pooler_output)
        return features


def resolve_precision(precision: str, device: torch.device) -> str:
    """'fp32' or 'bf16'; 'auto' is bf16 where the hardware computes in it."""
    return ("bf16" if fast_bf16(device) else "fp32") if precision == "auto" else precision


def load_clip(where: Path, device: torch.device, precision: str = "auto", cache_dir: str | None = None) -> ClipModel:
    """The CLIP model in the folder `where`, or behind a hub id if there is no such folder.

    Code that comes with a model is never run. Raises ConfigError for a folder that is no CLIP model and DataError for
    one whose files are missing or damaged; there is no fallback to another model.
    """
    precision = resolve_precision(precision, device)
    if where.is_dir():
        if (where / "open_clip_config.json").is_file():
            return _open_clip_folder(where, device, precision)
        if (where / "config.json").is_file():
            return _hugging_face(str(where), where, device, precision, {"local_files_only": True})
        raise ConfigError(
            f"{where} is no CLIP model: neither config.json (Hugging Face) nor open_clip_config.json (open_clip) is"
            " there."
        )
    if where.exists():
        raise ConfigError(
            f"{where} is a file; give the folder of the CLIP model that holds its configuration and weights."
        )
    return _from_hub(str(where), device, precision, cache_dir)


def model_digest(where: Path) -> str:
    """What stands for a model's content: the digest of the names and contents of its files; of a hub id, the id."""
    if not where.is_dir():
        return f"hub:{where}"
    return files.digest_json(
        {path.name: files.digest_file(path) for path in sorted(where.iterdir()) if path.is_file()}
    )[:32]


def _weights(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds no weights ({' or '.join(names)}); copy the whole model folder.")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); copy the model again.") from None
    return loaded


def _open_clip_folder(folder: Path, device: torch.device, precision: str) -> ClipModel:
    import open_clip

    config = _read_config(folder / "open_clip_config.json")
    weights = _weights(folder, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))
    size = config.get("model_cfg", {}).get("vision_cfg", {}).get("image_size", 224)
    preprocess_cfg = config.get("preprocess_cfg", {})
    try:
        # Built from the config alone, then loaded here: open_clip would take weights that it finds anywhere.
        logging.disable(logging.WARNING)  # it would warn of random weights, which the next line replaces
        try:
            model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_image=False)
        finally:
            logging.disable(logging.NOTSET)
        open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except Exception as error:  # open_clip, torch and safetensors each raise their own kinds
        raise DataError(
            f"The open_clip model in {folder} can't be loaded ({_told(error)}); copy it again or check its"
            " configuration."
        ) from None
    preprocess = Preprocess(
        int(size[0] if isinstance(size, list) else size),
        tuple(preprocess_cfg.get("mean", OPENAI_MEAN)),
        tuple(preprocess_cfg.get("std", OPENAI_STD)),
    )
    return ClipModel(
        folder.name, model_digest(folder), preprocess, device, precision, _OpenClip(model, tokenizer, device, precision)
    )


def _hugging_face(
    source: str, folder: Path | None, device: torch.device, precision: str, how: dict[str, Any]
) -> ClipModel:
    from transformers import CLIPModel, CLIPTokenizer

    if folder is not None:
        config = _read_config(folder / "config.json")
        if config.get("model_type") != "clip":
            raise ConfigError(
                f"{folder} holds a model of type '{config.get('model_type')}', not clip; give a CLIP model."
            )
        _weights(folder, ("model.safetensors", "model.safetensors.index.json"))
    try:
        model = CLIPModel.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32, trust_remote_code=False, **how
        )
        tokenizer = CLIPTokenizer.from_pretrained(source, trust_remote_code=False, **how)
        preprocess = _hf_preprocess(source, folder, model.config.vision_config.image_size, how)
    except Exception as error:
        raise DataError(
            f"The CLIP model {source} can't be loaded ({_told(error)}); copy the whole model folder, or check the"
            " hub id."
        ) from None
    digest = model_digest(folder) if folder else f"hub:{source}@{how.get('revision') or 'main'}"
    return ClipModel(
        Path(source).name, digest, preprocess, device, precision, _HuggingFace(model, tokenizer, device, precision)
    )


def _hf_preprocess(source: str, folder: Path | None, size: int, how: dict[str, Any]) -> Preprocess:
    if folder is not None:
        path = next(
            (
                folder / name
                for name in ("preprocessor_config.json", "processor_config.json")
                if (folder / name).is_file()
            ),
            None,
        )
        if path is None:
            return Preprocess(size)
    else:
        from huggingface_hub import hf_hub_download

        path = Path(
            hf_hub_download(
                source, "preprocessor_config.json", revision=how.get("revision"), cache_dir=how.get("cache_dir")
            )
        )
    config = _read_config(path)
    config = config.get("image_processor", config)
    return Preprocess(size, tuple(config.get("image_mean", OPENAI_MEAN)), tuple(config.get("image_std", OPENAI_STD)))


def _from_hub(name: str, device: torch.device, precision: str, cache_dir: str | None) -> ClipModel:
    import open_clip

    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ConfigError(
            f"There is no folder {name}, and HF_HUB_OFFLINE=1 forbids asking a hub; give the path of a model folder."
        )
    plain, _, revision = name.removeprefix("hf-hub:").partition("@")
    architecture, _, tag = plain.partition("/")
    if architecture in open_clip.list_models() and tag in open_clip.list_pretrained_tags_by_model(architecture):
        quick = tag == "openai" and not architecture.endswith("-quickgelu")
        model, _, transform = open_clip.create_model_and_transforms(
            architecture, pretrained=tag, force_quick_gelu=quick, cache_dir=cache_dir
        )
        normalize = transform.transforms[-1]
        preprocess = Preprocess(
            int(model.visual.image_size[0] if isinstance(model.visual.image_size, tuple) else model.visual.image_size),
            tuple(normalize.mean),
            tuple(normalize.std),
        )
        return ClipModel(
            plain,
            f"hub:{plain}",
            preprocess,
            device,
            precision,
            _OpenClip(model, open_clip.get_tokenizer(architecture), device, precision),
        )
    from huggingface_hub import file_exists, snapshot_download

    try:
        is_open_clip = file_exists(plain, "open_clip_config.json", revision=revision or None)
        patterns = ["open_clip_config.json", "open_clip_model.safetensors", "*.txt", "tokenizer*", "vocab.json"]
        folder = (
            Path(snapshot_download(plain, revision=revision or None, cache_dir=cache_dir, allow_patterns=patterns))
            if is_open_clip
            else None
        )
    except Exception as error:
        raise ConfigError(
            f"The hub did not answer for {name} ({_told(error)}); give the path of a model folder, or check the id"
            " and the network."
        ) from None
    if folder is not None:
        return _open_clip_folder(folder, device, precision)
    return _hugging_face(plain, None, device, precision, {"revision": revision or None, "cache_dir": cache_dir})


def _told(error: Exception) -> str:
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"
