"""Training the classifier: split by vase, decode once, augment batches, resume after a kill, calibrate."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vasevqa.curation.augmentation import augmented
from vasevqa.curation.classifier import EvalTransform, normalized, predict_logits
from vasevqa.curation.devices import fast_bf16
from vasevqa.curation.file_names import name_pattern, vase_group
from vasevqa.curation.images import ImageFile, find_images
from vasevqa.curation.loader import Loader
from vasevqa.curation.reports import ClassifierMetrics, QuarantinedFile, quarantined_files
from vasevqa.errors import DataError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Settings:
    """What decides the training's result."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: int
    patience: int
    schedule: str
    seed: int
    augment: bool = True


@dataclass
class Data:
    """All labelled images, decoded once:

    `pixels` is (N, 3, S, S) uint8 (in memory, or mapped from a file where large).
    """

    names: list[str]
    labels: Tensor
    pixels: Tensor
    quarantined: list[QuarantinedFile]
    seconds: dict[str, float]


def load_data(folder: Path, size: int, workers: int, scratch: Path | None, on_image: Callable[[int], None]) -> Data:
    """Decode the folders `0/` (low quality) and `1/` (high quality); DataError where one is missing or empty.

    Images are kept at 256/224 of the model's size so that random crops have a margin. Beyond 2 GB they live in a
    memory-mapped file in `scratch`.
    """
    found: list[tuple[int, ImageFile]] = []
    for label in (0, 1):
        if not (folder / str(label)).is_dir():
            raise DataError(
                f"{folder} has no folder '{label}'; low-quality images belong in 0/, high-quality ones in 1/."
            )
        inside = list(find_images(folder / str(label)))
        if not inside:
            raise DataError(
                f"{folder / str(label)} holds no image; low-quality images belong in 0/, high-quality ones in 1/."
            )
        found += [(label, ImageFile(item.path, f"{label}/{item.name}", item.problem)) for item in inside]
    side = round(size * 256 / 224)
    store = _store(len(found), side, scratch)
    crop = EvalTransform(size)
    crop.size = crop.resize  # the square that training crops from

    def transform(image: Any) -> Tensor:
        return torch.from_numpy(np.asarray(crop.cropped(image)).copy()).permute(2, 0, 1)

    loader = Loader((item for _, item in found), transform, 64, workers, cover=side)
    names: list[str] = []
    for batch in loader:
        store[len(names) : len(names) + len(batch.names)] = batch.pixels
        names += batch.names
        on_image(len(batch.names))
    labels = torch.tensor([int(name[0]) for name in names])
    for label in (0, 1):
        if not (labels == label).any():
            raise DataError(f"None of the images in {folder / str(label)} can be read; check the files.")
    return Data(
        names, labels, store[: len(names)], quarantined_files(loader.quarantined), {"decode": loader.seconds["wait"]}
    )


def _store(count: int, side: int, scratch: Path | None) -> Tensor:
    if count * side * side * 3 < 2 << 30 or scratch is None:
        return torch.empty((count, 3, side, side), dtype=torch.uint8)
    return torch.from_numpy(np.memmap(scratch, dtype=np.uint8, mode="w+", shape=(count, 3, side, side)))


def split(names: Sequence[str], labels: Tensor, pattern: str | None, seed: int) -> dict[str, list[int]]:
    """Indices of train, val and test, 80/10/10, stratified by class, all views of a vase on one side.

    A vase with images of both classes counts for the class that it has more of. DataError where a class has fewer than
    three vases.
    """
    compiled = name_pattern(pattern)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        groups[vase_group(name.partition("/")[2], compiled)].append(index)
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for label in (0, 1):
        mine = sorted(key for key, rows in groups.items() if round(float(labels[rows].float().mean()) + 1e-9) == label)
        if len(mine) < 3:
            raise DataError(
                f"Class {label} has images of {len(mine)} vases, and training, validation and test need one each; add"
                f" images to {label}/."
            )
        random.Random(f"{seed}-{label}").shuffle(mine)
        total = sum(len(groups[key]) for key in mine)
        wanted = {"val": 0.1 * total, "test": 0.1 * total}
        for key in mine:
            part = next(
                (part for part in ("val", "test") if sum(1 for i in parts[part] if labels[i] == label) < wanted[part]),
                "train",
            )
            parts[part] += groups[key]
        if not any(labels[index] == label for index in parts["train"]):
            raise DataError(f"Class {label} has too few vases to split; add images to {label}/.")
    return {part: sorted(rows) for part, rows in parts.items()}


def centre(pixels: Tensor, size: int) -> Tensor:
    """The central (size, size) of uint8 pixels (..., H, W)."""
    margin = (pixels.shape[-1] - size) // 2
    return pixels[..., margin : margin + size, margin : margin + size]


@dataclass
class Trainer:
    """One training, an epoch at a time; `state` and `restore` carry it over a kill."""

    model: nn.Module
    data: Data
    parts: dict[str, list[int]]
    settings: Settings
    size: int
    device: torch.device
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        counts = torch.bincount(self.data.labels[self.parts["train"]], minlength=2).float()
        # Rare classes count for more, so that the loss doesn't reward guessing the common one.
        self.loss = nn.CrossEntropyLoss(weight=(counts.sum() / (2 * counts)).to(self.device))

    @property
    def finished(self) -> bool:
        """All epochs are done, or the validation loss hasn't improved for `patience` epochs."""
        done = len(self.history)
        return done >= self.settings.epochs or (
            self.settings.patience > 0 and done - 1 - self.best.get("epoch", done) >= self.settings.patience
        )

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch: linear warm-up, then a cosine to a hundredth (or constant)."""
        settings = self.settings
        if epoch < settings.warmup_epochs:
            return settings.learning_rate * (epoch + 1) / (settings.warmup_epochs + 1)
        if settings.schedule == "constant":
            return settings.learning_rate
        part = (epoch - settings.warmup_epochs) / max(1, settings.epochs - settings.warmup_epochs)
        return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part)))

    def epoch(self, on_batch: Callable[[int], None]) -> dict[str, float]:
        """Train one epoch and validate; the same for a seed and an epoch, whatever was interrupted before."""
        number = len(self.history)
        torch.manual_seed(self.settings.seed * 100_003 + number)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number)
        self.model.train()
        order = torch.tensor(self.parts["train"])[torch.randperm(len(self.parts["train"]))]
        total = torch.zeros(
            (), dtype=torch.float64, device=self.device
        )  # read once an epoch: each look would make a GPU wait
        # A last batch of one image would stop batch normalization.
        chunks = [chunk for chunk in order.split(self.settings.batch_size) if len(chunk) > 1 or len(order) == 1]
        for chunk in chunks:
            labels = self.data.labels[chunk].to(self.device)
            inputs = self._inputs(self.data.pixels[chunk].to(self.device)).contiguous(memory_format=torch.channels_last)
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_bf16(self.device)):
                logits = self.model(inputs)
            loss = self.loss(logits.float(), labels)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(chunk)
            on_batch(len(chunk))
        logits = self.logits("val")
        labels = self.data.labels[self.parts["val"]]
        row = {
            "epoch": number,
            "learning_rate": self.rate(number),
            "train_loss": float(total) / max(1, sum(len(chunk) for chunk in chunks)),
            "val_loss": float(nn.functional.cross_entropy(logits, labels)),
            "val_accuracy": float((logits.argmax(-1) == labels).float().mean()),
        }
        self.history.append(row)
        if not self.best or row["val_loss"] < self.best["val_loss"]:
            self.best = {
                "epoch": number,
                "val_loss": row["val_loss"],
                "state": {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()},
            }
        return row

    def _inputs(self, pixels: Tensor) -> Tensor:
        if not self.settings.augment:
            return normalized(centre(pixels, self.size))
        return normalized(augmented(pixels, self.size))

    @torch.inference_mode()
    def logits(self, part: str) -> Tensor:
        """Logits (N, 2) of a part of the split, float32 on the CPU."""
        self.model.eval()
        chunks = torch.tensor(self.parts[part]).split(64)
        batches = (centre(self.data.pixels[chunk], self.size).to(self.device) for chunk in chunks)
        return torch.cat([predict_logits(self.model, normalized(pixels), self.device) for pixels in batches])

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.best = list(state["history"]), dict(state["best"])


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimizes the cross entropy of logits (N, 2):

    Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    grid = torch.logspace(math.log10(0.25), math.log10(8), 121)
    losses = torch.stack([nn.functional.cross_entropy(logits / value, labels) for value in grid])
    return float(grid[losses.argmin()])


def evaluate(logits: Tensor, labels: Tensor) -> ClassifierMetrics:
    """How right the classes are that logits (N, 2) give, against labels (N,)."""
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

    predicted = logits.argmax(-1).numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="binary", zero_division=0)
    both = len(set(labels.tolist())) == 2
    return ClassifierMetrics(
        accuracy=float(accuracy_score(labels, predicted)),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        roc_auc=float(roc_auc_score(labels, logits.softmax(-1)[:, 1])) if both else None,
        confusion_matrix=confusion_matrix(labels, predicted, labels=[0, 1]).tolist(),
    )


def history_png(history: list[dict[str, float]], best: int) -> bytes:
    """Losses and validation accuracy over the epochs as a PNG."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    for name, axes in (("train_loss", left), ("val_loss", left), ("val_accuracy", right)):
        axes.plot(epochs, [row[name] for row in history], marker=".", label=name.replace("_", " "))
    for axes in (left, right):
        axes.axvline(best + 1, color="grey", linestyle=":", label="best epoch")
        axes.set_xlabel("epoch")
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
