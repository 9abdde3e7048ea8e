"""What only the content of a photograph decides, and what the storage and the memory decide."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from vasevqa import storage
from vasevqa.curation import decoding, memory
from vasevqa.curation.images import Unreadable, open_image
from vasevqa.errors import TRANSIENT_ERRNOS, StorageError, TransientStorageError

REAL = decoding._File


def fail(number: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next reads of photographs' files fail, a number of times."""
    left = [times]

    class Ill(io.FileIO):
        def readinto(self, buffer: bytearray) -> int | None:  # type: ignore[override]
            if left[0]:
                left[0] -= 1
                raise OSError(number, os.strerror(number))
            return super().readinto(buffer)

    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(decoding, "_File", type("_File", (REAL, Ill), {}))


@pytest.mark.parametrize("number", TRANSIENT_ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_storage_that_fails_makes_no_photograph_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, number: int
) -> None:
    path = tmp_path / f"vase.{suffix}"
    Image.new("RGB", (64, 48), (10, 200, 30)).save(path)
    whole = open_image(path).tobytes()
    fail(number, 1, monkeypatch)
    assert open_image(path).tobytes() == whole
    fail(number, 1000, monkeypatch)
    with pytest.raises(TransientStorageError, match=rf"^Could not read {path}: .*{errno.errorcode[number]}"):
        open_image(path)


@pytest.mark.parametrize("moment", ["opening", "reading again"])
def test_a_photograph_that_vanishes_is_one_clear_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It vanishes after its size was asked, or after its content was found to be no image."""
    path = tmp_path / "vase.jpg"
    path.write_bytes(b"half of a copy")
    read = decoding._from_file

    def vanishing(where: Path, cover: int | None) -> Image.Image:
        if moment == "opening":
            where.unlink(missing_ok=True)
        try:
            return read(where, cover)
        finally:
            where.unlink(missing_ok=True)

    monkeypatch.setattr(decoding, "_from_file", vanishing)
    with pytest.raises(Unreadable, match=r"^the file vanished$"):
        open_image(path)


def test_a_forbidden_photograph_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vase.jpg"
    Image.new("RGB", (64, 48)).save(path)
    fail(errno.EACCES, 1000, monkeypatch)
    with pytest.raises(StorageError, match=f"^Could not read {path}: permission is missing"):
        open_image(path)


def test_a_photograph_gets_the_memory_alone_before_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vase.jpg"
    Image.new("RGB", (64, 48)).save(path)
    calls: list[int] = []

    def hungry(stream: object, cover: int | None) -> str:
        calls.append(len(calls))
        if len(calls) < enough:
            raise MemoryError
        return "a picture"

    monkeypatch.setattr(decoding, "_decoded", hungry)
    enough = 2
    assert open_image(path) == "a picture"
    enough, calls = 99, []
    with pytest.raises(Unreadable, match=r"^needs more memory than this step has$"):
        open_image(path)
    assert len(calls) == 2


def test_no_other_photograph_is_decoded_beside_one_that_needs_the_memory_alone() -> None:
    turns, inside, seen = memory.Turns(), threading.Event(), []
    go = threading.Event()

    def other() -> None:
        with turns.shared():
            inside.set()
            go.wait(60)
            seen.append("other")

    def alone() -> None:
        with turns.alone():
            seen.append("alone")

    threads = [threading.Thread(target=other), threading.Thread(target=alone)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(60)
    assert seen == ["other", "alone"]
