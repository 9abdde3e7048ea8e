"""Small, distinct photographs for tests, written as real files."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
from PIL import Image

VIEWS = ("front", "back", "left", "right", "top", "detail")


def photo(seed: int, size: tuple[int, int] = (80, 60)) -> Image.Image:
    """Return a smooth random picture."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def save(path: Path, seed: int, size: tuple[int, int] = (80, 60)) -> Path:
    """Write `photo(seed)` to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(seed, size).save(path, quality=92)
    return path


def vase_name(vase: int, view: int) -> str:
    """Return a file name in the format of the museums' export."""
    return f"{uuid.UUID(int=vase)}_{VIEWS[view]}_ac001001.jpg"


def vases(folder: Path, count: int, views: int, first: int = 0) -> list[Path]:
    """Write `count` vases with `views` views each."""
    return [
        save(folder / vase_name(vase, view), 100 * vase + view)
        for vase in range(first, first + count)
        for view in range(views)
    ]
