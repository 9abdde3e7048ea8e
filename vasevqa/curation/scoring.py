"""Is this a complete, undamaged vase? Scores from CLIP, their statistics, and thresholds to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vasevqa.curation.reports import Recommendation
from vasevqa.errors import ConfigError, invalid_yaml

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
    """Descriptions of what is wanted (`high`) and of what isn't (`low`)."""

    high: tuple[str, ...] = HIGH_PROMPTS
    low: tuple[str, ...] = LOW_PROMPTS


def load_prompts(path: Path | None) -> Prompts:
    """The prompts in a YAML or JSON file with the lists `high` and `low`; the project's own if `path` is None.

    ConfigError if it's broken.
    """
    if path is None:
        return Prompts()
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        hint = "the prompts file holds two lists of sentences, `high` and `low`"
        raise invalid_yaml(path, error, hint) from None
    for side in ("high", "low"):
        sentences = loaded.get(side) if isinstance(loaded, dict) else None
        if (
            not isinstance(sentences, list)
            or not sentences
            or not all(isinstance(sentence, str) and sentence.strip() for sentence in sentences)
        ):
            raise ConfigError(f"The prompts file {path} needs a list of sentences called `{side}`.")
    unknown = set(loaded) - {"high", "low"}
    if unknown:
        raise ConfigError(
            f"The prompts file {path} has '{sorted(unknown)[0]}', which isn't known; it holds the lists `high` and"
            " `low` only."
        )
    return Prompts(tuple(loaded["high"]), tuple(loaded["low"]))


@dataclass(frozen=True)
class Scores:
    """Per image: similarity to the high and to the low prompts, and which single prompt of each side is nearest.

    All (N,).
    """

    high: np.ndarray
    low: np.ndarray
    nearest_high: np.ndarray
    nearest_low: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """cos(image, mean of the high prompts) - cos(image, mean of the low prompts)."""
        return np.asarray(self.high - self.low)


def score(images: Tensor, high: Tensor, low: Tensor) -> Scores:
    """Scores of image features (N, D) against raw text features (P, D) of both sides.

    The mean of a side's features is taken before it is normalized, so that a prompt with a long feature counts for
    more, as in the original's quality filter.
    """
    from torch.nn.functional import (
        normalize,
    )  # here: select-views needs this module's statistics, and torch takes seconds

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
    """Count, mean, standard deviation, extremes, median and percentiles (numpy's linear interpolation) of at least one
    value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    found = {
        "count": float(numbers.size),
        "mean": numbers.mean(),
        "std": numbers.std(),
        "min": numbers.min(),
        "max": numbers.max(),
        "median": np.median(numbers),
    }
    return {name: float(value) for name, value in found.items()} | {
        f"p{percent}": float(np.percentile(numbers, percent)) for percent in PERCENTILES
    }


def recommendations(values: Sequence[float] | np.ndarray) -> list[Recommendation]:
    """Five thresholds to choose from, from conservative (keeps 90% of these images) to strict (keeps 10%)."""
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
    """The histogram of scores with the threshold as a PNG."""
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
    """Statistics and recommendations for a terminal."""
    lines = [
        (
            f"{int(stats['count'])} images: mean {stats['mean']:.4f}, std {stats['std']:.4f}, min {stats['min']:.4f},"
            f" median {stats['median']:.4f}, max {stats['max']:.4f}"
        ),
        "percentiles: " + ", ".join(f"{percent}% {stats[f'p{percent}']:.4f}" for percent in PERCENTILES),
    ]
    return lines + [f"{item.name:>12}: --threshold {item.threshold:.4f} keeps {item.keeps:.0%}" for item in advice]


def choose(threshold: float | None, advice: list[Recommendation]) -> tuple[float, str]:
    """The threshold given, or the moderate recommendation; and where it comes from."""
    if threshold is not None:
        return threshold, "given"
    moderate = next(item for item in advice if item.name == "moderate")
    return moderate.threshold, "moderate recommendation (25th percentile)"
