"""Functions for making the tiny models: write a complete folder, draw pictures, and set the seed."""

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
    """Call `write` to fill a temporary folder, and rename it to `folder`. Return False if `folder` is already complete.

    `marker` is the name of the file that records the settings. `folder` is complete if its marker holds the settings
    `wanted`. If its marker holds different settings, the folder is replaced. After an interruption, the next call
    starts again from the beginning.

    Raise ConfigError if `folder` is a file, or a folder with files but no marker.
    """
    if _read(folder / marker) == wanted:
        return False
    if folder.exists() and not (folder / marker).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds files that are not from `vasevqa sample`; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if _read(folder / marker) == wanted:  # meanwhile, another process has made the folder
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
    """Set PyTorch's seed to `seed` and its number of threads to THREADS inside a `with` block.

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
    """Draw the photographs `shots`, and return them as a tensor (N, 3, side, side) of uint8."""
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
    """Crop each picture (N, 3, H, W) at a random place to `side` x `side`. Mirror it with a probability of 0.5."""
    corners = torch.randint(0, pixels.shape[-1] - side + 1, (len(pixels), 2)).tolist()
    flips = (torch.rand(len(pixels)) < 0.5).tolist()
    crops = [
        picture[:, top : top + side, left : left + side] for picture, (top, left) in zip(pixels, corners, strict=True)
    ]
    return torch.stack([crop.flip(-1) if flip else crop for crop, flip in zip(crops, flips, strict=True)])
