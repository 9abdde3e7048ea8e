"""Paint the surface of a vase as a flat picture: background colours, bands of ornament, and figures.

Columns of the picture run around the vase, and rows run from the rim to the foot.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vasevqa.sample.catalogue import Color, Vase
from vasevqa.sample.figures import FIGURES, WIDTHS, Pen, palmette
from vasevqa.sample.shapes import SHAPES, Shape, Zone

WIDTH, HEIGHT = 1080, 360  # pixels around the vase, pixels from rim to foot
GLOSS, CREAM, BROWN = (34, 27, 26), (228, 217, 192), (104, 50, 30)


@dataclass(frozen=True)
class Palette:
    """The colours of one vase."""

    clay: Color
    gloss: Color
    ground: Color  # colour behind the figures
    ink: Color  # colour of the figures
    line: Color  # colour of the lines inside the figures


@lru_cache(maxsize=4)  # the views of one vase are drawn one after another
def paint(vase: Vase) -> tuple[np.ndarray, Palette]:
    """Return the painted surface and its palette.

    The surface is (HEIGHT, WIDTH, 3) float32 in 0..255. Row 0 is at the rim, and the middle column is at the front.
    """
    palette, shape = _palette(vase), SHAPES[vase.shape]
    image = Image.new("RGB", (WIDTH, HEIGHT), palette.clay if vase.technique == "geometric" else palette.gloss)
    draw = ImageDraw.Draw(image)
    if vase.technique == "geometric":
        _geometric(draw, vase, shape, palette)
    else:
        _figured(draw, vase, shape, palette)
    foot = _row(0.06)
    draw.rectangle((0, foot, WIDTH, HEIGHT), fill=palette.gloss)
    draw.rectangle((0, foot - 3, WIDTH, foot), fill=palette.clay)
    draw.rectangle((0, 0, WIDTH, _row(0.975)), fill=palette.gloss)
    return np.asarray(image, dtype=np.float32), palette


def _palette(vase: Vase) -> Palette:
    rng = random.Random(vase.seed)
    clay, gloss = _vary(vase.ware.clay, rng, 18), _vary(GLOSS, rng, 8)
    ground, ink, line = {
        "black-figure": (clay, gloss, clay),
        "red-figure": (gloss, clay, gloss),
        "white-ground": (_vary(CREAM, rng, 8), _vary(BROWN, rng, 12), CREAM),
        "geometric": (clay, gloss, clay),
    }[vase.technique]
    return Palette(clay, gloss, ground, ink, line)


def _vary(color: Color, rng: random.Random, by: int) -> Color:
    shift = rng.uniform(-by, by)
    red, green, blue = (int(min(255, max(0, channel + shift + rng.uniform(-by / 3, by / 3)))) for channel in color)
    return red, green, blue


def _row(height: float) -> float:
    return (1 - height) * HEIGHT


def _stretch(shape: Shape, height: float) -> float:
    """Return how many columns are as wide as one row is high, on the vase at `height` (0 is the foot, 1 the rim)."""
    radius = float(shape.radius(np.array(height)))
    return (WIDTH / (2 * math.pi * radius)) / (HEIGHT / (2 * shape.aspect))


def _figured(draw: ImageDraw.ImageDraw, vase: Vase, shape: Shape, palette: Palette) -> None:
    low, high = shape.scene
    lower, upper = min(zone[0] for zone in shape.borders), max(zone[1] for zone in shape.borders)
    draw.rectangle((0, _row(max(high, upper) + 0.015), WIDTH, _row(min(low, lower) - 0.015)), fill=palette.ground)
    for zone in shape.borders:
        _band(draw, vase.border, zone, shape, palette.ink)
    if shape.neck is not None:
        draw.rectangle((0, _row(shape.neck[1]), WIDTH, _row(shape.neck[0])), fill=palette.ground)
        _band(draw, "ivy" if vase.border != "ivy" else "lozenge", shape.neck, shape, palette.ink)
    if vase.technique == "black-figure":
        foot = min(low, lower) - 0.03
        if foot > 0.14:
            _band(draw, "rays", (0.09, foot), shape, palette.clay)
    height, stretch = (high - low) * HEIGHT * 0.88, _stretch(shape, (low + high) / 2)
    wide = WIDTHS[vase.subject] * height * stretch
    count = max(1, min(2, int(WIDTH * 0.3 / wide)))
    top = _row(high) + (high - low) * HEIGHT * 0.1
    for middle in (WIDTH / 2, 0, WIDTH):  # the front, and the back on both sides of the seam
        for index in range(count):
            x = middle + (index - (count - 1) / 2) * wide
            facing = 1 if index < count / 2 else -1
            FIGURES[vase.subject](Pen(draw, x, top, height, stretch, palette.ink, palette.line, facing))
    for middle in (WIDTH / 4, WIDTH * 3 / 4):
        palmette(Pen(draw, middle, top + height * 0.08, height * 0.84, min(stretch, 1.6), palette.ink, palette.line))


def _geometric(draw: ImageDraw.ImageDraw, vase: Vase, shape: Shape, palette: Palette) -> None:
    low, high = shape.scene
    tall = high - low
    for top, part, kind in (
        (0.0, 0.3, vase.border),
        (0.34, 0.12, "zigzag"),
        (0.76, 0.24, "meander" if vase.border != "meander" else "lozenge"),
    ):
        _band(draw, kind, (high - tall * (top + part), high - tall * top), shape, palette.ink)
    zone = (high - tall * 0.74, high - tall * 0.48)
    height, stretch = (zone[1] - zone[0]) * HEIGHT, _stretch(shape, sum(zone) / 2)
    count = max(4, int(WIDTH / (WIDTHS[vase.subject] * height * stretch * 1.1)))
    for index in range(count + 1):
        FIGURES[vase.subject](
            Pen(draw, index * WIDTH / count, _row(zone[1]), height, stretch, palette.ink, palette.line)
        )
    for zone in (*shape.borders, *([shape.neck] if shape.neck else [])):
        _band(draw, "zigzag" if zone != shape.neck else vase.border, zone, shape, palette.ink)
    draw.rectangle((0, _row(min(low, *(zone[0] for zone in shape.borders)) - 0.05), WIDTH, HEIGHT), fill=palette.gloss)


def _band(draw: ImageDraw.ImageDraw, kind: str, zone: Zone, shape: Shape, ink: Color) -> None:
    """Draw a band of ornament between two thin lines.

    The ornament is repeated a whole number of times around the vase.
    """
    top, bottom = _row(zone[1]), _row(zone[0])
    height, proportion, ornament = bottom - top, *_ORNAMENTS[kind]
    count = max(8, round(WIDTH / (height * proportion * _stretch(shape, sum(zone) / 2))))
    step = WIDTH / count
    if kind != "rays":
        for y in (top, bottom):
            draw.line((0, y, WIDTH, y), fill=ink, width=2)
        top, height = top + 4, height - 8
    for index in range(count):
        ornament(draw, (index * step, top, step, height), ink, index)


Box = tuple[float, float, float, float]  # left, top, width, height


def _meander(draw: ImageDraw.ImageDraw, box: Box, ink: Color, index: int) -> None:
    left, top, wide, high = box
    path = ((0, 1), (0, 0), (0.78, 0), (0.78, 0.72), (0.32, 0.72), (0.32, 0.38), (0.55, 0.38))
    draw.line([(left + x * wide, top + y * high) for x, y in path], fill=ink, width=max(2, round(high / 7)))
    draw.line((left, top + high, left + wide, top + high), fill=ink, width=max(2, round(high / 7)))


def _tongue(draw: ImageDraw.ImageDraw, box: Box, ink: Color, index: int) -> None:
    left, top, wide, high = box
    draw.rectangle((left + wide * 0.18, top, left + wide * 0.82, top + high * 0.7), fill=ink)
    draw.ellipse((left + wide * 0.18, top + high * 0.45, left + wide * 0.82, top + high), fill=ink)


def _ivy(draw: ImageDraw.ImageDraw, box: Box, ink: Color, index: int) -> None:
    left, top, wide, high = box
    draw.line((left, top + high / 2, left + wide, top + high / 2), fill=ink, width=2)
    for x, y in ((0.3, 0.22), (0.75, 0.78)):
        cx, cy = left + x * wide, top + y * high
        draw.polygon(
            [(cx - wide * 0.2, cy), (cx, cy - high * 0.2), (cx + wide * 0.24, cy), (cx, cy + high * 0.2)], fill=ink
        )


def _lozenge(draw: ImageDraw.ImageDraw, box: Box, ink: Color, index: int) -> None:
    left, top, wide, high = box
    cx, cy = left + wide / 2, top + high / 2
    draw.line(
        [(left, cy), (cx, top), (left + wide, cy), (cx, top + high), (left, cy)],
        fill=ink,
        width=max(2, round(high / 9)),
    )
    draw.ellipse((cx - wide / 8, cy - high / 8, cx + wide / 8, cy + high / 8), fill=ink)


def _zigzag(draw: ImageDraw.ImageDraw, box: Box, ink: Color, index: int) -> None:
    left, top, wide, high = box
    draw.line(
        [(left, top + high), (left + wide / 2, top), (left + wide, top + high)], fill=ink, width=max(2, round(high / 6))
    )


def _rays(draw: ImageDraw.ImageDraw, box: Box, ink: Color, index: int) -> None:
    left, top, wide, high = box
    draw.polygon([(left + wide * 0.1, top + high), (left + wide * 0.5, top), (left + wide * 0.9, top + high)], fill=ink)


_ORNAMENTS: dict[str, tuple[float, Callable[[ImageDraw.ImageDraw, Box, Color, int], None]]] = {
    "meander": (1.25, _meander),
    "tongue": (0.55, _tongue),
    "ivy": (1.2, _ivy),
    "lozenge": (0.9, _lozenge),
    "zigzag": (0.9, _zigzag),
    "rays": (0.45, _rays),
}
