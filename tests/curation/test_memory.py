"""The number of pixels that threads decode at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PIL import Image

from vasevqa.curation import decoding, memory
from vasevqa.curation.images import ImageFile, open_image
from vasevqa.curation.loader import Loader
from vasevqa.curation.memory import PixelBudget


def test_a_thread_waits_until_its_pixels_fit() -> None:
    budget, first_is_done, taken = PixelBudget(100), threading.Event(), list[bool]()

    def second() -> None:
        with budget.decoding():
            budget.take(60)
            taken.append(first_is_done.is_set())

    with budget.decoding():
        budget.take(60)
        thread = threading.Thread(target=second)
        thread.start()
        while not budget._changed._waiters:  # type: ignore[attr-defined]
            pass
        first_is_done.set()
    thread.join()
    assert taken == [True]


def test_a_photograph_larger_than_the_budget_is_decoded_alone_and_nothing_is_kept() -> None:
    budget = PixelBudget(100)
    for _ in range(3):
        with budget.decoding():
            budget.take(1000)
            with budget.decoding():  # a second picture of the same photograph waits for nothing
                budget.take(2000)
            assert budget.held == 2000
        assert budget.held == 0
    budget.take(50)  # outside a block
    assert budget.held == 0


def test_the_loader_keeps_to_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads decode photographs of 100 x 100 pixels, of which two fit."""
    for number in range(24):
        Image.new("RGB", (100, 100), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    lock, now, most = threading.Lock(), 0, 0

    class Counted(PixelBudget):
        def take(self, pixels: int, wait: bool = True) -> None:
            nonlocal now, most
            super().take(pixels, wait)
            with lock:
                now += pixels
                most = max(most, now)

        def give_back(self) -> None:
            nonlocal now
            with lock:
                now -= self.held
            super().give_back()

    import vasevqa.curation.loader as loading

    budget = Counted(25_000)
    for module in (memory, decoding, loading):
        monkeypatch.setattr(module, "BUDGET", budget)
    photographs = [ImageFile(path, path.name) for path in sorted(tmp_path.iterdir())]

    def transform(image: Image.Image) -> object:
        import torch

        return torch.tensor(image.getpixel((0, 0)))

    batches = list(Loader(photographs, transform, 8, workers=8))  # type: ignore[arg-type]
    assert [name for batch in batches for name in batch.names] == [photograph.name for photograph in photographs]
    assert most == 20_000
    assert now == 0


def test_memory_that_runs_out_gives_the_pixels_back_before_the_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (10, 10), "red").save(tmp_path / "a.png")
    held: list[int] = []
    decode = decoding._in_srgb

    def failing(image: Image.Image) -> Image.Image:
        held.append(memory.BUDGET.held)
        if len(held) == 1:
            raise MemoryError
        return decode(image)

    monkeypatch.setattr(decoding, "_in_srgb", failing)
    with memory.BUDGET.decoding():
        assert open_image(tmp_path / "a.png").size == (10, 10)
    assert held == [100, 100]
    assert memory.BUDGET.held == 0
