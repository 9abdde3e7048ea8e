"""Draw the figures on a vase as silhouettes.

The unit of length is the height of the figure. x is measured from the middle of the figure to the right. y is measured
from the top of the head downwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from vasevqa.sample.catalogue import Color

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Pen:
    """A pen that draws a figure of `height` pixels around the column `x`. The top of the head is at the row `top`.

    On the surface of the vase, `stretch` columns are as wide as one row is high. The pen multiplies all widths by
    `stretch`, so that the figure has the right proportions. `ink` is the colour of the figure. `line` is the colour of
    thin lines inside the figure (the painter's incisions or relief lines). `facing` is 1 for a figure that faces right,
    and -1 for a figure that faces left.
    """

    draw: ImageDraw.ImageDraw
    x: float
    top: float
    height: float
    stretch: float
    ink: Color
    line: Color
    facing: int = 1

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Convert a point from the figure's coordinates to a pixel position."""
        return self.x + self.facing * x * self.height * self.stretch, self.top + y * self.height

    def fill(self, points: Points, color: Color | None = None) -> None:
        """Draw a filled polygon. The default colour is `ink`."""
        self.draw.polygon([self.at(*point) for point in points], fill=color or self.ink)

    def disc(self, x: float, y: float, radius: float, color: Color | None = None) -> None:
        """Draw a filled disc around (x, y). The default colour is `ink`."""
        ring = [
            (x + radius * math.cos(angle / 12 * math.pi), y + radius * math.sin(angle / 12 * math.pi))
            for angle in range(24)
        ]
        self.fill(ring, color)

    def limb(self, points: Points, width: float, color: Color | None = None) -> None:
        """Draw a line through `points` with the width `width` and round joints. The default colour is `ink`."""
        for (ax, ay), (bx, by) in itertools.pairwise(points):
            length = math.hypot(bx - ax, by - ay) or 1.0
            dx, dy = -(by - ay) / length * width / 2, (bx - ax) / length * width / 2
            self.fill([(ax + dx, ay + dy), (bx + dx, by + dy), (bx - dx, by - dy), (ax - dx, ay - dy)], color)
        for x, y in points:
            self.disc(x, y, width / 2, color)

    def inside(self, *strokes: Points) -> None:
        """Draw thin lines inside the figure."""
        for points in strokes:
            self.draw.line([self.at(*point) for point in points], fill=self.line, width=max(1, round(self.height / 55)))


def _head(pen: Pen, x: float = 0.0, y: float = 0.075) -> None:
    pen.disc(x, y, 0.066)
    pen.fill([(x + 0.05, y - 0.03), (x + 0.095, y + 0.015), (x + 0.04, y + 0.05)])
    pen.fill([(x - 0.03, y), (x + 0.03, y), (x + 0.035, y + 0.12), (x - 0.04, y + 0.12)])
    pen.inside([(x + 0.02, y - 0.01), (x + 0.045, y - 0.01)], [(x - 0.05, y + 0.03), (x + 0.01, y - 0.05)])


def _torso(pen: Pen, x: float = 0.0) -> None:
    pen.fill(
        [(x - 0.13, 0.18), (x + 0.12, 0.18), (x + 0.08, 0.42), (x + 0.09, 0.52), (x - 0.09, 0.52), (x - 0.07, 0.42)]
    )


def _striding_legs(pen: Pen, x: float = 0.0, step: float = 0.13) -> None:
    pen.limb([(x - 0.04, 0.5), (x - step * 0.8, 0.73), (x - step * 1.6, 0.96)], 0.075)
    pen.limb([(x + 0.04, 0.5), (x + step * 1.1, 0.72), (x + step * 1.1, 0.96)], 0.075)
    for foot in (x - step * 1.6, x + step * 1.1):
        pen.fill([(foot - 0.035, 0.95), (foot + 0.1, 0.97), (foot + 0.1, 1.0), (foot - 0.035, 1.0)])


def warrior(pen: Pen) -> None:
    """Draw a hoplite with crested helmet, round shield, greaves and upright spear."""
    _striding_legs(pen)
    _torso(pen)
    pen.fill([(-0.09, 0.42), (0.09, 0.42), (0.15, 0.6), (-0.15, 0.6)])
    pen.inside(
        [(-0.1, 0.43), (0.1, 0.43)], [(-0.06, 0.46), (-0.09, 0.6)], [(0, 0.46), (0, 0.6)], [(0.06, 0.46), (0.09, 0.6)]
    )
    _head(pen)
    pen.fill([(-0.12, 0.16), (-0.16, 0.02), (-0.08, -0.06), (0.06, -0.07), (0.08, -0.02), (-0.03, 0.0), (-0.08, 0.07)])
    pen.limb([(0.1, 0.21), (0.22, 0.34), (0.29, 0.22)], 0.05)
    pen.limb([(0.3, -0.02), (0.26, 1.0)], 0.016)
    pen.fill([(0.28, -0.01), (0.303, -0.1), (0.322, -0.01)])
    pen.disc(-0.08, 0.35, 0.19)
    pen.disc(-0.08, 0.35, 0.165, pen.line)
    pen.disc(-0.08, 0.35, 0.145)
    pen.disc(-0.08, 0.35, 0.05, pen.line)


def draped(pen: Pen) -> None:
    """Draw a man in a himation (a cloak) who leans on his staff."""
    pen.limb([(0.02, 0.9), (0.03, 0.97), (0.12, 0.985)], 0.04)
    pen.limb([(-0.1, 0.9), (-0.1, 0.97), (-0.01, 0.985)], 0.04)
    pen.fill([(-0.13, 0.19), (0.1, 0.18), (0.14, 0.5), (0.16, 0.92), (-0.19, 0.92), (-0.17, 0.5)])
    pen.inside(
        *([(-0.12 + 0.05 * fold, 0.3), (-0.16 + 0.075 * fold, 0.9)] for fold in range(5)),
        [(-0.12, 0.24), (0.12, 0.5)],
        [(-0.13, 0.34), (0.13, 0.58)],
    )
    _head(pen)
    pen.limb([(0.09, 0.22), (0.2, 0.36), (0.31, 0.3)], 0.05)
    pen.limb([(0.33, 0.2), (0.3, 1.0)], 0.018)


def dancers(pen: Pen) -> None:
    """Draw two komasts (dancing revellers) who face each other with raised arms."""
    for x, side in ((-0.34, 1), (0.34, -1)):
        one = Pen(pen.draw, *pen.at(x, 0)[:1], pen.top, pen.height, pen.stretch, pen.ink, pen.line, pen.facing * side)
        one.limb([(-0.03, 0.5), (-0.07, 0.72), (-0.05, 0.96), (0.04, 0.98)], 0.075)
        one.limb([(0.04, 0.5), (0.2, 0.6), (0.16, 0.82), (0.24, 0.86)], 0.07)
        _torso(one)
        one.inside([(-0.08, 0.43), (0.08, 0.43)], [(-0.07, 0.5), (0.08, 0.5)])
        _head(one)
        one.limb([(0.1, 0.21), (0.23, 0.16), (0.25, -0.02)], 0.048)
        one.limb([(-0.11, 0.21), (-0.24, 0.3), (-0.18, 0.45)], 0.048)


def horse(pen: Pen) -> None:
    """Draw a walking horse."""
    body = [
        (-0.44, 0.4),
        (-0.32, 0.33),
        (-0.1, 0.38),
        (0.1, 0.35),
        (0.22, 0.26),
        (0.29, 0.1),
        (0.36, 0.0),
        (0.4, 0.06),
        (0.58, 0.19),
        (0.57, 0.26),
    ]
    pen.fill(
        [
            *body,
            (0.5, 0.27),
            (0.42, 0.22),
            (0.38, 0.36),
            (0.32, 0.52),
            (0.2, 0.6),
            (0, 0.61),
            (-0.2, 0.57),
            (-0.38, 0.6),
            (-0.46, 0.5),
        ]
    )
    pen.limb([(0.24, 0.55), (0.27, 0.75), (0.23, 0.98), (0.28, 0.985)], 0.06)
    pen.limb([(0.2, 0.55), (0.36, 0.68), (0.34, 0.86), (0.39, 0.88)], 0.055)
    pen.limb([(-0.38, 0.5), (-0.45, 0.72), (-0.38, 0.98), (-0.33, 0.985)], 0.065)
    pen.limb([(-0.3, 0.55), (-0.3, 0.75), (-0.22, 0.98), (-0.17, 0.985)], 0.06)
    pen.limb([(-0.44, 0.4), (-0.55, 0.46), (-0.56, 0.66), (-0.52, 0.82)], 0.055)
    pen.inside(
        [(0.22, 0.28), (0.3, 0.46)],
        [(0.46, 0.14), (0.44, 0.22)],
        [(0.27, 0.12), (0.33, 0.16)],
        [(0.24, 0.2), (0.3, 0.23)],
        [(-0.3, 0.4), (-0.24, 0.54)],
    )


def rider(pen: Pen) -> None:
    """Draw a horseman with a spear."""
    horse(
        Pen(pen.draw, pen.x, pen.top + pen.height * 0.14, pen.height * 0.86, pen.stretch, pen.ink, pen.line, pen.facing)
    )
    pen.fill([(-0.13, 0.16), (0.06, 0.16), (0.04, 0.48), (-0.14, 0.48)])
    pen.limb([(-0.04, 0.44), (0.1, 0.55), (0.04, 0.76), (0.1, 0.77)], 0.06)
    small = Pen(pen.draw, *pen.at(-0.03, -0.02), pen.height * 0.85, pen.stretch, pen.ink, pen.line, pen.facing)
    _head(small)
    pen.limb([(0.03, 0.2), (0.13, 0.32), (0.24, 0.28)], 0.045)
    pen.limb([(-0.36, 0.16), (0.44, 0.36)], 0.014)
    pen.inside([(-0.12, 0.36), (0.04, 0.36)], [(-0.04, 0.44), (0.08, 0.54)])


def lion(pen: Pen) -> None:
    """Draw a walking lion in the style of Corinthian painters."""
    pen.fill(
        [
            (-0.55, 0.44),
            (-0.4, 0.36),
            (0.0, 0.4),
            (0.25, 0.3),
            (0.4, 0.4),
            (0.36, 0.68),
            (0.0, 0.66),
            (-0.35, 0.62),
            (-0.56, 0.62),
        ]
    )
    pen.disc(0.4, 0.32, 0.2)
    pen.fill([(0.44, 0.2), (0.68, 0.26), (0.7, 0.36), (0.6, 0.4), (0.64, 0.44), (0.46, 0.48)])
    pen.limb([(0.3, 0.6), (0.34, 0.8), (0.32, 0.97), (0.42, 0.975)], 0.085)
    pen.limb([(0.18, 0.6), (0.16, 0.8), (0.2, 0.97), (0.3, 0.975)], 0.08)
    pen.limb([(-0.48, 0.56), (-0.56, 0.76), (-0.48, 0.97), (-0.38, 0.975)], 0.09)
    pen.limb([(-0.38, 0.58), (-0.38, 0.78), (-0.3, 0.97), (-0.2, 0.975)], 0.085)
    pen.limb([(-0.54, 0.48), (-0.72, 0.5), (-0.78, 0.3), (-0.66, 0.14), (-0.58, 0.18)], 0.045)
    pen.inside(
        *([(0.24 + 0.06 * lock, 0.18), (0.2 + 0.06 * lock, 0.46)] for lock in range(4)),
        [(0.52, 0.27), (0.56, 0.28)],
        [(0.6, 0.38), (0.5, 0.4)],
    )
    pen.inside([(-0.3, 0.42), (-0.22, 0.6)], [(-0.1, 0.46), (-0.06, 0.62)], [(0.02, 0.46), (0.06, 0.62)])


def birds(pen: Pen) -> None:
    """Draw three long-necked water birds, one behind the other."""
    for index in (-1, 0, 1):
        x = 0.42 * index
        pen.fill([(x - 0.2, 0.46), (x - 0.06, 0.4), (x + 0.1, 0.46), (x + 0.12, 0.58), (x, 0.68), (x - 0.1, 0.64)])
        pen.limb([(x + 0.08, 0.52), (x + 0.16, 0.36), (x + 0.1, 0.18), (x + 0.15, 0.12), (x + 0.24, 0.16)], 0.04)
        pen.limb([(x - 0.02, 0.64), (x - 0.03, 0.98), (x + 0.04, 0.98)], 0.028)
        pen.limb([(x + 0.04, 0.64), (x + 0.05, 0.98), (x + 0.12, 0.98)], 0.028)


def palmette(pen: Pen) -> None:
    """Draw a palmette on volutes, as painters drew it under handles."""
    for petal in range(9):
        angle = math.pi * (petal + 0.5) / 9
        reach = 0.5 + 0.12 * math.sin(angle)
        tip = (-math.cos(angle) * reach * 0.8, 0.72 - math.sin(angle) * reach)
        middle = (tip[0] * 0.6, 0.72 + (tip[1] - 0.72) * 0.6)
        pen.limb([(0, 0.72), middle], 0.035)
        pen.limb([middle, tip], 0.065)
    pen.disc(0, 0.72, 0.1)
    pen.disc(0, 0.72, 0.06, pen.line)
    for side in (-1, 1):
        curl = [(0, 0.95), (side * 0.25, 0.94), (side * 0.42, 0.84), (side * 0.4, 0.74), (side * 0.3, 0.76)]
        pen.limb(curl, 0.04)


FIGURES: dict[str, Callable[[Pen], None]] = {
    "warrior": warrior,
    "draped": draped,
    "dancers": dancers,
    "horse": horse,
    "rider": rider,
    "lion": lion,
    "birds": birds,
}
# Width of each figure divided by its height. The width sets the distance between neighbours, so they don't overlap.
WIDTHS = {"warrior": 0.75, "draped": 0.65, "dancers": 1.3, "horse": 1.25, "rider": 1.25, "lion": 1.6, "birds": 1.4}
