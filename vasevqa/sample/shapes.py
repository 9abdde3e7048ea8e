"""The shapes of Greek vases.

A shape has a profile (of a surface of revolution), handles, and zones for figures and ornaments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Zone = tuple[float, float]  # heights of the lower and the upper edge, 0 at the foot and 1 at the rim


@dataclass(frozen=True)
class Handle:
    """A handle of a vase.

    A handle of the kind `strap` is upright and joins the body at the heights `low` and `high`. A handle of the kind
    `loop` joins the body twice at `low`, and `high` is its highest point. `azimuth` is in degrees, and 0 is the front.
    `out` is the distance from the axis to the outermost point of the handle. Its unit is the greatest radius of the
    vase.
    """

    kind: str
    azimuth: float
    low: float
    high: float
    out: float


@dataclass(frozen=True)
class Shape:
    """The shape of a vase.

    `profile` holds pairs (height, radius), from the foot (height 0) to the rim (height 1). The greatest radius is 1.
    `aspect` is the height of the vase divided by its greatest width without handles.
    """

    profile: tuple[tuple[float, float], ...]
    aspect: float
    handles: tuple[Handle, ...]
    scene: Zone  # the zone of the figures
    borders: tuple[Zone, ...]  # bands of ornament around the figures
    neck: Zone | None = None

    def radius(self, height: np.ndarray) -> np.ndarray:
        """Return the radius of the smoothed profile at `height`.

        `height` is an array of any shape with values in 0..1. The result has the same shape.
        """
        grid, values = _smoothed(self.profile)
        return np.interp(height, grid, values)

    def slope(self, height: np.ndarray) -> np.ndarray:
        """Return the derivative of the radius with respect to the height, both in units of the greatest radius."""
        grid, values = _smoothed(self.profile)
        return np.interp(height, grid, np.gradient(values, grid)) / (2 * self.aspect)

    @property
    def reach(self) -> float:
        """The distance from the axis to the outermost point of the body and the side handles.

        Its unit is the greatest radius.
        """
        return max([1.0, *(handle.out for handle in self.handles if handle.azimuth not in (0, 180))])


@lru_cache
def _smoothed(profile: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    grid = np.linspace(0, 1, 201)
    values = np.interp(grid, *np.array(profile).T)
    kernel = np.hanning(17)
    return grid, np.convolve(np.pad(values, 8, mode="edge"), kernel / kernel.sum(), "valid")


def _both_sides(kind: str, low: float, high: float, out: float) -> tuple[Handle, Handle]:
    return Handle(kind, 90, low, high, out), Handle(kind, -90, low, high, out)


SHAPES = {
    "amphora": Shape(
        (
            (0, 0.42),
            (0.04, 0.42),
            (0.07, 0.22),
            (0.3, 0.75),
            (0.55, 1),
            (0.68, 0.88),
            (0.77, 0.42),
            (0.94, 0.4),
            (0.96, 0.52),
            (1, 0.54),
        ),
        1.42,
        _both_sides("strap", 0.68, 0.93, 0.92),
        (0.34, 0.62),
        ((0.27, 0.32), (0.64, 0.7)),
        (0.8, 0.92),
    ),
    "kylix": Shape(
        ((0, 0.46), (0.05, 0.44), (0.1, 0.1), (0.34, 0.11), (0.4, 0.42), (0.55, 0.78), (0.75, 0.95), (1, 1)),
        0.52,
        _both_sides("loop", 0.78, 0.95, 1.36),
        (0.5, 0.88),
        ((0.9, 0.97),),
    ),
    "lekythos": Shape(
        (
            (0, 0.62),
            (0.05, 0.62),
            (0.07, 0.35),
            (0.12, 0.8),
            (0.3, 0.96),
            (0.6, 1),
            (0.67, 0.7),
            (0.71, 0.24),
            (0.85, 0.22),
            (0.89, 0.52),
            (1, 0.62),
        ),
        2.3,
        (Handle("strap", 180, 0.64, 0.86, 0.85),),
        (0.23, 0.55),
        ((0.175, 0.21), (0.57, 0.605)),
    ),
    "hydria": Shape(
        (
            (0, 0.44),
            (0.04, 0.44),
            (0.08, 0.25),
            (0.35, 0.8),
            (0.6, 1),
            (0.7, 0.86),
            (0.76, 0.34),
            (0.93, 0.36),
            (0.96, 0.54),
            (1, 0.56),
        ),
        1.22,
        (*_both_sides("loop", 0.55, 0.62, 1.3), Handle("strap", 180, 0.68, 0.94, 0.9)),
        (0.32, 0.6),
        ((0.25, 0.3), (0.62, 0.68)),
        (0.79, 0.9),
    ),
    "krater": Shape(
        ((0, 0.52), (0.07, 0.52), (0.11, 0.27), (0.2, 0.6), (0.38, 0.84), (0.75, 0.88), (0.92, 0.97), (1, 1.0)),
        0.98,
        _both_sides("loop", 0.38, 0.5, 1.22),
        (0.36, 0.78),
        ((0.28, 0.34), (0.83, 0.9)),
    ),
    "oinochoe": Shape(
        (
            (0, 0.5),
            (0.05, 0.5),
            (0.08, 0.42),
            (0.3, 0.95),
            (0.45, 1),
            (0.62, 0.75),
            (0.73, 0.38),
            (0.88, 0.4),
            (1, 0.58),
        ),
        1.4,
        (Handle("strap", 180, 0.55, 0.99, 1.0),),
        (0.2, 0.5),
        ((0.13, 0.18), (0.52, 0.58)),
        (0.76, 0.87),
    ),
    "skyphos": Shape(
        ((0, 0.62), (0.06, 0.6), (0.1, 0.58), (0.35, 0.86), (0.7, 0.98), (1, 1)),
        0.78,
        _both_sides("loop", 0.86, 0.9, 1.38),
        (0.26, 0.78),
        ((0.15, 0.22), (0.83, 0.91)),
    ),
    "stamnos": Shape(
        ((0, 0.45), (0.05, 0.43), (0.35, 0.75), (0.65, 1), (0.78, 0.9), (0.85, 0.5), (0.95, 0.5), (1, 0.62)),
        1.08,
        _both_sides("loop", 0.6, 0.68, 1.28),
        (0.34, 0.66),
        ((0.27, 0.32), (0.69, 0.75)),
    ),
}
