"""The photograph classifier: a ResNet with a small head, the checkpoints, and the predictions.

ResNet: He et al., "Deep Residual Learning for Image Recognition", 2015. The implementation and the weights are
torchvision's.
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

from vasevqa.curation.calibration import Calibration
from vasevqa.errors import ConfigError, DataError, machine_error
from vasevqa.model_formats import CLASSIFIER_FILE
from vasevqa.storage import refuse_failed

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pixels of ImageNet
ARCHITECTURES: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "resnet50": (models.resnet50, 2048),
    "resnet18": (models.resnet18, 512),
}


def build(arch: str) -> nn.Module:
    """Return a ResNet with random weights and a head of layers 512-256-2 (ReLU, dropout 0.5 and 0.3)."""
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
    """Load weights into `model`.

    `weights` is 'none' (keep the random weights), 'imagenet' (from torchvision's hub), or 'file' (from `path`). The
    head always keeps its random weights. Raise ConfigError if the weights can't be downloaded, or if `weights` is
    'file' and `path` is None. Raise DataError if the file can't be read or has no weights of this architecture.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        name = {"resnet50": "ResNet50_Weights.IMAGENET1K_V2", "resnet18": "ResNet18_Weights.IMAGENET1K_V1"}[arch]
        try:
            state = models.get_weight(name).get_state_dict(check_hash=True)
        except Exception as error:
            raise machine_error(error, "read or write") or ConfigError(
                f"ImageNet weights of {arch} can't be downloaded ({type(error).__name__}); give --weights FILE, or"
                " --weights none."
            ) from None
    else:
        if path is None:
            raise ConfigError("`--weights=file` needs a checkpoint; give its path with --weights-file.")
        state = _state(read_checkpoint(path), path)
    fitting = {name: value for name, value in state.items() if not name.startswith("fc.")}
    own = model.state_dict()
    wrong = [name for name, value in fitting.items() if name not in own or own[name].shape != value.shape]
    if wrong or not fitting:
        raise DataError(
            f"{path or weights} holds no weights of {arch} (mismatch: {wrong[0] if wrong else 'nothing'}); give the"
            " right --arch."
        )
    model.load_state_dict(fitting, strict=False)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the mapping in a .pth or .safetensors file, without running code from the file.

    Raise DataError if the file is missing or can't be read.
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
        refuse_failed(error, path)
        with open(path, "rb") as stream:
            serialized = stream.read(2)[:1] in (b"P", b"\x80")  # a zip archive or a pickle, as torch.save writes them
        unsafe = serialized and ("weights_only" in str(error) or "Unsupported" in str(error))
        why = (
            "it holds objects other than tensors, which may run code"
            if unsafe
            else "it is damaged, or it is not a PyTorch checkpoint"
        )
        raise DataError(f"{path} can't be loaded: {why}; save the model's state_dict again.") from None
    except Exception as error:  # safetensors raises its own kind of error
        refuse_failed(error, path)
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
    """A trained classifier. Class 1 is high quality. `calibration` turns logits into probabilities."""

    model: nn.Module
    arch: str
    image_size: int
    calibration: Calibration
    device: torch.device

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return the calibrated probability of class 1 for normalized pixels.

        `pixels` is (B, 3, H, W). The result is (B,) float32 on the CPU.
        """
        return self.calibration.probabilities(predict_logits(self.model, pixels, self.device))


def predict_logits(model: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """Return logits (B, 2) as float32 on the CPU.

    The model computes in bf16 if the hardware supports bf16. The memory format is channels_last.
    """
    from vasevqa.curation.devices import fast_bf16

    pixels = pixels.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
        logits: Tensor = model(pixels)
    return logits.float().cpu()


def model_file(where: Path) -> Path:
    """Return the path of the model file: the file in `where` if `where` is a folder, and otherwise `where` itself."""
    return where / CLASSIFIER_FILE if where.is_dir() else where


def load_classifier(where: Path, device: torch.device) -> Classifier:
    """Load the classifier from a .pth file, or from a folder that holds best_image_quality_model.pth.

    train-classifier writes such a file. A plain state_dict in the original project's format is also accepted, with or
    without the prefix `module.` in its keys. Raise DataError if the file is missing, damaged, or for a different model.
    """
    path = model_file(where)
    loaded = read_checkpoint(path)
    state = _state(loaded, path)
    arch = loaded.get("arch") or ("resnet50" if "layer1.0.conv3.weight" in state else "resnet18")
    if arch not in ARCHITECTURES:
        raise DataError(f"{path} holds an unknown architecture '{arch}'; use resnet50 or resnet18.")
    model = build(arch)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        refuse_failed(error, path)
        detail = str(error).splitlines()[1].strip()[:160] if len(str(error).splitlines()) > 1 else str(error)[:160]
        raise DataError(
            f"{path} doesn't fit {arch} with this project's head ({detail}); give a model that train-classifier wrote."
        ) from None
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    calibration = Calibration(float(loaded.get("temperature", 1.0)), float(loaded.get("bias", 0.0)))
    return Classifier(model, arch, int(loaded.get("image_size", 224)), calibration, device)


class EvalTransform:
    """Turn an RGB image into a normalized (3, S, S) float32 tensor.

    The shorter side is resized to S * 256/224. Then the centre is cropped, as in ImageNet evaluation.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.resize = round(size * 256 / 224)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the normalized pixels of `image`."""
        return normalized(functional.pil_to_tensor(self.cropped(image)))

    def cropped(self, image: Image.Image) -> Image.Image:
        """Return the image resized and cropped, still in 8-bit RGB."""
        small = functional.resize(image, [self.resize], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
        return functional.center_crop(small, [self.size, self.size])


def normalized(pixels: Tensor) -> Tensor:
    """Return uint8 pixels (..., 3, H, W) as float32, normalized with ImageNet's mean and standard deviation."""
    return functional.normalize(functional.to_dtype(pixels, torch.float32, scale=True), list(MEAN), list(STD))
