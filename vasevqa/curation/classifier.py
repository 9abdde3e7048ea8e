"""The photograph classifier: ResNet with a small head, its data on disk, prediction, and its files.

ResNet: He et al., "Deep Residual Learning for Image Recognition", 2015 (torchvision's implementation and weights).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from vasevqa.errors import ConfigError, DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which torchvision's weights expect
MODEL_FILE = "best_image_quality_model.pth"
ARCHITECTURES: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "resnet50": (models.resnet50, 2048),
    "resnet18": (models.resnet18, 512),
}


def build(arch: str) -> nn.Module:
    """A ResNet with random weights and the head features-512-256-2 (ReLU, dropout 0.5 and 0.3)."""
    make, width = ARCHITECTURES[arch]
    model = make(weights=None)
    model.fc = nn.Sequential(
        nn.Linear(width, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, 2),
    )
    return model


def load_backbone(model: nn.Module, arch: str, weights: str, path: Path | None) -> None:
    """Fill `model` with `weights`: none (random), imagenet (torchvision's, from its hub), or file (`path`).

    ConfigError where the hub can't be reached; DataError where the file is no checkpoint of this architecture.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        name = {"resnet50": "ResNet50_Weights.IMAGENET1K_V2", "resnet18": "ResNet18_Weights.IMAGENET1K_V1"}[arch]
        try:
            state = models.get_weight(name).get_state_dict(check_hash=True)
        except Exception as error:
            raise ConfigError(
                f"ImageNet weights of {arch} can't be fetched ({type(error).__name__}); give --weights FILE, or"
                " --weights none."
            ) from None
    else:
        if path is None:
            raise ConfigError("--weights file needs the file: --weights-file FILE.")
        state = _state(read_checkpoint(path), path)
    fitting = {name: value for name, value in state.items() if not name.startswith("fc.")}
    own = model.state_dict()
    wrong = [name for name, value in fitting.items() if name not in own or own[name].shape != value.shape]
    if wrong or not fitting:
        raise DataError(
            f"{path or weights} holds no weights of {arch} ({wrong[0] if wrong else 'nothing'} doesn't fit); choose the"
            " right --arch."
        )
    model.load_state_dict(fitting, strict=False)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The mapping in a .pth or .safetensors file, loaded without running code from it;

    DataError if that isn't possible.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"There is no model file {path}; check --model-path.") from None
    except PermissionError:
        raise
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
        TypeError,
    ) as error:
        with open(path, "rb") as stream:
            serialized = stream.read(2)[:1] in (b"P", b"\x80")  # a zip archive or a pickle, as torch.save writes them
        unsafe = serialized and ("weights_only" in str(error) or "Unsupported" in str(error))
        why = (
            "it holds objects other than tensors, which are not loaded for safety"
            if unsafe
            else "it is damaged or no PyTorch checkpoint"
        )
        raise DataError(f"{path} can't be loaded: {why}; save the model's state_dict again.") from None
    except Exception as error:  # safetensors has its own error
        raise DataError(f"{path} can't be loaded ({type(error).__name__}); copy it again.") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a {type(loaded).__name__}, not a state_dict; save the model's state_dict.")
    return loaded


def _state(loaded: dict[str, Any], path: Path) -> dict[str, Tensor]:
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            break
    state = {name.removeprefix("module."): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        raise DataError(f"{path} holds no weights; give a checkpoint of the classifier.")
    return state


@dataclass
class Classifier:
    """A trained classifier: class 1 is high quality. Probabilities are softmax(logits / temperature)."""

    model: nn.Module
    arch: str
    image_size: int
    temperature: float
    device: torch.device

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """The calibrated probability of class 1, (B,) float32 on the CPU, from normalized pixels (B, 3, H, W)."""
        logits = predict_logits(self.model, pixels, self.device)
        return (logits / self.temperature).softmax(-1)[:, 1]


def predict_logits(model: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """Logits (B, 2) in float32 on the CPU; bf16 autocast where the hardware has it, channels_last."""
    from vasevqa.curation.devices import fast_bf16

    pixels = pixels.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
        logits: Tensor = model(pixels)
    return logits.float().cpu()


def load_classifier(where: Path, device: torch.device) -> Classifier:
    """The classifier in a .pth file, or in a folder that holds best_image_quality_model.pth.

    Understands what train-classifier writes, and a bare state_dict (with or without `module.`) as the original has it.
    """
    path = where / MODEL_FILE if where.is_dir() else where
    loaded = read_checkpoint(path)
    state = _state(loaded, path)
    arch = loaded.get("arch") or ("resnet50" if "layer1.0.conv3.weight" in state else "resnet18")
    if arch not in ARCHITECTURES:
        raise DataError(f"{path} holds an unknown architecture '{arch}'; use resnet50 or resnet18.")
    model = build(arch)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()[:160] if len(str(error).splitlines()) > 1 else str(error)[:160]
        raise DataError(
            f"{path} doesn't fit {arch} with this project's head ({detail}); train it with train-classifier."
        ) from None
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return Classifier(model, arch, int(loaded.get("image_size", 224)), float(loaded.get("temperature", 1.0)), device)


class EvalTransform:
    """An RGB image as a normalized (3, S, S) float32 tensor: shorter side to S * 256/224, centre crop, as in ImageNet
    evaluation.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.resize = round(size * 256 / 224)

    def __call__(self, image: Image.Image) -> Tensor:
        """Pixels ready for the model."""
        return normalized(functional.pil_to_tensor(self.cropped(image)))

    def cropped(self, image: Image.Image) -> Image.Image:
        """The image resized and cropped, still 8-bit RGB."""
        small = functional.resize(image, [self.resize], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
        return functional.center_crop(small, [self.size, self.size])


def normalized(pixels: Tensor) -> Tensor:
    """uint8 pixels (..., 3, H, W) as ImageNet-normalized float32."""
    return functional.normalize(functional.to_dtype(pixels, torch.float32, scale=True), list(MEAN), list(STD))
