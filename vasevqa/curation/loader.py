"""Decode images in worker threads while the model computes.

The batches come in a fixed order. At most a few batches are in memory.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from vasevqa.cores import available_cores
from vasevqa.curation.images import ImageFile, Quarantined, Unreadable, open_image
from vasevqa.curation.memory import BUDGET

Transform = Callable[[Image.Image], torch.Tensor]
Measure = Callable[[Path, Image.Image], bytes]


@dataclass(frozen=True)
class Batch:
    """A batch of decoded images. `pixels` is (B, C, H, W) float32, and row i belongs to names[i].

    `measured` holds the result of the loader's `measure` for each image, or b"" if the loader has no `measure`.
    """

    names: list[str]
    paths: list[Path]
    pixels: torch.Tensor
    measured: list[bytes]


@dataclass(frozen=True)
class _Ready:
    photograph: ImageFile
    pixels: torch.Tensor
    measured: bytes


class Loader:
    """An iterable of batches of decoded and transformed images.

    The images are decoded in threads, because PIL releases the interpreter's lock while it decodes and resizes. Threads
    therefore decode as fast as processes, and no pixels are copied between processes. At most a few batches are in
    memory, however many images there are.

    `measure` is called in the same threads with the path and the decoded image.

    During the iteration, images that can't be decoded are added to `quarantined`. `seconds` holds two times in seconds:
    'decode' is the sum of the working times of all threads, and 'wait' is the time in which the consumer waited for
    pixels.
    """

    def __init__(
        self,
        photographs: Iterable[ImageFile],
        transform: Transform,
        batch_size: int,
        workers: int = 0,
        cover: int | None = None,
        measure: Measure | None = None,
    ) -> None:
        self._photographs = photographs
        self._transform = transform
        self._batch_size = batch_size
        self._workers = workers or available_cores()
        self._cover = cover
        self._measure = measure
        self._lock = threading.Lock()
        self.quarantined: list[Quarantined] = []
        self.seconds = {"decode": 0.0, "wait": 0.0}

    def _decode(self, photograph: ImageFile) -> _Ready | Unreadable:
        began = time.perf_counter()
        try:
            with BUDGET.decoding():  # until the picture is no longer needed
                return self._ready(photograph)
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds["decode"] += spent

    def _ready(self, photograph: ImageFile) -> _Ready | Unreadable:
        if photograph.problem:
            return Unreadable(photograph.problem)
        try:
            image = open_image(photograph.path, self._cover)
        except Unreadable as reason:
            return reason
        measured = self._measure(photograph.path, image) if self._measure else b""
        return _Ready(photograph, self._transform(image), measured)

    def __iter__(self) -> Generator[Batch, None, None]:
        ahead = 2 * self._batch_size + 2 * self._workers
        source = iter(self._photographs)
        pending: deque[tuple[ImageFile, Future[_Ready | Unreadable]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        try:
            ready: list[_Ready] = []
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
                ready.append(result)
                if len(ready) == self._batch_size:
                    yield _batch(ready)
                    ready = []
            if ready:
                yield _batch(ready)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _batch(ready: list[_Ready]) -> Batch:
    return Batch(
        [one.photograph.name for one in ready],
        [one.photograph.path for one in ready],
        torch.stack([one.pixels for one in ready]),
        [one.measured for one in ready],
    )
