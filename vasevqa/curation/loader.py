"""Decode images ahead of the model, in worker threads and bounded memory. Batches come in a fixed order."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from vasevqa.curation.images import ImageFile, Quarantined, Unreadable, open_image

Transform = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """A batch of decoded images. `pixels` is (B, C, H, W) float32, and row i belongs to names[i]."""

    names: list[str]
    paths: list[Path]
    pixels: torch.Tensor


def available_cpus() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Loader:
    """Iterates over batches of decoded, transformed images.

    The images are decoded in threads, because PIL releases the interpreter's lock while it decodes and resizes. Threads
    therefore decode as fast as processes, and no pixels are copied between processes. At most a few batches are in
    memory, however many images there are.

    `quarantined` lists the images that couldn't be decoded so far. `seconds` holds the time by kind of work: 'decode'
    is the time of all workers together, and 'wait' is the time in which the consumer waited for pixels.
    """

    def __init__(
        self,
        photographs: Iterable[ImageFile],
        transform: Transform,
        batch_size: int,
        workers: int = 0,
        cover: int | None = None,
    ) -> None:
        self._photographs = photographs
        self._transform = transform
        self._batch_size = batch_size
        self._workers = workers or available_cpus()
        self._cover = cover
        self._lock = threading.Lock()
        self.quarantined: list[Quarantined] = []
        self.seconds = {"decode": 0.0, "wait": 0.0}

    def _decode(self, photograph: ImageFile) -> torch.Tensor | Unreadable:
        began = time.perf_counter()
        try:
            if photograph.problem:
                return Unreadable(photograph.problem)
            try:
                image = open_image(photograph.path, self._cover)
            except Unreadable as reason:
                return reason
            return self._transform(image)
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds["decode"] += spent

    def __iter__(self) -> Generator[Batch, None, None]:
        ahead = 2 * self._batch_size + 2 * self._workers
        source = iter(self._photographs)
        pending: deque[tuple[ImageFile, Future[torch.Tensor | Unreadable]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        try:
            ready: list[tuple[ImageFile, torch.Tensor]] = []
            while True:
                for photograph in itertools.islice(source, ahead - len(pending)):
                    pending.append((photograph, pool.submit(self._decode, photograph)))
                if not pending:
                    break
                photograph, future = pending.popleft()
                began = time.perf_counter()
                result = future.result()
                self.seconds["wait"] += time.perf_counter() - began
                if isinstance(result, Unreadable):
                    self.quarantined.append(Quarantined(photograph.name, photograph.path, result.reason))
                    continue
                ready.append((photograph, result))
                if len(ready) == self._batch_size:
                    yield _batch(ready)
                    ready = []
            if ready:
                yield _batch(ready)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _batch(ready: list[tuple[ImageFile, torch.Tensor]]) -> Batch:
    return Batch(
        [photograph.name for photograph, _ in ready],
        [photograph.path for photograph, _ in ready],
        torch.stack([pixels for _, pixels in ready]),
    )
