"""Draw good and bad photographs of painted vases in front of typical museum backgrounds."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from vasevqa.sample.catalogue import Vase
from vasevqa.sample.damage import cracked, drawing, fragment
from vasevqa.sample.rendering import View, render
from vasevqa.sample.shapes import SHAPES

DAMAGE = ("fragment", "cracks", "blur", "dark", "drawing", "crop")
OVERSAMPLING = 1.4  # pictures are drawn larger and then reduced, so that edges and ornaments are smooth


@dataclass(frozen=True)
class Shot:
    """The settings of one photograph.

    `azimuth` is the camera's angle around the vase in degrees. `damage` is None or an element of DAMAGE. `seed` is the
    seed for random details. `size` is the length of the photograph's sides in pixels.
    """

    azimuth: float
    damage: str | None
    seed: int
    size: int = 288


def photograph(vase: Vase, shot: Shot) -> bytes:
    """Return a photograph as the bytes of a JPEG of shot.size x shot.size pixels.

    The same vase and the same shot always give the same bytes.
    """
    rng, noise = random.Random(shot.seed), np.random.default_rng(shot.seed)
    canvas = round(shot.size * OVERSAMPLING)
    picture = _compose(vase, shot, canvas, rng, noise)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    if shot.damage == "blur":
        image = image.filter(ImageFilter.GaussianBlur(canvas * rng.uniform(0.024, 0.034)))
    image = image.resize((shot.size, shot.size), Image.Resampling.LANCZOS)
    exposure = rng.uniform(0.1, 0.2) if shot.damage == "dark" else rng.uniform(0.8, 1.15)
    pixels = (
        np.asarray(image, dtype=np.float32)
        * exposure
        * np.array([rng.uniform(0.94, 1.06), 1.0, rng.uniform(0.94, 1.06)], dtype=np.float32)
    )
    # The noise is added last and the JPEG quality varies, so that blurred and sharp pictures have similar file sizes.
    gain = rng.uniform(2.5, 7)
    pixels += noise.standard_normal((shot.size, shot.size, 1), dtype=np.float32) * gain
    pixels += noise.standard_normal(pixels.shape, dtype=np.float32) * (gain / 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=rng.randint(78, 95))
    return buffer.getvalue()


def _compose(vase: Vase, shot: Shot, canvas: int, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    background = _background(canvas, rng, noise)
    color, cover = render(vase, _view(vase, shot, canvas, rng))
    if shot.damage == "fragment":
        color, cover = fragment(color, cover, rng)
    if shot.damage == "cracks":
        color, cover = cracked(color, cover, rng)
    if shot.damage == "drawing":
        return drawing(color, cover, rng)
    small = Image.fromarray((cover * 255).astype(np.uint8)).reduce(4)
    blurred = small.filter(ImageFilter.GaussianBlur(canvas / 4 / 26)).resize(
        (canvas, canvas), Image.Resampling.BILINEAR
    )
    shadow = np.roll(np.asarray(blurred, dtype=np.float32) / 255, (canvas // 36, canvas // 48), (0, 1))
    picture = background * (1 - 0.4 * shadow)[..., None]
    return np.asarray(picture + cover[..., None] * (color - picture))


def _view(vase: Vase, shot: Shot, canvas: int, rng: random.Random) -> View:
    shape = SHAPES[vase.shape]
    elevation = rng.uniform(4, 13)
    across, tall = 2 * shape.reach, 2 * shape.aspect + 0.15
    radius = canvas * rng.uniform(0.74, 0.9) / max(across, tall)
    centre, middle = (canvas * (0.5 + rng.uniform(-0.03, 0.03)) for _ in range(2))
    if shot.damage == "crop":  # the camera is too close, and it doesn't point at the middle of the vase
        radius *= rng.uniform(2.0, 2.6)
        centre += canvas * rng.choice((-1, 1)) * rng.uniform(0.35, 0.5)
        middle += canvas * rng.uniform(-0.35, 0.35)
    base = middle + shape.aspect * radius
    # The axis lies between two columns of pixels, so that the geometry of the left half also serves for the right half.
    return View(
        canvas,
        shot.azimuth,
        elevation,
        radius,
        round(centre),
        base,
        rng.choice((-1, 1)) * rng.uniform(15, 55),
        rng.uniform(0.2, 1),
    )


def _background(size: int, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    """Return a typical background of a museum photograph as colours (size, size, 3).

    Good and bad photographs have backgrounds of the same kinds: black velvet, a grey backdrop, or white or coloured
    paper. Sometimes the edge of a table is visible.
    """
    level = rng.choices((rng.uniform(8, 30), rng.uniform(70, 150), rng.uniform(190, 240)), (0.3, 0.4, 0.3))[0]
    tint = np.array([rng.uniform(0.88, 1.08), rng.uniform(0.95, 1.05), rng.uniform(0.9, 1.12)], dtype=np.float32)
    fall = np.linspace(1 - rng.uniform(0, 0.25), 1 + rng.uniform(0, 0.25), size, dtype=np.float32)
    if rng.random() < 0.3:
        fall[int(size * rng.uniform(0.6, 0.85)) :] *= rng.uniform(0.75, 1.2)
    cells = noise.normal(128, 40, (size // 8, size // 8)).clip(0, 255).astype(np.uint8)
    texture = np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) - 128
    return np.asarray((level * fall[:, None] + texture * rng.uniform(0.02, 0.12))[..., None] * tint, dtype=np.float32)
