"""Draw damaged vases, and line drawings in place of photographs.

A damaged vase is either broken into sherds, or it has cracks and missing pieces. Every public function takes two
arrays. `color` holds the colours of a picture, as (n, n, 3) in 0..255. `cover` holds the fraction of each pixel that
shows the vase, as (n, n) in 0..1.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

BREAK = np.array([222, 172, 126], dtype=np.float32)  # colour of the clay where the wall is broken
Point = tuple[float, float]


def fragment(color: np.ndarray, cover: np.ndarray, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Return colours and coverage of one to three sherds of the vase. Each sherd is rotated at random.

    On one side of each sherd, the pale broken edge of the wall is visible.
    """
    size = len(cover)
    canvas = Image.new("RGBA", (size, size))
    count = rng.choice((1, 1, 2, 3))
    turn = rng.uniform(0, 2 * math.pi)
    for number in range(count):
        part = _polygon(size, _blob(_inside(cover, rng), size * rng.uniform(0.13, 0.2), rng, rough=0.32)) & (
            cover > 0.5
        )
        piece = Image.fromarray(np.dstack([color.clip(0, 255), part * 255]).astype(np.uint8), "RGBA")
        piece = piece.crop(piece.getchannel("A").getbbox() or (0, 0, size, size))
        wanted = size * (rng.uniform(0.5, 0.75) if count == 1 else rng.uniform(0.28, 0.42))
        scale = wanted / max(piece.size)
        piece = piece.resize(
            (max(8, round(piece.width * scale)), max(8, round(piece.height * scale))), Image.Resampling.BICUBIC
        )
        piece = piece.rotate(rng.uniform(0, 360), resample=Image.Resampling.BICUBIC, expand=True)
        away = 0.0 if count == 1 else size * 0.23
        angle = turn + 2 * math.pi * number / count
        left = round(size / 2 + away * math.cos(angle) + rng.uniform(-0.03, 0.03) * size - piece.width / 2)
        top = round(size / 2 + away * math.sin(angle) + rng.uniform(-0.03, 0.03) * size - piece.height / 2)
        wall = Image.new("RGBA", piece.size, (*(int(c) for c in BREAK), 255))
        wall.putalpha(piece.getchannel("A"))
        thick = max(3, round(size / 70))
        for step in range(thick, -1, -1):
            canvas.paste(wall if step else piece, (left + step, top + step), wall if step else piece)
    array = np.asarray(canvas, dtype=np.float32)
    return array[..., :3], array[..., 3] / 255


def cracked(color: np.ndarray, cover: np.ndarray, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Return colours and coverage of the vase with large missing pieces and wide dark cracks.

    One or two of the missing pieces are at the outline.
    """
    size = len(cover)
    tall = float(np.ptp(np.nonzero(cover.max(1) > 0.5)[0])) if cover.max() > 0.5 else size / 2
    outline = _edge(cover > 0.5, 2).astype(np.float32)
    holes = [_blob(_inside(outline, rng), tall * rng.uniform(0.14, 0.2), rng) for _ in range(rng.randint(1, 2))]
    holes += [_blob(_inside(cover, rng), tall * rng.uniform(0.08, 0.13), rng) for _ in range(rng.randint(1, 3))]
    missing = _polygon(size, *holes)
    image = Image.fromarray(color.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    width = max(2, round(size / 110))
    for _ in range(rng.randint(4, 7)):
        points = _walk(_inside(cover, rng), tall, rng)
        draw.line(points, fill=tuple(int(c) for c in BREAK), width=2 * width)
        draw.line(points, fill=(12, 9, 8), width=width)
    rest = _largest(cover * ~missing)
    worn = np.asarray(image, dtype=np.float32).copy()
    near = np.asarray(Image.fromarray((missing * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(2 * width))) > 0
    worn[near & (rest > 0.5)] = BREAK
    return worn, rest


def drawing(color: np.ndarray, cover: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return the whole picture (n, n, 3) as a line drawing on paper, as in excavation reports.

    If the paper is dark, the lines are white.
    """
    paper = np.array(
        rng.choice(((238, 232, 216), (190, 180, 160), (120, 112, 100), (34, 36, 40), (52, 66, 98))), dtype=np.float32
    )
    ink = np.array([235, 230, 220] if paper.mean() < 90 else [40, 34, 30], dtype=np.float32)
    softness = len(cover) / 300
    inside = np.hypot(*np.gradient(_soft(color.mean(-1) * cover, softness)))
    outline = np.hypot(*np.gradient(_soft(cover * 255, softness)))
    lines = np.maximum(np.clip(inside / 20, 0, 1) * (cover > 0.5), np.clip(outline / 26, 0, 1))[..., None]
    return np.asarray(paper * (1 - lines) + ink * lines)


def _soft(values: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, dtype=np.float32)


def _blob(centre: Point, radius: float, rng: random.Random, corners: int = 11, rough: float = 0.42) -> list[Point]:
    points = []
    for index in range(corners):
        angle = 2 * math.pi * (index + rng.uniform(-0.35, 0.35)) / corners
        reach = radius * rng.uniform(1 - rough, 1 + rough)
        points.append((centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)))
    return points


def _walk(start: Point, tall: float, rng: random.Random) -> list[Point]:
    heading, points = rng.uniform(0, 2 * math.pi), [start]
    for _ in range(rng.randint(6, 10)):
        heading += rng.uniform(-0.7, 0.7)
        x, y = points[-1]
        points.append((x + math.cos(heading) * tall * 0.09, y + math.sin(heading) * tall * 0.09))
    return points


def _inside(part: np.ndarray, rng: random.Random) -> Point:
    rows, columns = np.nonzero(part > 0.5)
    if not len(rows):
        return part.shape[1] / 2, part.shape[0] / 2
    pick = rng.randrange(len(rows))
    return float(columns[pick]), float(rows[pick])


def _polygon(size: int, *polygons: list[Point]) -> np.ndarray:
    image = Image.new("L", (size, size))
    for points in polygons:
        ImageDraw.Draw(image).polygon(points, fill=255)
    return np.asarray(image) > 0


def _edge(part: np.ndarray, width: int) -> np.ndarray:
    inner = np.asarray(Image.fromarray((part * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(width))) == 255
    return np.asarray(part & ~inner)


def _largest(cover: np.ndarray) -> np.ndarray:
    """Return `cover` with only its largest connected piece. All other pieces are removed.

    The pieces are found on a coarse grid.
    """
    cell = 8
    coarse = np.asarray(Image.fromarray((cover * 255).astype(np.uint8)).reduce(cell)) > 60
    marks = np.where(coarse, np.arange(1, coarse.size + 1).reshape(coarse.shape), 0)
    while True:
        grown = np.pad(marks, 1)
        grown = (
            np.maximum.reduce([grown[1:-1, 1:-1], grown[:-2, 1:-1], grown[2:, 1:-1], grown[1:-1, :-2], grown[1:-1, 2:]])
            * coarse
        )
        if np.array_equal(grown, marks):
            break
        marks = grown
    if not coarse.any():
        return cover
    names, counts = np.unique(marks[coarse], return_counts=True)
    kept = np.pad(marks == names[counts.argmax()], 1, mode="edge")
    kept = np.logical_or.reduce(
        [kept[1:-1, 1:-1], kept[:-2, 1:-1], kept[2:, 1:-1], kept[1:-1, :-2], kept[1:-1, 2:]]
    )  # adds the neighbouring cells, which contain the rim of the piece
    return np.asarray(cover * kept.repeat(cell, 0).repeat(cell, 1)[: len(cover), : len(cover)], dtype=np.float32)
