"""Draw many photographs in several processes.

Drawing is Python code for the most part, so threads would wait for one another.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from vasevqa.sample.catalogue import Vase
from vasevqa.sample.photographing import Shot, photograph

PROCESSES = 2
FEW = 50  # fewer photographs than this are drawn in this process, because processes take a second to start
CHUNK = 10  # photographs that are given to a process at once
Pair = tuple[Vase, Shot]


def photographs(pairs: Sequence[Pair]) -> Iterator[bytes]:
    """Yield the photograph of each pair, in the same order, as the bytes of a JPEG."""
    if len(pairs) < FEW:
        yield from map(_jpeg, pairs)
        return
    with _processes() as pool:
        yield from pool.map(_jpeg, pairs, chunksize=CHUNK)


def thumbnails(pairs: Sequence[Pair], side: int) -> Iterator[np.ndarray]:
    """Yield each photograph, in the same order, as an array (side, side, 3) of uint8."""
    sides = [side] * len(pairs)
    if len(pairs) < FEW:
        yield from map(_thumbnail, pairs, sides)
        return
    with _processes() as pool:
        yield from pool.map(_thumbnail, pairs, sides, chunksize=CHUNK)


def _jpeg(pair: Pair) -> bytes:
    return photograph(*pair)


def _thumbnail(pair: Pair, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(photograph(*pair))) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def _processes() -> ProcessPoolExecutor:
    # A forked process would inherit the locks of this process's threads.
    return ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """Let this process end when its parent ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
