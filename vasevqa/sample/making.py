"""Functions for making the tiny models: write a complete folder, draw pictures, and fix the random numbers."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from vasevqa import files
from vasevqa.errors import ConfigError
from vasevqa.sample.photographing import photograph

if TYPE_CHECKING:
    from vasevqa.sample.catalogue import Vase
    from vasevqa.sample.dataset import OnProgress
    from vasevqa.sample.photographing import Shot

THREADS = 2


def make_once(folder: Path, marker: str, wanted: Mapping[str, object], write: Callable[[Path], None]) -> bool:
    """Let `write` fill a new folder, and give it the name `folder`. Return False if `folder` is already complete.

    The file `marker` in the folder says what the folder holds. The folder gets its name only when it is complete. An
    interrupted call therefore leaves nothing that looks complete, and the next call begins again. A folder with the
    marker and other content is replaced.

    Raise ConfigError if the folder holds anything else.
    """
    if _read(folder / marker) == wanted:
        return False
    if folder.exists() and not (folder / marker).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds files that are not from `vasevqa sample`; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if _read(folder / marker) == wanted:  # another process made it meanwhile
            return False
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        files.write_json(partial / marker, wanted)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return True


def _read(marker: Path) -> object:
    return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Use the same random numbers and the same number of threads each time.

    The caller's random state and number of threads are restored at the end.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def draw_pictures(shots: Sequence[tuple[Vase, Shot]], side: int, report: OnProgress) -> Tensor:
    """Return photographs of the vases as a tensor (N, 3, side, side) of uint8."""
    pictures = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        for picture in pool.map(lambda pair: _picture(pair[0], pair[1], side), shots):
            pictures.append(picture)
            report("drawing", len(pictures), len(shots))
    finally:
        pool.shutdown(cancel_futures=True)
    return torch.stack(pictures)


def _picture(vase: Vase, shot: Shot, side: int) -> Tensor:
    with Image.open(io.BytesIO(photograph(vase, shot))) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return functional.pil_to_tensor(small)


def augmented(pixels: Tensor, side: int) -> Tensor:
    """Crop each picture at random to `side` x `side`, and flip it with probability one half."""
    corners = torch.randint(0, pixels.shape[-1] - side + 1, (len(pixels), 2)).tolist()
    flips = (torch.rand(len(pixels)) < 0.5).tolist()
    crops = [
        picture[:, top : top + side, left : left + side] for picture, (top, left) in zip(pixels, corners, strict=True)
    ]
    return torch.stack([crop.flip(-1) if flip else crop for crop, flip in zip(crops, flips, strict=True)])
