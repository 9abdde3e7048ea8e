"""Render a painted vase as a camera sees it.

The vase is a surface of revolution that is lit by one lamp. The camera looks slightly downwards. The projection is
parallel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vasevqa.sample.catalogue import Vase
from vasevqa.sample.painting import Palette, paint
from vasevqa.sample.shapes import SHAPES, Handle, Shape

_HEIGHTS = np.linspace(0, 1, 721)  # more heights than the rows of any picture


@dataclass(frozen=True)
class View:
    """The positions of the camera, the vase and the lamp.

    Angles are in degrees. Lengths are in pixels. The picture has `size` x `size` pixels.
    """

    size: int
    azimuth: float  # angle of the camera around the vase; 0 is the front
    elevation: float  # angle of the camera above the horizon
    radius: float  # greatest radius of the vase
    centre: float  # column of the axis
    base: float  # row of the middle of the foot
    lamp: float  # angle of the lamp to the camera's right
    gloss: float  # strength of the highlight, 0..1


def render(vase: Vase, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours and the coverage of a picture of the vase, both float32.

    The colours are (size, size, 3) in 0..255. The coverage is (size, size) in 0..1: the part of each pixel that shows
    the vase.
    """
    shape = SHAPES[vase.shape]
    surface, palette = paint(vase)
    behind, before = _handles(shape, palette, view)
    body, solid = _body(shape, surface, palette, view)
    color, cover = behind
    for top, alpha in ((body, solid), before):
        color = color + alpha[..., None] * (top - color)
        cover = cover + alpha * (1 - cover)
    return color, cover


def _body(shape: Shape, surface: np.ndarray, palette: Palette, view: View) -> tuple[np.ndarray, np.ndarray]:
    color, cover = (
        np.zeros((view.size, view.size, 3), dtype=np.float32),
        np.zeros((view.size, view.size), dtype=np.float32),
    )
    sine, cosine = math.sin(math.radians(view.elevation)), math.cos(math.radians(view.elevation))
    tall = 2 * view.radius * shape.aspect * cosine
    lip, foot = (float(shape.radius(np.array(end))) * view.radius for end in (1.0, 0.0))
    # Only the part of the picture that the body touches is computed.
    top, bottom = view.base - tall - lip * sine - 2, view.base + foot * sine + 2
    rows_seen = slice(max(0, int(top)), min(view.size, max(0, int(bottom) + 1)))
    columns_seen = slice(
        max(0, int(view.centre - view.radius - 2)), min(view.size, max(0, int(view.centre + view.radius + 2)))
    )
    window = (rows_seen, columns_seen)
    if color[window].size == 0:
        return color, cover
    columns = np.arange(columns_seen.start, columns_seen.stop, dtype=np.float32) + 0.5 - view.centre
    rows = view.base - 0.5 - np.arange(rows_seen.start, rows_seen.stop, dtype=np.float32)  # upwards from the foot
    away = np.abs(columns)[None, :]
    step = (_heights(shape, view, columns, rows, tall) * (len(_HEIGHTS) - 1) + 0.5).astype(np.int32)
    reach = (shape.radius(_HEIGHTS) * view.radius).astype(np.float32)[step]
    depth = np.sqrt(np.maximum(reach**2 - away**2, 0))
    front_foot, front_lip = (np.sqrt(np.maximum(end**2 - away**2, 0)) * sine for end in (foot, lip))
    part = np.clip(reach - away + 0.5, 0, 1)
    part *= np.clip(rows[:, None] + front_foot + 0.5, 0, 1) * np.clip(tall - front_lip - rows[:, None] + 0.5, 0, 1)
    seen = _shade(
        _sample(surface, step, columns, depth, view),
        shape.slope(_HEIGHTS).astype(np.float32)[step],
        (columns, reach, depth),
        view,
    )
    # The visible inside of the mouth is an ellipse. The lip surrounds this ellipse.
    for edge, tone in ((lip, 0.9), (lip - max(1.5, 0.045 * view.radius), 0.5)):
        vertical = np.sqrt(np.maximum(edge**2 - away**2, 0)) * sine
        upward = rows[:, None] - tall
        inside = np.clip(vertical - np.abs(upward) + 0.5, 0, 1) * (away <= edge)
        light = tone + 0.5 * np.clip((upward + vertical) / np.maximum(2 * vertical, 1), 0, 1) * (tone < 0.9)
        dark = np.array(palette.gloss, dtype=np.float32) * 1.6 * light[..., None]
        seen += inside[..., None] * (dark - seen)
        part += inside * (1 - part)
    color[window], cover[window] = seen, part
    return color, cover


def _heights(shape: Shape, view: View, columns: np.ndarray, rows: np.ndarray, tall: float) -> np.ndarray:
    """Return the height on the vase (0..1) that each pixel shows, as an array (rows, columns).

    In the column x, the front point at the height h appears in the row
    y(h) = h tall - sqrt(r(h)^2 - x^2) sin(elevation). Rows are counted upwards. The camera looks downwards, so a higher
    point can hide a lower point. The point at h is visible if y(h) is less than y at every greater height. Among
    visible points, y increases with h. The function therefore finds the h of each row by interpolation.
    """
    sine = math.sin(math.radians(view.elevation))
    radii = shape.radius(_HEIGHTS) * view.radius
    result = np.empty((len(rows), len(columns)), dtype=np.float32)
    known: dict[float, np.ndarray] = {}
    ascending = rows[::-1]
    for index, x in enumerate(np.abs(columns).tolist()):
        if x not in known:  # columns at the same distance left and right of the axis show the same heights
            y = _HEIGHTS * tall - np.sqrt(np.maximum(radii**2 - x**2, 0)) * sine
            known[x] = np.interp(ascending, np.minimum.accumulate(y[::-1])[::-1], _HEIGHTS)[::-1]
        result[:, index] = known[x]
    return result


def _sample(surface: np.ndarray, step: np.ndarray, columns: np.ndarray, depth: np.ndarray, view: View) -> np.ndarray:
    """Return the colour of the painted surface at each pixel.

    The colour of the nearest pixel of `surface` is accurate enough, because the picture is later reduced in size.
    """
    rows, width = surface.shape[:2]
    turn = np.arctan2(columns[None, :], depth) * (0.5 / math.pi) + (view.azimuth / 360 + 0.5) % 1
    across = (turn * width).astype(np.int32) % width
    down = ((1 - _HEIGHTS) * (rows - 1) + 0.5).astype(np.int32)[step]
    return surface[down, across]


def _shade(
    paint_: np.ndarray, slope: np.ndarray, at: tuple[np.ndarray, np.ndarray, np.ndarray], view: View
) -> np.ndarray:
    """Shade the colours `paint_` by Lambert's law with ambient light, and add a highlight by Blinn's model.

    The highlight is stronger on dark gloss than on clay.
    """
    columns, reach, depth = at
    scale = 1 / (np.maximum(reach, 1) * np.sqrt(1 + slope**2))
    normal = (np.clip(columns[None, :], -reach, reach) * scale, -slope * reach * scale, depth * scale)
    turn, rise = math.radians(view.lamp), math.radians(22)
    lamp = (math.sin(turn) * math.cos(rise), math.sin(rise), math.cos(turn) * math.cos(rise))
    norm = math.sqrt(2 + 2 * lamp[2])
    half = (lamp[0] / norm, lamp[1] / norm, (lamp[2] + 1) / norm)
    lambert, highlight = (np.maximum(sum(n * d for n, d in zip(normal, way, strict=True)), 0) for way in (lamp, half))
    for _ in range(5):  # five squarings give the power of 32
        highlight *= highlight
    dark = 1 - paint_.sum(-1) * (1 / 765)
    return np.asarray(
        paint_ * (0.38 + 0.74 * lambert)[..., None] + (highlight * view.gloss * 130 * dark * dark)[..., None],
        dtype=np.float32,
    )


def _handles(
    shape: Shape, palette: Palette, view: View
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return two pairs of colours and coverage: the handles behind the body, and the handles in front of the body."""
    layers = []
    for front in (False, True):
        image = Image.new("LA", (view.size, view.size))
        draw = ImageDraw.Draw(image)
        for handle in shape.handles:
            points = _curve(handle, shape, view)
            middle = points[len(points) // 2]
            if (middle[2] >= 0) == front:
                _tube(draw, [(x, y) for x, y, _ in points], view)
        values = np.asarray(image, dtype=np.float32)
        tone = values[..., :1] / 128
        layers.append((np.array(palette.gloss, dtype=np.float32) * 1.5 * tone, values[..., 1] / 255))
    return layers[0], layers[1]


def _curve(handle: Handle, shape: Shape, view: View) -> list[tuple[float, float, float]]:
    """Return the centre line of a handle as points (column, row, depth towards the camera)."""
    t = np.linspace(0, 1, 25)
    swell = np.sin(math.pi * t) ** 0.7
    if handle.kind == "strap":
        height = handle.low + (handle.high - handle.low) * t + 0.05 * swell * t
        start, end = (float(shape.radius(np.array(level))) for level in (handle.low, handle.high))
        radius = start + (end - start) * t
        radius = radius + np.maximum(handle.out - np.maximum(start, end) * 0.97, 0.12) * swell
        radius = np.where((t > 0) & (t < 1), radius, radius * 0.97)
        azimuth = np.full_like(t, handle.azimuth)
    else:
        height = handle.low + (handle.high - handle.low) * swell
        body = float(shape.radius(np.array(handle.low)))
        radius = body * 0.97 + (handle.out - body) * swell
        azimuth = handle.azimuth + 34 * (2 * t - 1) * (1 - 0.35 * swell)
    turn = np.radians(azimuth - view.azimuth)
    sine, cosine = math.sin(math.radians(view.elevation)), math.cos(math.radians(view.elevation))
    depth = radius * np.cos(turn) * view.radius
    columns = view.centre + radius * np.sin(turn) * view.radius
    rows = view.base - height * 2 * shape.aspect * view.radius * cosine + depth * sine
    return list(zip(columns.tolist(), rows.tolist(), depth.tolist(), strict=True))


def _tube(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], view: View) -> None:
    """Draw a round tube along `points`. It is darker at its edges, and lighter on the side of the lamp."""
    width = view.radius * 0.13
    side = math.sin(math.radians(view.lamp)) * width * 0.15
    for part, shift, tone in ((1.0, 0.0, 90), (0.7, 0.5, 125), (0.3, 1.0, 190)):
        moved = [(x + side * shift, y - width * 0.1 * shift) for x, y in points]
        thick = max(2, round(width * part))
        draw.line(moved, fill=(tone, 255), width=thick, joint="curve")
        for x, y in (moved[0], moved[-1]):
            draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=(tone, 255))
