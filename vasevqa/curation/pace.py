"""Measure for some seconds how fast CLIP scores photographs on this machine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from vasevqa.curation import checks, clip
from vasevqa.curation.devices import resolve_device
from vasevqa.curation.images import ImageFile
from vasevqa.curation.loader import Loader

SECONDS = 5.0


def seconds_per_photograph(
    model: Path,
    photographs: Sequence[ImageFile],
    device: str,
    batch_size: int,
    clock: Callable[[], float] = time.perf_counter,
    checked: bool = True,
) -> float | None:
    """Return how many seconds `clip-filter` needs per photograph, or None if no photograph can be read.

    Decodes and embeds photographs in a random order (always the same one) until `SECONDS` have passed or all are done.
    With `checked`, the data checks are measured too. The time to load the model isn't counted. Raise what loading the
    model raises.
    """
    loaded = clip.load_clip(model, resolve_device(device))
    order = random.Random(0).sample(range(len(photographs)), len(photographs))
    photos = (photographs[index] for index in order)
    done, began = 0, clock()
    while clock() - began < SECONDS and (some := list(islice(photos, batch_size))):
        loader = Loader(
            some, loaded.preprocess, batch_size, 0, loaded.preprocess.cover, checks.measure if checked else None
        )
        for batch in loader:
            loaded.encode_images(batch.pixels)
            done += len(batch.names)
    return (clock() - began) / done if done else None
