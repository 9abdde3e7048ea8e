"""Reading images: all kinds of bad files in a museum's folder, and all modes of good images."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vasevqa.curation import decoding, images
from vasevqa.curation.images import ImageFile, PassedOver, Unreadable, find_images, open_image
from vasevqa.curation.loader import Loader


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Return a gradient: more red to the right, more green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 40)], -1).astype(np.uint8))


def names(folder: Path, boundary: Path | None = None) -> list[str]:
    return [found.name for found in find_images(folder, boundary)]


def reason(path: Path) -> str:
    with pytest.raises(Unreadable) as error:
        open_image(path)
    return error.value.reason


def save(path: Path, image: Image.Image | None = None, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **how)
    return path


def test_images_are_found_recursively_by_suffix_in_a_fixed_order(tmp_path: Path) -> None:
    for name in (
        "b/z.JPG",
        "b/a.png",
        "a.TIFF",
        "c d/ü.webp",
        "x.jpeg",
        "y.bmp",
        "notes.txt",
        ".hidden.jpg",
        "b/deep/a.tif",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path) == ["a.TIFF", "x.jpeg", "y.bmp", "b/a.png", "b/z.JPG", "b/deep/a.tif", "c d/ü.webp"]


def test_links_are_followed_once_and_never_out_of_the_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "photos", tmp_path / "outside"
    save(folder / "real.png")
    save(outside / "secret.png")
    (folder / "loop").symlink_to(folder)
    (folder / "again.png").symlink_to(folder / "real.png")
    (folder / "out.png").symlink_to(outside / "secret.png")
    (folder / "outdir").symlink_to(outside)
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    found = {item.name: item.problem for item in find_images(folder)}
    assert found["real.png"] == ""
    assert "outside the volume" in found["out.png"]
    assert "outside the volume" in found["outdir"]
    assert set(found) == {"real.png", "out.png", "outdir", "gone.png"}  # the last link is broken
    # If the volume holds both folders, the linked photographs are read once.
    assert [(item.name, item.problem) for item in find_images(folder, boundary=tmp_path)] == [
        ("gone.png", ""),
        ("out.png", ""),
        ("real.png", ""),
    ]


def test_a_file_whose_name_is_not_utf8_is_listed_with_a_printable_name(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as stream:
        picture().save(stream, "JPEG")
    (found,) = find_images(tmp_path)
    assert "UTF-8" in found.problem
    assert json.loads(json.dumps(found.name)) == "caf\\udce9.jpg"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_every_mode_is_converted_to_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        image = picture().convert("L").convert(mode)
    else:
        image = picture().convert(mode)
    path = save(tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.tif"), image)
    opened = open_image(path)
    assert opened.mode == "RGB"
    assert opened.size == (64, 48)
    values = np.asarray(opened).astype(float)
    assert values.std() > 5


def test_sixteen_bit_images_keep_their_brightness(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((8, 8), 257 * 100, np.uint16))
    assert np.asarray(open_image(save(tmp_path / "x.png", grey))).mean() == 100


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.asarray(open_image(save(tmp_path / "x.png", clear))).min() == 255
    palette = picture().convert("P")
    assert open_image(save(tmp_path / "p.png", palette, transparency=0)).mode == "RGB"


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(save(tmp_path / "x.jpg", picture(64, 48), exif=exif)).size == (48, 64)


def test_with_damaged_exif_only_the_orientation_is_lost(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", picture(), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f" + b"\xff" * 40)
    assert open_image(path).size == (64, 48)


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 200, 0))
    path = save(tmp_path / "x.webp", first, save_all=True, append_images=[second], lossless=True)
    assert np.asarray(open_image(path))[0, 0].tolist() == [200, 0, 0]


def test_the_content_decides_the_format_and_not_the_name(tmp_path: Path) -> None:
    png = io.BytesIO()
    picture().save(png, "PNG")
    (tmp_path / "really_a_png.jpg").write_bytes(png.getvalue())
    assert open_image(tmp_path / "really_a_png.jpg").size == (64, 48)


def test_a_file_that_is_no_image_gets_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a photograph")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "fifo.jpg")
    whole = save(tmp_path / "whole.jpg", picture(300, 300)).read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "eps.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    assert reason(tmp_path / "empty.jpg") == "empty (zero bytes)"
    assert reason(tmp_path / "text.jpg") == "not an image"
    assert reason(tmp_path / "eps.jpg") == "not an image"
    assert reason(tmp_path / "folder.jpg") == "not a regular file"
    assert reason(tmp_path / "fifo.jpg") == "not a regular file"
    assert reason(tmp_path / "truncated.jpg") == "truncated"
    assert reason(tmp_path / "missing.jpg") == "the file vanished"
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    assert "decompression bomb" in reason(tmp_path / "whole.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = save(tmp_path / "x.png", Image.new("1", (8, 8))).read_bytes()
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">II", 100_000, 100_000) + header[24:29]
    (tmp_path / "x.png").write_bytes(header[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + header[33:])
    assert "decompression bomb" in reason(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
def test_truncated_files_of_every_format_are_detected(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"whole.{suffix}", picture(200, 160)).read_bytes()
    for part in (0.3, 0.6, 0.9):
        (tmp_path / f"part.{suffix}").write_bytes(whole[: int(len(whole) * part)])
        assert reason(tmp_path / f"part.{suffix}")


@settings(max_examples=60, deadline=None)
@given(
    noise=st.binary(max_size=400),
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF", b"II*\x00", b"MM\x00*", b"BM", b"GIF89a"]
    ),
)
def test_any_bytes_are_decoded_or_reported_as_unreadable(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.jpg"
    path.write_bytes(start + noise)
    try:
        assert open_image(path).mode == "RGB"
    except Unreadable as error:
        assert error.reason


def test_a_reduced_decode_is_never_smaller_than_requested(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", picture(1600, 1200), quality=90)
    for cover in (100, 150, 224, 300, 600, 1200, 5000):
        size = open_image(path, cover).size
        assert min(size) >= min(cover, 1200)
    assert open_image(path, 150).size == (200, 150)
    whole = np.asarray(open_image(path).resize((200, 150), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(np.asarray(open_image(path, 150)).astype(float) - whole).mean() < 3


def to_tensor(image: Image.Image):
    import torch

    return torch.from_numpy(np.asarray(image.resize((8, 8))).copy()).permute(2, 0, 1).float()


def test_the_loader_keeps_the_order_and_lists_bad_files(tmp_path: Path) -> None:
    for number in range(23):
        save(tmp_path / f"{number:02}.jpg", Image.new("RGB", (16, 16), (number * 10, 0, 0)))
    (tmp_path / "05.jpg").write_bytes(b"")
    (tmp_path / "17.jpg").write_text("text")
    loader = Loader(find_images(tmp_path), to_tensor, batch_size=4, workers=3)
    batches = list(loader)
    got = [name for batch in batches for name in batch.names]
    assert got == [f"{number:02}.jpg" for number in range(23) if number not in (5, 17)]
    assert [len(batch.names) for batch in batches] == [4, 4, 4, 4, 4, 1]
    first = [float(pixels[0, 0, 0]) for batch in batches for pixels in batch.pixels]
    assert first == sorted(first)
    assert [(item.name, item.reason) for item in loader.quarantined] == [
        ("05.jpg", "empty (zero bytes)"),
        ("17.jpg", "not an image"),
    ]
    assert loader.seconds["decode"] > 0


def test_stopping_the_loop_early_leaves_no_thread(tmp_path: Path) -> None:
    import threading

    for number in range(40):
        save(tmp_path / f"{number:02}.png", picture(8, 8))
    for batch in Loader(find_images(tmp_path), to_tensor, batch_size=2, workers=2):
        assert len(batch.names) == 2
        break
    import gc

    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_bug_in_the_loader_is_not_reported_as_a_bad_image(tmp_path: Path) -> None:
    save(tmp_path / "x.png")

    def broken(image: Image.Image):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(Loader(find_images(tmp_path), broken, batch_size=2))


def test_the_loader_reads_only_a_few_images_ahead(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", picture(8, 8))
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield ImageFile(path, f"{asked}.png")

    batches = iter(Loader(endless(), to_tensor, batch_size=4, workers=2))
    for number in range(1, 6):
        assert len(next(batches).names) == 4
        assert asked <= number * 4 + 2 * 4 + 2 * 2
    batches.close()


def test_other_files_are_counted_by_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.JFIF", "c.jpe", "d.gif"):
        picture().save(tmp_path / name, "GIF" if name.endswith("gif") else "JPEG")
    for name in (
        "x.heic",
        "y.HEIC",
        "notes.txt",
        "Thumbs.db",
        "._a.jpg",
        "@eaDir/a.jpg",
        "__MACOSX/a.jpg",
        ".hidden.jpg",
        "README",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(images.MISSING, ".heic", "the package pi-heif")
    others = PassedOver()
    assert [found.name for found in find_images(tmp_path, others=others)] == ["a.jpg", "b.JFIF", "c.jpe", "d.gif"]
    assert others.sentence() == (
        "9 other files: 4 of other programs, 2 .heic need the package pi-heif, 1 .txt, 1 hidden, 1 without a suffix"
    )
    assert others.names["of other programs"] == ["._a.jpg", "@eaDir", "Thumbs.db", "__MACOSX"]


def test_a_link_to_a_labelled_folder_outside_is_refused(tmp_path: Path) -> None:
    from vasevqa.curation.labels import labelled_images
    from vasevqa.errors import DataError

    save(tmp_path / "elsewhere/x.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a link that leads outside"):
        labelled_images(tmp_path / "data")


@pytest.mark.parametrize("link", ["1.jpg", "A/1.jpg"])
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (".git/annex/objects/SHA256E-s12--ab.jpg", None),
        ("blobs/0123abcd", None),
        ("@eaDir/1.jpg", None),
        ("notes.txt", "not an image"),
        (".git/annex/objects/missing.jpg", "a link to nothing"),
    ],
)
def test_a_link_is_read_if_its_target_is_not_read_itself(
    link: str, target: str, reason: str | None, tmp_path: Path
) -> None:
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    if reason is None:
        Image.new("RGB", (8, 8), (90, 20, 10)).save(tmp_path / target, "JPEG")
    elif "missing" not in target:
        (tmp_path / target).write_text("notes")
    (tmp_path / link).symlink_to(os.path.relpath(tmp_path / target, (tmp_path / link).parent))
    [found] = find_images(tmp_path)
    assert found.name == link
    if reason is None:
        assert open_image(found.path).size == (8, 8)
    else:
        with pytest.raises(Unreadable, match=reason):
            open_image(found.path)


def test_a_photograph_and_a_link_to_it_are_read_once(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "2.jpg")
    (tmp_path / "readme.txt").touch()
    for link, target in (("1.jpg", "2.jpg"), ("3", "2.jpg"), ("read", "readme.txt")):
        (tmp_path / link).symlink_to(target)
    others = PassedOver()
    assert [item.name for item in find_images(tmp_path, others=others)] == ["2.jpg"]
    assert others.counts == {".txt": 1}
