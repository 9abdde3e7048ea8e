"""Photographs of painted vases: surfaces of revolution under a light, in front of a background; and the ways they go wrong."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vasevqa.sample.painting import paint
from vasevqa.sample.shapes import SHAPES, Vase

DAMAGE = ("fragment", "cracks", "blur", "dark", "drawing", "crop")


@dataclass(frozen=True)
class Shot:
    """How one photograph is taken. `damage` is None or one of DAMAGE; angles in degrees."""

    azimuth: float
    damage: str | None
    seed: int
    size: int = 288


def photograph(vase: Vase, shot: Shot) -> bytes:
    """The photograph as a JPEG."""
    rng, noise = random.Random(shot.seed), np.random.default_rng(shot.seed)
    pixels = _compose(vase, shot, rng, noise)
    gain = noise.uniform(2.5, 7)  # the sensor's noise, added last, so that blurred images weigh as much as sharp ones
    pixels = pixels + noise.normal(0, gain, (*pixels.shape[:2], 1)) + noise.normal(0, gain / 3, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=rng.randint(78, 95))
    return buffer.getvalue()


def _compose(vase: Vase, shot: Shot, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    size = shot.size
    background = _background(size, rng, noise)
    zoom = rng.uniform(0.74, 0.88)
    if shot.damage == "crop":
        zoom *= rng.uniform(2.0, 2.6)
    shift = (rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03))
    if shot.damage == "crop":
        shift = (rng.choice((-1, 1)) * rng.uniform(0.35, 0.5), rng.uniform(-0.4, 0.4))
    color, mask = _render(vase, shot, zoom, shift, rng)
    if shot.damage == "fragment":
        color, mask = _fragment(color, mask, rng)
    if shot.damage == "cracks":
        color, mask = _cracked(color, mask, background, rng)
    if shot.damage == "drawing":
        return _drawing(color, mask, rng)
    shadow = np.asarray(Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(size / 28)), dtype=np.float32)[..., None] / 255
    picture = background * (1 - 0.35 * np.roll(shadow, (size // 36, size // 48), (0, 1)))
    picture = np.where(mask[..., None] > 0, color, picture)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    radius = rng.uniform(7, 10) * size / 288 if shot.damage == "blur" else 0.7
    picture = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    exposure = rng.uniform(0.8, 1.15)
    if shot.damage == "dark":
        exposure = rng.uniform(0.1, 0.2)
    return np.asarray(picture * exposure * np.array([rng.uniform(0.94, 1.06), 1.0, rng.uniform(0.94, 1.06)]))


def _background(size: int, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    # As museums do: black velvet, grey sweeps, white paper; the same for both classes.
    level = rng.choices((rng.uniform(8, 30), rng.uniform(70, 150), rng.uniform(190, 240)), (0.3, 0.4, 0.3))[0]
    tint = np.array([rng.uniform(0.92, 1.08), 1.0, rng.uniform(0.92, 1.08)])
    slope = np.linspace(1 - rng.uniform(0, 0.25), 1 + rng.uniform(0, 0.25), size)[:, None, None]
    texture = Image.fromarray(noise.normal(128, 40, (size // 8, size // 8)).clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(level * slope * tint + (np.asarray(texture, dtype=np.float32)[..., None] - 128) * rng.uniform(0.02, 0.12))


def _render(vase: Vase, shot: Shot, zoom: float, shift: tuple[float, float], rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    shape, size = SHAPES[vase.shape], shot.size
    height = size * zoom * min(1.0, shape.aspect) if shape.aspect < 1.3 else size * zoom
    half = height / shape.aspect / 2
    if half > size * zoom * 0.42:
        height, half = height * size * zoom * 0.42 / half, size * zoom * 0.42
    centre, bottom = size * (0.5 + shift[0]), size * (0.5 + shift[1]) + height / 2
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    # Seen from slightly above: a row bends down at the middle of the body.
    across = (x - centre) / half
    bend = math.sin(math.radians(rng.uniform(3, 9))) * half * np.sqrt(np.clip(1 - across**2, 0, 1)) * 0.5
    v = (bottom - y + bend) / height
    radius = shape.radius(np.clip(v, 0, 1))
    u = across / np.maximum(radius, 1e-3)
    mask = (v >= 0) & (v <= 1) & (np.abs(u) <= 1)
    angle = np.arcsin(np.clip(u, -1, 1)) + math.radians(shot.azimuth)
    surface = paint(vase)
    column = ((angle / (2 * math.pi) + 0.5) % 1 * surface.shape[1]).astype(int) % surface.shape[1]
    row = ((1 - np.clip(v, 0, 1)) * (surface.shape[0] - 1)).astype(int)
    light = math.radians(rng.uniform(-55, 55))
    lambert = np.clip(np.sin(light) * u + np.cos(light) * np.sqrt(np.clip(1 - u**2, 0, 1)), 0, 1)
    shine = np.clip(lambert, 0, 1) ** 24 * rng.uniform(15, 60)
    color = surface[row, column] * (0.35 + 0.75 * lambert)[..., None] + shine[..., None]
    inside = mask & (v > 0.975)
    color[inside] = color[inside] * 0.5
    handles = _handles(vase, shot, (centre, bottom, height, half))
    behind = (handles > 0) & ~mask
    gloss = np.array([52, 44, 40], dtype=np.float32) * (0.6 + 0.6 * np.cos(light))
    color[behind] = gloss + 60 * (handles[behind][:, None] - 0.5)
    return color, (mask | behind).astype(np.float32)


def _handles(vase: Vase, shot: Shot, place: tuple[float, float, float, float]) -> np.ndarray:
    shape, (centre, bottom, height, half) = SHAPES[vase.shape], place
    image = Image.new("L", (shot.size, shot.size))
    draw = ImageDraw.Draw(image)
    low, high = shape.handle_span
    turn = math.radians(shot.azimuth)
    width = max(3, int(half * 0.11))
    for side in (-1, 1) if shape.handles != "one" else (1,):
        reach = side * math.cos(turn)
        inner = [half * float(shape.radius(np.array(level))) * reach for level in (low, high)]
        out = half * reach * (1.0 if shape.handles == "side" else 1.32)
        if shape.handles == "loop":
            points = [(inner[0], low), (out, low + 0.02), (out * 1.04, (low + high) / 2 + 0.03), (out, high + 0.05), (inner[1], high)]
        else:
            points = [(inner[0], low), (out, (2 * low + high) / 3), (out * 0.95, (low + 2 * high) / 3), (inner[1] * 1.2, high), (inner[1], high)]
        pixels = [(centre + dx, bottom - level * height) for dx, level in points]
        draw.line(_smooth(pixels), fill=200, width=width, joint="curve")
    return np.asarray(image, dtype=np.float32) / 255


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    for _ in range(3):  # Chaikin's corner cutting
        cut = [points[0]]
        for (ax, ay), (bx, by) in zip(points, points[1:], strict=False):
            cut += [(0.75 * ax + 0.25 * bx, 0.75 * ay + 0.25 * by), (0.25 * ax + 0.75 * bx, 0.25 * ay + 0.75 * by)]
        points = [*cut, points[-1]]
    return points


def _blob(centre: tuple[float, float], radius: float, rng: random.Random, corners: int = 11, rough: float = 0.45) -> list[tuple[float, float]]:
    points = []
    for index in range(corners):
        angle = 2 * math.pi * (index + rng.uniform(-0.35, 0.35)) / corners
        reach = radius * rng.uniform(1 - rough, 1 + rough)
        points.append((centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)))
    return points


def _inside(mask: np.ndarray, rng: random.Random) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    pick = rng.randrange(len(rows))
    return float(columns[pick]), float(rows[pick])


def _polygon(size: int, *polygons: list[tuple[float, float]]) -> np.ndarray:
    image = Image.new("L", (size, size))
    for points in polygons:
        ImageDraw.Draw(image).polygon(points, fill=255)
    return np.asarray(image) > 0


def _edge(part: np.ndarray, width: int) -> np.ndarray:
    inner = np.asarray(Image.fromarray((part * 255).astype(np.uint8)).filter(ImageFilter.MinFilter(2 * width + 1))) > 0
    return part & ~inner


def _fragment(color: np.ndarray, mask: np.ndarray, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """A sherd: an irregular piece with a pale broken edge, sometimes two, lying somewhere in the picture."""
    size = mask.shape[0]
    part = np.zeros_like(mask, dtype=bool)
    for _ in range(rng.choice((1, 1, 2, 3))):
        part |= _polygon(size, _blob(_inside(mask, rng), size * rng.uniform(0.13, 0.2), rng)) & (mask > 0)
    color = color.copy()
    color[_edge(part, 2)] = np.array([214, 160, 118], dtype=np.float32)
    turned = Image.fromarray(np.dstack([color.clip(0, 255), part * 255]).astype(np.uint8), "RGBA").rotate(rng.uniform(0, 360), resample=Image.Resampling.BILINEAR)
    box = turned.getchannel("A").getbbox() or (0, 0, size, size)
    piece = turned.crop(box)
    scale = min(size * rng.uniform(0.5, 0.8) / max(piece.size), 2.2)
    piece = piece.resize((max(8, int(piece.width * scale)), max(8, int(piece.height * scale))), Image.Resampling.BILINEAR)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(piece, ((size - piece.width) // 2 + rng.randint(-12, 12), (size - piece.height) // 2 + rng.randint(-12, 12)))
    array = np.asarray(canvas, dtype=np.float32)
    return array[..., :3], (array[..., 3] > 127).astype(np.float32)


def _cracked(color: np.ndarray, mask: np.ndarray, background: np.ndarray, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Large cracks and missing pieces, through which the background shows; broken edges are pale."""
    size, color = mask.shape[0], color.copy()
    holes = _polygon(size, *[_blob(_inside(mask, rng), size * rng.uniform(0.06, 0.12), rng) for _ in range(rng.randint(3, 5))])
    image = Image.fromarray(color.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(4, 7)):
        x, y = _inside(mask, rng)
        heading = rng.uniform(0, 2 * math.pi)
        points = [(x, y)]
        for _ in range(rng.randint(5, 9)):
            heading += rng.uniform(-0.7, 0.7)
            x, y = x + math.cos(heading) * size * 0.06, y + math.sin(heading) * size * 0.06
            points.append((x, y))
        draw.line(points, fill=(226, 190, 150), width=5)
        draw.line(points, fill=(12, 9, 8), width=3)
    color = np.asarray(image, dtype=np.float32).copy()
    rest = (mask > 0) & ~holes
    color[_edge(rest, 2) & np.asarray(Image.fromarray((holes * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(7))).astype(bool)] = np.array([220, 170, 128])
    return color, rest.astype(np.float32)


def _drawing(color: np.ndarray, mask: np.ndarray, rng: random.Random) -> np.ndarray:
    """Ink lines on paper, as archaeologists publish them; some on toned or dark paper."""
    paper = np.array(rng.choice(((238, 232, 216), (190, 180, 160), (120, 112, 100), (34, 36, 40))), dtype=np.float32)
    ink = np.array([235, 230, 220] if paper.mean() < 60 else [40, 34, 30], dtype=np.float32)
    grey = Image.fromarray((color.mean(-1) * mask).clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    values = np.asarray(grey, dtype=np.float32)
    gradient = np.hypot(*np.gradient(values))
    outline = np.hypot(*np.gradient(np.asarray(Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)))
    lines = np.clip(gradient / 22, 0, 1) * mask
    lines = np.maximum(lines, np.clip(outline / 30, 0, 1))[..., None]
    return paper * (1 - lines) + ink * lines
