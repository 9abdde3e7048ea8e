"""Score photographs with CLIP by how complete and undamaged the vase looks, and recommend thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vasevqa.curation.reports import Recommendation
from vasevqa.errors import ConfigError
from vasevqa.text import percent

if TYPE_CHECKING:
    from torch import Tensor

HIGH_PROMPTS = (
    "a photograph of a complete ancient vase seen from the front",
    "an intact ancient Greek vase with both handles",
    "a whole, undamaged painted vase standing upright",
    "a well-preserved ceramic vessel on a plain background",
    "a museum photograph of an unbroken amphora",
    "a sharp, well-lit photograph of an entire vase",
    "a complete vase with its rim, body and foot",
    "a perfectly preserved ancient pot, frontal view",
)
LOW_PROMPTS = (
    "a photograph of a broken fragment of an ancient vase",
    "a potsherd with irregular broken edges",
    "a damaged vase with missing pieces and large cracks",
    "a blurred photograph of a vase",
    "a photograph too dark to see the vase",
    "a line drawing of a vase on paper",
    "an incomplete vessel with a broken rim",
    "a close-up of a part of a vase, cut off at the edge",
)
PERCENTILES = (10, 25, 50, 75, 90)
RECOMMENDATIONS = (("conservative", 10), ("moderate", 25), ("balanced", 50), ("aggressive", 75), ("strict", 90))


@dataclass(frozen=True)
class Prompts:
    """Descriptions of wanted images (`high`) and of unwanted images (`low`)."""

    high: tuple[str, ...] = HIGH_PROMPTS
    low: tuple[str, ...] = LOW_PROMPTS


def load_prompts(path: Path | None) -> Prompts:
    """Return the prompts in a YAML or JSON file with the lists `high` and `low`, or the defaults if `path` is None.

    Raise ConfigError if the file is invalid.
    """
    if path is None:
        return Prompts()
    from vasevqa.yaml_files import FileKind, Lines, parse, read_text

    kind = FileKind("prompts file", "give a YAML file with two lists of sentences, `high` and `low`")
    hint = "the prompts file holds two lists of sentences, `high` and `low`"
    loaded = parse(read_text(path, kind), Lines(str(path)), aliases=True, hint=hint)
    for side in ("high", "low"):
        sentences = loaded.get(side) if isinstance(loaded, dict) else None
        if (
            not isinstance(sentences, list)
            or not sentences
            or not all(isinstance(sentence, str) and sentence.strip() for sentence in sentences)
        ):
            raise ConfigError(
                f"The prompts file {path} has no valid list `{side}`; write a list of sentences with this name."
            )
    unknown = set(loaded) - {"high", "low"}
    if unknown:
        raise ConfigError(
            f"The prompts file {path} has the unknown key '{sorted(unknown)[0]}'; write only the lists `high` and"
            " `low`."
        )
    return Prompts(tuple(loaded["high"]), tuple(loaded["low"]))


@dataclass(frozen=True)
class Scores:
    """The similarities of each image to the high prompts and to the low prompts.

    `nearest_high` is the index of the most similar high prompt. `nearest_low` is the index of the most similar low
    prompt. All arrays are (N,).
    """

    high: np.ndarray
    low: np.ndarray
    nearest_high: np.ndarray
    nearest_low: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """The scores: cos(image, mean of the high prompts) - cos(image, mean of the low prompts)."""
        return np.asarray(self.high - self.low)


def score(images: Tensor, high: Tensor, low: Tensor) -> Scores:
    """Score image features (N, D) against the text features (P, D) of the high prompts and of the low prompts.

    The text features are not normalized before their mean is computed. Only the mean is normalized. A prompt with a
    long feature vector therefore has more influence on the mean, as in the original project's quality filter.
    """
    from torch.nn.functional import (
        normalize,
    )  # imported here, because select-views needs only the statistics, and torch takes seconds

    pictures = normalize(images.float(), dim=-1)
    sides = []
    for side in (high.float(), low.float()):
        sides.append((pictures @ normalize(side.mean(0), dim=-1), (pictures @ normalize(side, dim=-1).T).argmax(-1)))
    (to_high, nearest_high), (to_low, nearest_low) = sides
    return Scores(
        *(
            part.double().numpy() if part.dtype.is_floating_point else part.numpy()
            for part in (to_high, to_low, nearest_high, nearest_low)
        )
    )


def statistics(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return count, mean, standard deviation, minimum, maximum, median and percentiles of `values`.

    `values` must not be empty. Percentiles are interpolated linearly (numpy's default).
    """
    numbers = np.asarray(values, dtype=np.float64)
    results = {
        "count": float(numbers.size),
        "mean": numbers.mean(),
        "std": numbers.std(),
        "min": numbers.min(),
        "max": numbers.max(),
        "median": np.median(numbers),
    }
    return {name: float(value) for name, value in results.items()} | {
        f"p{percent}": float(np.percentile(numbers, percent)) for percent in PERCENTILES
    }


def recommendations(values: Sequence[float] | np.ndarray) -> list[Recommendation]:
    """Return five recommended thresholds. The first keeps about 90% of the images, and the last about 10%."""
    numbers = np.asarray(values, dtype=np.float64)
    return [
        Recommendation(
            name=name,
            percentile=percent,
            threshold=float(np.percentile(numbers, percent)),
            keeps=float((numbers >= np.percentile(numbers, percent)).mean()),
        )
        for name, percent in RECOMMENDATIONS
    ]


def histogram_png(values: np.ndarray, threshold: float | None, title: str) -> bytes:
    """Plot the histogram of scores and the threshold as a PNG."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(values, bins=40, color="#b4532a")
    if threshold is not None:
        axes.axvline(threshold, color="#2d2523", linestyle="--", label=f"threshold {threshold:.4f}")
        axes.legend()
    axes.set(title=title, xlabel="score: cos(image, complete vase) - cos(image, damage)", ylabel="images")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def report_lines(stats: dict[str, float], advice: list[Recommendation]) -> list[str]:
    """Return statistics and recommendations as lines for a terminal."""
    lines = [
        (
            f"{int(stats['count'])} images: mean {stats['mean']:.4f}, std {stats['std']:.4f}, min {stats['min']:.4f},"
            f" median {stats['median']:.4f}, max {stats['max']:.4f}"
        ),
        "percentiles: " + ", ".join(f"{percent}% {stats[f'p{percent}']:.4f}" for percent in PERCENTILES),
    ]
    return lines + [f"{item.name:>12}: --threshold {item.threshold:.4f} keeps {percent(item.keeps)}" for item in advice]


def choose(threshold: float | None, advice: list[Recommendation]) -> tuple[float, str]:
    """Return the threshold and its origin in words. Without `threshold`, the moderate recommendation is used."""
    if threshold is not None:
        return threshold, "given"
    moderate = next(item for item in advice if item.name == "moderate")
    return moderate.threshold, "moderate recommendation (25th percentile)"
