"""Decoding ahead of the model: batches of pixels in a fixed order, from worker threads, in bounded memory."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from vasevqa.curation.images import ImageFile, Quarantined, Unreadable, open_image

Transform = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """Decoded images: `pixels` is (B, C, H, W) float32 and row i belongs to names[i]."""

    names: list[str]
    paths: list[Path]
    pixels: torch.Tensor


def available_cpus() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Loader:
    """Iterate over batches of decoded, transformed images.

    Threads, not processes: PIL releases the interpreter's lock while it decodes and resizes, so threads decode as fast,
    and pixels need no copy between processes. At most a few batches are held, however many images there are.
    After (and during) iteration `quarantined` lists what couldn't be decoded and `seconds` says where the time went:
    'decode' (summed over workers) and 'wait' (of the consumer, for pixels).
    """

    def __init__(
        self,
        found: Iterable[ImageFile],
        transform: Transform,
        batch_size: int,
        workers: int = 0,
        cover: int | None = None,
    ) -> None:
        self._found = found
        self._transform = transform
        self._batch_size = batch_size
        self._workers = workers or available_cpus()
        self._cover = cover
        self._lock = threading.Lock()
        self.quarantined: list[Quarantined] = []
        self.seconds = {"decode": 0.0, "wait": 0.0}

    def _decode(self, found: ImageFile) -> torch.Tensor | Unreadable:
        began = time.perf_counter()
        try:
            if found.problem:
                return Unreadable(found.problem)
            try:
                image = open_image(found.path, self._cover)
            except Unreadable as reason:
                return reason
            return self._transform(image)
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds["decode"] += spent

    def __iter__(self) -> Iterator[Batch]:
        ahead = 2 * self._batch_size + 2 * self._workers
        source = iter(self._found)
        pending: deque[tuple[ImageFile, Future[torch.Tensor | Unreadable]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        try:
            ready: list[tuple[ImageFile, torch.Tensor]] = []
            while True:
                for found in itertools.islice(source, ahead - len(pending)):
                    pending.append((found, pool.submit(self._decode, found)))
                if not pending:
                    break
                found, future = pending.popleft()
                began = time.perf_counter()
                result = future.result()
                self.seconds["wait"] += time.perf_counter() - began
                if isinstance(result, Unreadable):
                    self.quarantined.append(Quarantined(found.name, found.path, result.reason))
                    continue
                ready.append((found, result))
                if len(ready) == self._batch_size:
                    yield _batch(ready)
                    ready = []
            if ready:
                yield _batch(ready)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _batch(ready: list[tuple[ImageFile, torch.Tensor]]) -> Batch:
    return Batch(
        [found.name for found, _ in ready],
        [found.path for found, _ in ready],
        torch.stack([pixels for _, pixels in ready]),
    )
