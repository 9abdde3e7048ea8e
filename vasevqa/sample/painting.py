"""The painted surface of a vase, unrolled: bands, ornaments and figures."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from vasevqa.sample.shapes import Vase

WIDTH, HEIGHT = 960, 256  # 360 degrees by the height of the vase
CLAY, GLOSS, CREAM = (196, 110, 58), (34, 28, 27), (226, 214, 188)
Color = tuple[int, int, int]


def paint(vase: Vase) -> np.ndarray:
    """The surface as (HEIGHT, WIDTH, 3) float32 in 0..255; row 0 is the rim, column 0 the back."""
    rng = random.Random(vase.seed)
    clay = _vary(CLAY, rng, 22)
    gloss = _vary(GLOSS, rng, 8)
    ground = {"black-figure": clay, "red-figure": gloss, "geometric": clay, "white-ground": CREAM}[vase.technique]
    ink = {"black-figure": gloss, "red-figure": clay, "geometric": gloss, "white-ground": _vary((110, 52, 30), rng, 15)}[vase.technique]
    image = Image.new("RGB", (WIDTH, HEIGHT), ground)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, WIDTH, 28), fill=gloss)
    draw.rectangle((0, 196, WIDTH, HEIGHT), fill=gloss)
    draw.rectangle((0, 204, WIDTH, 208), fill=clay)
    if vase.technique == "geometric":
        for top in (36, 84, 132):
            _meander(draw, top, 30, ink)
            _zigzag(draw, top + 36, 10, ink)
        draw.rectangle((0, 178, WIDTH, 184), fill=ink)
    else:
        for top in (32, 172):
            draw.rectangle((0, top - 3, WIDTH, top - 1), fill=ink)
            (_meander if vase.border == "meander" else _tongues)(draw, top, 20, ink)
            draw.rectangle((0, top + 21, WIDTH, top + 23), fill=ink)
        for side in range(4):  # figures all around, so that every view shows some
            _FIGURES[vase.subject](draw, WIDTH * (side + 0.5) / 4, 60, 108, ink)
    return np.asarray(image, dtype=np.float32)


def _vary(color: Color, rng: random.Random, by: int) -> Color:
    shift = rng.uniform(-by, by)
    return tuple(int(min(255, max(0, channel + shift + rng.uniform(-by / 3, by / 3)))) for channel in color)  # type: ignore[return-value]


def _meander(draw: ImageDraw.ImageDraw, top: float, height: float, ink: Color) -> None:
    for left in np.arange(0, WIDTH, height * 1.5):
        right, bottom = left + height * 1.2, top + height
        points = [(left, bottom), (left, top), (right, top), (right, bottom - 4), (left + height * 0.4, bottom - 4), (left + height * 0.4, top + height * 0.45), (right - height * 0.3, top + height * 0.45)]
        draw.line(points, fill=ink, width=max(3, int(height / 7)))


def _tongues(draw: ImageDraw.ImageDraw, top: float, height: float, ink: Color) -> None:
    for left in np.arange(0, WIDTH, 16):
        draw.rounded_rectangle((left, top, left + 9, top + height), radius=4, fill=ink)


def _zigzag(draw: ImageDraw.ImageDraw, top: float, height: float, ink: Color) -> None:
    points = [(left, top + (height if index % 2 else 0)) for index, left in enumerate(np.arange(0, WIDTH + 12, 12))]
    draw.line(points, fill=ink, width=3)


def _person(draw: ImageDraw.ImageDraw, x: float, top: float, height: float, ink: Color, lean: float = 0.0) -> None:
    unit = height / 8
    draw.ellipse((x - unit * 0.6 + lean, top, x + unit * 0.6 + lean, top + unit * 1.3), fill=ink)
    draw.polygon([(x - unit * 1.2 + lean, top + unit * 1.5), (x + unit * 1.2 + lean, top + unit * 1.5), (x + unit * 0.7, top + unit * 4.3), (x - unit * 0.7, top + unit * 4.3)], fill=ink)
    for side in (-1, 1):
        draw.line([(x + side * unit * 0.4, top + unit * 4.2), (x + side * unit * 1.1, top + unit * 6), (x + side * unit * 0.8, top + unit * 8)], fill=ink, width=int(unit * 0.8))
        draw.line([(x + side * unit + lean, top + unit * 1.8), (x + side * unit * 2, top + unit * (3 + side))], fill=ink, width=int(unit * 0.6))


def _warrior(draw: ImageDraw.ImageDraw, x: float, top: float, height: float, ink: Color) -> None:
    _person(draw, x, top, height, ink)
    draw.line([(x + height * 0.28, top - 4), (x + height * 0.22, top + height)], fill=ink, width=3)
    draw.ellipse((x - height * 0.42, top + height * 0.2, x - height * 0.06, top + height * 0.56), outline=ink, width=6)


def _draped(draw: ImageDraw.ImageDraw, x: float, top: float, height: float, ink: Color) -> None:
    _person(draw, x, top, height, ink)
    draw.polygon([(x - height * 0.14, top + height * 0.22), (x + height * 0.14, top + height * 0.22), (x + height * 0.26, top + height), (x - height * 0.26, top + height)], fill=ink)


def _dancers(draw: ImageDraw.ImageDraw, x: float, top: float, height: float, ink: Color) -> None:
    _person(draw, x - height * 0.32, top, height, ink, lean=height * 0.08)
    _person(draw, x + height * 0.32, top, height, ink, lean=-height * 0.08)


def _horse(draw: ImageDraw.ImageDraw, x: float, top: float, height: float, ink: Color) -> None:
    draw.ellipse((x - height * 0.55, top + height * 0.32, x + height * 0.4, top + height * 0.66), fill=ink)
    draw.polygon([(x + height * 0.2, top + height * 0.45), (x + height * 0.38, top + height * 0.05), (x + height * 0.5, top + height * 0.1), (x + height * 0.4, top + height * 0.55)], fill=ink)
    draw.polygon([(x + height * 0.36, top + height * 0.04), (x + height * 0.68, top + height * 0.2), (x + height * 0.64, top + height * 0.28), (x + height * 0.4, top + height * 0.2)], fill=ink)
    for leg in (-0.46, -0.34, 0.2, 0.32):
        draw.line([(x + height * leg, top + height * 0.55), (x + height * (leg + 0.05), top + height)], fill=ink, width=int(height * 0.07))
    draw.arc((x - height * 0.8, top + height * 0.35, x - height * 0.45, top + height * 0.9), 200, 330, fill=ink, width=6)


def _palmette(draw: ImageDraw.ImageDraw, x: float, top: float, height: float, ink: Color) -> None:
    for index in range(7):
        angle = math.pi * (index + 0.5) / 7
        tip = (x - math.cos(angle) * height * 0.4, top + height * (0.8 - 0.7 * math.sin(angle)))
        draw.line([(x, top + height * 0.8), tip], fill=ink, width=8)


Figure = Callable[[ImageDraw.ImageDraw, float, float, float, Color], None]
_FIGURES: dict[str, Figure] = {"warrior": _warrior, "draped": _draped, "dancers": _dancers, "horse": _horse, "palmette": _palmette}
