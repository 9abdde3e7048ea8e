"""Pictures of a dataset contain no place, owner or serial number, and their pixels don't change."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.stages.test_build_dataset import attributes, build, name, picture
from vasevqa.curation.decoding import open_image
from vasevqa.curation.metadata import Metadata, read

SECRETS = (b"Jane Digger", b"SN-4711", b"Canino", b"xap/1.0", b"Photoshop 3.0")
PLACE = {1: "N", 2: (42.0, 25.0, 12.0), 3: "E", 4: (11.0, 37.0, 51.0)}


def exif(orientation: int = 6, gps: bool = True) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x013B] = "Jane Digger"
    data.get_ifd(0x8769)[0xA431] = "SN-4711"
    if gps:
        data.get_ifd(0x8825).update(PLACE)
    return data


def taken(kind: str, orientation: int = 6) -> bytes:
    """Return a photograph with the metadata of a phone or of a museum's program."""
    image = picture(3, 96).crop((0, 0, 96, 64))
    stream = io.BytesIO()
    if kind == "PNG":
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", "<x>Canino, Jane Digger, xap/1.0</x>")
        image.save(stream, "PNG", exif=exif(orientation), pnginfo=texts)
    elif kind == "WEBP":
        image.save(stream, "WEBP", exif=exif(orientation), xmp=b"<x>Canino xap/1.0 Jane Digger</x>", lossless=True)
    else:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        image.save(
            stream,
            "JPEG",
            exif=exif(orientation),
            icc_profile=profile,
            comment=b"found at Canino",
            xmp=b"http://ns.adobe.com/xap/1.0/\0<x>Jane Digger</x>",
        )
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_private_metadata_is_removed_and_no_pixel_changes(kind: str, orientation: int, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_bytes(taken(kind, orientation))
    clean = read(before).clean
    assert clean is not None
    after.write_bytes(clean)
    assert read(after) == Metadata()
    assert [secret for secret in SECRETS if secret in clean] == []
    with Image.open(after) as image:
        assert dict(image.getexif()) in ({}, {0x0112: 6})
        assert ("icc_profile" in image.info) == (kind == "JPEG")
    assert np.array_equal(np.asarray(open_image(before)), np.asarray(open_image(after)))


def test_a_photograph_without_private_metadata_is_not_changed(tmp_path: Path) -> None:
    plain = tmp_path / "plain.jpg"
    data = Image.Exif()
    data[0x0112] = 6
    picture(1).save(plain, exif=data)
    assert read(plain) == Metadata()


def _after_the_picture(kind: str) -> bytes:
    """Return a file with private metadata only after its first picture."""
    stream = io.BytesIO()
    first, second = picture(1, 64), picture(2, 64)
    if kind == "MPO":
        second.encoderinfo = {"exif": exif(1).tobytes()}
        first.save(stream, "MPO", save_all=True, append_images=[second], exif=b"")
        return stream.getvalue()
    if kind == "two Exif segments":
        first.save(stream, "JPEG", exif=Image.Exif())
        told = [b"Exif\0\0" + data.tobytes().removeprefix(b"Exif\0\0") for data in (Image.Exif(), exif(1))]
        return (
            b"\xff\xd8"
            + b"".join(b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data for data in told)
            + stream.getvalue()[2:]
        )
    first.save(stream, kind)
    return stream.getvalue() + b"\0\0\0\x18ftypmp42 Jane Digger at Canino"


@pytest.mark.parametrize("kind", ["MPO", "two Exif segments", "JPEG", "PNG", "WEBP"])
def test_data_after_the_picture_is_removed(kind: str, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_bytes(_after_the_picture(kind))
    assert b"Jane Digger" in before.read_bytes()
    found = read(before)
    assert found.private
    assert found.clean is not None
    assert b"Jane Digger" not in found.clean
    after.write_bytes(found.clean)
    assert read(after) == Metadata()
    with Image.open(after) as image:
        assert getattr(image, "n_frames", 1) == 1
    assert np.array_equal(np.asarray(open_image(before)), np.asarray(open_image(after)))


@pytest.mark.parametrize("scans", [False, True])
def test_a_picture_with_several_scans_keeps_all_scans(scans: bool, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    picture(5, 300).save(before, "JPEG", progressive=scans, restart_marker_blocks=0 if scans else 4, exif=exif(6))
    clean = read(before).clean
    assert clean is not None
    after.write_bytes(clean)
    assert np.array_equal(np.asarray(open_image(before)), np.asarray(open_image(after)))


@pytest.mark.parametrize("cut", [30, 200, 900])
def test_a_damaged_photograph_is_not_cleaned_or_loses_its_private_metadata(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(taken("JPEG")[:cut])
    clean = read(path).clean
    assert clean is None or b"Jane Digger" not in clean


def test_a_dataset_contains_no_gps_positions(tmp_path: Path) -> None:
    folder = tmp_path / "views"
    folder.mkdir()
    for number in range(12):
        (folder / name(number)).write_bytes(taken("JPEG")) if number < 3 else picture(number).save(
            folder / name(number)
        )
    (folder / name(11)).unlink()
    picture(11).save(folder / name(11).replace(".jpg", ".tif"), tiffinfo={0x013B: "Jane Digger"})
    before = (folder / name(0)).read_bytes()
    made = build(tmp_path, [attributes(number) for number in range(12)], folder, group_duplicates=False)
    written = b"".join(path.read_bytes() for path in (made["root"] / "images").iterdir() if path.suffix == ".jpg")
    assert [secret for secret in SECRETS if secret in written] == []
    notes = made["report"]["notes"]
    assert "3 images were written without the place, owner or serial number in their metadata" in notes
    assert "1 images keep a GPS position, an owner or a serial number: only JPEG, PNG and WebP are cleaned" in notes
    assert (folder / name(0)).read_bytes() == before


def test_a_photograph_for_which_the_memory_does_not_suffice_does_not_count_as_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, path = picture(3, 96), tmp_path / "vase.jpg"
    image.save(path, exif=exif())

    def fail(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "getexif", fail)
    with pytest.raises(MemoryError):
        read(path)
