"""Split the labelled images by vase, train the classifier epoch by epoch, and measure how good it is."""

from __future__ import annotations

import hashlib
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
from vasevqa.curation.calibration import calibration_error
from vasevqa.curation.classifier import EvalTransform, normalized, predict_logits
from vasevqa.curation.devices import fast_bf16
from vasevqa.curation.images import ImageFile
from vasevqa.curation.labels import Labelled, check_vases
from vasevqa.curation.loader import Loader
from vasevqa.curation.reports import ClassifierMetrics, QuarantinedFile, quarantined_files
from vasevqa.errors import DataError
from vasevqa.folders import PassedOver
from vasevqa.statistics import FEWEST, by_vase

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Settings:
    """The settings that determine the result of a training run."""

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
    """All labelled images, decoded.

    `pixels` is (N, 3, S, S) uint8. A large array is memory-mapped. `others` counts the files that were not read.
    """

    names: list[str]
    labels: Tensor
    pixels: Tensor
    quarantined: list[QuarantinedFile]
    others: PassedOver
    seconds: dict[str, float]


def load_data(
    labelled: Sequence[Labelled],
    others: PassedOver,
    size: int,
    workers: int,
    scratch: Path | None,
    on_image: Callable[[int], None],
) -> Data:
    """Decode the labelled photographs. `others` counts the other files in the folders, which are not read.

    The images are stored with sides of `size` * 256/224, so that random crops have a margin. Data of 2 GiB or more are
    stored in the memory-mapped file `scratch`, if given. Raise DataError if a class has no readable image.
    """
    photographs = [ImageFile(item.file.path, item.name, item.file.problem) for item in labelled]
    side = round(size * 256 / 224)
    store = _store(len(photographs), side, scratch)
    crop = EvalTransform(size)
    crop.size = crop.resize  # side of the square from which training crops

    def transform(image: Any) -> Tensor:
        return torch.from_numpy(np.asarray(crop.cropped(image)).copy()).permute(2, 0, 1)

    loader = Loader(photographs, transform, 64, workers, cover=side)
    names: list[str] = []
    for batch in loader:
        store[len(names) : len(names) + len(batch.names)] = batch.pixels
        names += batch.names
        on_image(len(batch.names))
    labels = torch.tensor([int(name[0]) for name in names])
    for label in (0, 1):
        if not (labels == label).any():
            raise DataError(f"None of the images of class {label} can be read; check the files.")
    return Data(
        names,
        labels,
        store[: len(names)],
        quarantined_files(loader.quarantined),
        others,
        {"decode": loader.seconds["wait"]},
    )


def _store(count: int, side: int, scratch: Path | None) -> Tensor:
    if count * side * side * 3 < 2 << 30 or scratch is None:
        return torch.empty((count, 3, side, side), dtype=torch.uint8)
    return torch.from_numpy(np.memmap(scratch, dtype=np.uint8, mode="w+", shape=(count, 3, side, side)))


def split(labels: Tensor, vases: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Split the images into train (80%), val (10%) and test (10%), and return the indices of the images in each part.

    `vases` holds the vase of each image. All images of a vase are in one part. Each class is split separately. A vase
    with images of both classes counts for the class of most of its images. Raise DataError if a class has fewer than
    three vases.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, vase in enumerate(vases):
        groups[vase].append(index)
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    of = {
        label: sorted(key for key, rows in groups.items() if round(float(labels[rows].float().mean()) + 1e-9) == label)
        for label in (0, 1)
    }
    check_vases(of)
    for label, mine in of.items():
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


def split_by_collection(
    labels: Tensor, vases: Sequence[str], collections: Sequence[str], left_out: str, seed: int
) -> dict[str, list[int]]:
    """Use the collection `left_out` as the test part, and return the indices of the images in each part.

    `collections` holds the collection of each image. The test part consists of all vases that have an image in the
    collection `left_out`. `split` divides the other vases into train, val and test. The test part from `split` is added
    to train. Raise DataError if no image belongs to the collection `left_out`, or if there are too few other vases.
    """
    names = sorted({name for name in collections if name})
    if left_out not in names:
        raise DataError(
            f"leave_out: no labelled photograph lies in a folder {left_out} below 0/ or 1/; the folders are"
            f" {', '.join(names[:10]) or 'none'}."
        )
    held = {vase for vase, name in zip(vases, collections, strict=True) if name == left_out}
    test = [row for row, vase in enumerate(vases) if vase in held]
    rest = [row for row, vase in enumerate(vases) if vase not in held]
    parts = split(labels[rest], [vases[row] for row in rest], seed)
    return {
        "train": sorted(rest[row] for part in ("train", "test") for row in parts[part]),
        "val": [rest[row] for row in parts["val"]],
        "test": test,
    }


def centre(pixels: Tensor, size: int) -> Tensor:
    """Return the central square (size, size) of uint8 pixels (..., H, W)."""
    margin = (pixels.shape[-1] - size) // 2
    return pixels[..., margin : margin + size, margin : margin + size]


@dataclass
class Trainer:
    """A training run, epoch by epoch. To continue an interrupted run, pass the result of `state` to `restore`."""

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
        # A rare class has a greater weight, so that always predicting the common class gives no low loss.
        self.loss = nn.CrossEntropyLoss(weight=(counts.sum() / (2 * counts)).to(self.device))

    @property
    def finished(self) -> bool:
        """True if all epochs are done, or if the validation loss hasn't improved for `patience` epochs."""
        done = len(self.history)
        return done >= self.settings.epochs or (
            self.settings.patience > 0 and done - 1 - self.best.get("epoch", done) >= self.settings.patience
        )

    def rate(self, epoch: int) -> float:
        """Return the learning rate. It first rises linearly, then stays constant or falls to 1% along a cosine."""
        settings = self.settings
        if epoch < settings.warmup_epochs:
            return settings.learning_rate * (epoch + 1) / (settings.warmup_epochs + 1)
        if settings.schedule == "constant":
            return settings.learning_rate
        part = (epoch - settings.warmup_epochs) / max(1, settings.epochs - settings.warmup_epochs)
        return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part)))

    def epoch(self, on_batch: Callable[[int], None]) -> dict[str, float]:
        """Train one epoch, and return its learning rate, its losses and its validation accuracy.

        The random numbers depend only on the seed and the epoch. An interruption therefore doesn't change the result.
        """
        number = len(self.history)
        torch.manual_seed(self.settings.seed * 100_003 + number)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number)
        self.model.train()
        order = torch.tensor(self.parts["train"])[torch.randperm(len(self.parts["train"]))]
        total = torch.zeros(
            (), dtype=torch.float64, device=self.device
        )  # read once per epoch, because each read makes the GPU wait
        # Batch normalization fails on a last batch of one image.
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
        if not math.isfinite(row["train_loss"]) or not math.isfinite(row["val_loss"]):
            raise DataError(
                f"The loss of epoch {number + 1} is not a number, so the training has diverged; set a learning_rate"
                f" below {self.settings.learning_rate:g}."
            )
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
        """Return logits (N, 2) for one part of the split, as float32 on the CPU."""
        self.model.eval()
        chunks = torch.tensor(self.parts[part]).split(64)
        batches = (centre(self.data.pixels[chunk], self.size).to(self.device) for chunk in chunks)
        return torch.cat([predict_logits(self.model, normalized(pixels), self.device) for pixels in batches])

    def state(self) -> dict[str, Any]:
        """Return all values that the next epoch depends on, as tensors and plain Python values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue a training run. `state` is the result of the method `state`, saved before the interruption."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.best = list(state["history"]), dict(state["best"])


def evaluate(probabilities: Tensor, labels: Tensor, vases: Sequence[str]) -> ClassifierMetrics:
    """Return the classification metrics of probabilities (N,) of class 1 against labels (N,).

    An image is classified as high quality if its probability is at least 0.5. `vases` holds the vase of each image. The
    confidence intervals treat vases, not images, as independent, because images of one vase are alike.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

    predicted = (probabilities >= 0.5).long().numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="binary", zero_division=0)
    both = len(set(labels.tolist())) == 2
    share = float(labels.float().mean())
    return ClassifierMetrics(
        accuracy=float(accuracy_score(labels, predicted)),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        roc_auc=float(roc_auc_score(labels, probabilities)) if both else None,
        confusion_matrix=confusion_matrix(labels, predicted, labels=[0, 1]).tolist(),
        baseline_accuracy=max(share, 1 - share),
        calibration_error=calibration_error(probabilities.tolist(), labels.tolist()),
        mean_probability=float(probabilities.mean()),
        share_high=share,
        images=len(labels),
        vases=len(set(vases)),
        intervals=_intervals(predicted.tolist(), probabilities.numpy(), labels.tolist(), vases),
    )


def _intervals(
    predicted: Sequence[int], probabilities: np.ndarray, labels: Sequence[int], vases: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return a mapping from the names of metrics to their 95% confidence intervals.

    The intervals take into account that images of one vase are alike. Accuracy, precision and recall get Wilson's
    interval, and the ROC-AUC gets a bootstrap interval. A metric with too few vases is omitted.
    """
    right = [float(one == true) for one, true in zip(predicted, labels, strict=True)]
    of = {
        "accuracy": range(len(labels)),
        "precision": [number for number, one in enumerate(predicted) if one == 1],
        "recall": [number for number, true in enumerate(labels) if true == 1],
    }
    intervals = {}
    for name, numbers in of.items():
        if numbers:
            estimate = by_vase([right[number] for number in numbers], [vases[number] for number in numbers])
            if estimate.interval is not None:
                intervals[name] = estimate.interval
    ranks = _rank_interval(probabilities, np.asarray(labels), vases)
    return intervals | ({"roc_auc": ranks} if ranks else {})


def _rank_interval(probabilities: np.ndarray, labels: np.ndarray, vases: Sequence[str]) -> tuple[float, float] | None:
    """Return the 95% interval of the ROC-AUC by resampling vases (Efron, 1979), or None if there are too few vases."""
    from sklearn.metrics import roc_auc_score

    names = sorted(set(vases))
    if len(names) < FEWEST:
        return None
    rows = {name: [number for number, vase in enumerate(vases) if vase == name] for name in names}
    rng, values = np.random.default_rng(0), []
    for _ in range(400):
        drawn = [number for pick in rng.integers(0, len(names), len(names)) for number in rows[names[pick]]]
        if 0 < labels[drawn].sum() < len(drawn):
            values.append(roc_auc_score(labels[drawn], probabilities[drawn]))
    if len(values) < 200:
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def doubled(data: Data) -> list[str]:
    """Return a text for each picture that occurs in both classes.

    The text names one image of each class. The two images have the same pixels, so their labels contradict each other.
    """

    def digests(label: int) -> dict[bytes, str]:
        numbers = (data.labels == label).nonzero().flatten().tolist()
        return {
            hashlib.sha256(data.pixels[number].numpy().tobytes()).digest(): data.names[number] for number in numbers
        }

    low, high = digests(0), digests(1)
    return sorted(f"{name} has the same content as {low[digest]}" for digest, name in high.items() if digest in low)


def history_png(history: list[dict[str, float]], best: int) -> bytes:
    """Plot losses and validation accuracy over the epochs as a PNG."""
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
