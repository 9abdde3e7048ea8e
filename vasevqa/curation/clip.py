"""Load CLIP models from a Hugging Face folder, an open_clip folder or a hub, and use all of them in the same way.

CLIP: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021. Some models, such
as OpenAI's, need the activation function QuickGELU. The model's configuration says so: the key is `hidden_act` in a
Hugging Face folder, and `quick_gelu` in an open_clip folder.
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

from vasevqa import model_formats
from vasevqa.curation.devices import fast_bf16
from vasevqa.errors import ConfigError, DataError, VaseError, machine_error
from vasevqa.storage import refuse_failed
from vasevqa.text import first_line

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """Turn an image into pixels for the model.

    The shorter side is resized to `size` (bicubic, by PIL). Then the centre is cropped, and the pixels are normalized.
    """

    size: int
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD

    @property
    def cover(self) -> int:
        """The least width and height, in pixels, that a JPEG has after it is decoded at a reduced scale.

        This number is twice the model's input size. The scores then hardly change: their rank correlation with the
        scores of fully decoded JPEGs was at least 0.997. It was only 0.97 for JPEGs decoded at the input size itself
        (measured with a tiny CLIP and photographs of 500 px). Decoding takes less than a sixth of the time that the
        model needs.
        """
        return 2 * self.size

    def __call__(self, image: Image.Image) -> Tensor:
        """Return an RGB image as a (3, size, size) float32 tensor."""
        small = functional.resize(image, [self.size], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        # If the margin is odd, transformers rounds down and torchvision rounds to even. Here it is always rounded down.
        left, top = (small.width - self.size) // 2, (small.height - self.size) // 2
        cropped = small.crop((left, top, left + self.size, top + self.size))
        pixels = functional.to_dtype(functional.pil_to_tensor(cropped), torch.float32, scale=True)
        return functional.normalize(pixels, list(self.mean), list(self.std))


class _Towers(Protocol):
    def images(self, pixels: Tensor) -> Tensor: ...

    def texts(self, prompts: list[str]) -> Tensor: ...


@dataclass
class ClipModel:
    """A loaded CLIP model.

    `digest` identifies the weights. Stored embeddings are used again only if they come from a model with this digest.
    """

    name: str
    digest: str
    preprocess: Preprocess
    device: torch.device
    precision: str  # fp32 or bf16
    towers: _Towers

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return image features (B, D) for pixels (B, 3, size, size).

        The features are float32 on the CPU, and they are not normalized.
        """
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return self.towers.images(pixels.to(self.device, dtype, non_blocking=True)).float().cpu()

    @torch.inference_mode()
    def encode_texts(self, prompts: list[str]) -> Tensor:
        """Return text features (N, D).

        The features are float32 on the CPU, and they are not normalized.
        """
        return self.towers.texts(prompts).float().cpu()


class _OpenClip:
    # The image tower's weights are converted once. Autocast would convert them for every batch, which on a CPU takes
    # twice as long as the matrix products.
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
    """Return 'fp32' or 'bf16'. For 'auto', return 'bf16' if the hardware computes in bf16."""
    return ("bf16" if fast_bf16(device) else "fp32") if precision == "auto" else precision


def load_clip(where: Path, device: torch.device, precision: str = "auto", cache_dir: str | None = None) -> ClipModel:
    """Load the CLIP model from the folder `where`. If there is no such folder, `where` is a hub id.

    Code in a model's folder is never run. If the model can't be loaded, no other model is used. Raise ConfigError if
    `where` is a file, if the folder holds no CLIP model, or if the hub doesn't answer. Raise DataError if files are
    missing or damaged.
    """
    precision = resolve_precision(precision, device)
    if where.is_dir():
        model_formats.refuse_other_clip(where)
        if (where / "open_clip_config.json").is_file():
            return _open_clip_folder(where, device, precision)
        return _hugging_face(str(where), where, device, precision, {"local_files_only": True})
    if where.exists():
        raise ConfigError(
            f"{where} is a file; give the folder of the CLIP model that holds its configuration and weights."
        )
    return _from_hub(str(where), device, precision, cache_dir)


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
        # The model is built from the config alone and loaded here. open_clip could load other weights.
        logging.disable(logging.WARNING)  # open_clip warns of random weights, but they are replaced below
        try:
            model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_image=False)
        finally:
            logging.disable(logging.NOTSET)
        open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except Exception as error:  # open_clip, torch and safetensors each raise their own kinds of error
        refuse_failed(error, folder)
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
        folder.name,
        model_formats.folder_digest(folder),
        preprocess,
        device,
        precision,
        _OpenClip(model, tokenizer, device, precision),
    )


def _hugging_face(
    source: str, folder: Path | None, device: torch.device, precision: str, how: dict[str, Any]
) -> ClipModel:
    from transformers import CLIPModel, CLIPTokenizer

    if folder is not None:
        _weights(folder, ("model.safetensors", "model.safetensors.index.json"))
    try:
        model = CLIPModel.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32, trust_remote_code=False, **how
        )
        tokenizer = CLIPTokenizer.from_pretrained(source, trust_remote_code=False, **how)
        preprocess = _hf_preprocess(source, folder, model.config.vision_config.image_size, how)
    except Exception as error:
        refuse_failed(error, folder or Path(source))
        raise DataError(
            f"The CLIP model {source} can't be loaded ({_told(error)}); copy the whole model folder, or check the"
            " hub id."
        ) from None
    digest = model_formats.folder_digest(folder) if folder else f"hub:{source}@{how.get('revision') or 'main'}"
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
            f"There is no folder {name}, and HF_HUB_OFFLINE=1 forbids a download; give the path of a model folder."
        )
    plain, _, revision = name.removeprefix("hf-hub:").partition("@")
    architecture, _, tag = plain.partition("/")
    if architecture in open_clip.list_models() and tag in open_clip.list_pretrained_tags_by_model(architecture):
        return _pretrained(architecture, tag, device, precision, cache_dir)
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
        raise _no_answer(name, error) from None
    if folder is not None:
        return _open_clip_folder(folder, device, precision)
    return _hugging_face(plain, None, device, precision, {"revision": revision or None, "cache_dir": cache_dir})


def _pretrained(architecture: str, tag: str, device: torch.device, precision: str, cache_dir: str | None) -> ClipModel:
    """Return a pretrained model of open_clip, such as ViT-B-32/openai. Raise ConfigError if the download fails."""
    import open_clip

    quick = tag == "openai" and not architecture.endswith("-quickgelu")
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            architecture, pretrained=tag, force_quick_gelu=quick, cache_dir=cache_dir
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # open_clip, torch and the hub each raise their own kinds of error
        raise _no_answer(f"{architecture}/{tag}", error) from None
    normalize = transform.transforms[-1]
    size = model.visual.image_size
    preprocess = Preprocess(
        int(size[0] if isinstance(size, tuple) else size), tuple(normalize.mean), tuple(normalize.std)
    )
    name = f"{architecture}/{tag}"
    return ClipModel(name, f"hub:{name}", preprocess, device, precision, _OpenClip(model, tokenizer, device, precision))


def _no_answer(name: str, error: Exception) -> VaseError:
    return machine_error(error, "read or write", name) or ConfigError(
        f"The hub did not answer for {name} ({_told(error)}); give the path of a model folder, or check the id"
        " and the network."
    )


def _told(error: Exception) -> str:
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"
