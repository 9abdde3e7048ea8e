"""Measure how fast CLIP scores photographs on this machine. The measurement takes some seconds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation import checks, clip
from vasevqa.curation.devices import resolve_device
from vasevqa.curation.images import ImageFile
from vasevqa.curation.loader import Loader

SECONDS = 5.0


@dataclass(frozen=True)
class Settings:
    """The settings of `clip-filter` that determine its speed."""

    device: str
    batch_size: int
    workers: int = 0  # 0: one per core
    precision: str = "auto"
    exact_decode: bool = False
    checked: bool = True  # with the data checks


def seconds_per_photograph(
    model: Path,
    photographs: Sequence[ImageFile],
    settings: Settings,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Return how many seconds `clip-filter` needs per photograph, or None if no photograph can be read.

    Photographs are decoded and embedded for `SECONDS` seconds, or until all are done. Their order is random, but the
    same in every call. The time to load the model isn't counted. Raise the errors of `clip.load_clip`.
    """
    loaded = clip.load_clip(model, resolve_device(settings.device), settings.precision)
    order = random.Random(0).sample(range(len(photographs)), len(photographs))
    began = clock()

    def in_time() -> Iterator[ImageFile]:
        for index in order:
            if clock() - began >= SECONDS:  # unreadable photographs make no batch
                return
            yield photographs[index]

    # One loader decodes ahead while the model works, as in the step.
    cover = None if settings.exact_decode else loaded.preprocess.cover
    loader = Loader(
        in_time(),
        loaded.preprocess,
        settings.batch_size,
        settings.workers,
        cover,
        checks.measure if settings.checked else None,
    )
    done, spent = 0, 0.0
    with closing(iter(loader)) as batches:
        for batch in batches:
            loaded.encode_images(batch.pixels)
            done, spent = done + len(batch.names), clock() - began
            if spent >= SECONDS:
                break
    return spent / done if done else None
