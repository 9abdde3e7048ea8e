"""Drawings: vases match their catalogue entries, and damage is visible."""

from __future__ import annotations

import dataclasses
import io
import random
import re

import numpy as np
import pytest
from PIL import Image

from vasevqa.sample.catalogue import SUBJECTS, WARES, Vase, invent
from vasevqa.sample.painting import HEIGHT, paint
from vasevqa.sample.photographing import DAMAGE, Shot, photograph
from vasevqa.sample.rendering import View, render
from vasevqa.sample.shapes import SHAPES

VASES = [invent(random.Random(f"drawing-{number}")) for number in range(60)]


def look(vase: Vase, damage: str | None = None, azimuth: float = 10.0, seed: int = 3, size: int = 160) -> np.ndarray:
    with Image.open(io.BytesIO(photograph(vase, Shot(azimuth, damage, seed, size)))) as image:
        assert image.size == (size, size)
        return np.asarray(image, dtype=np.float32)


def one(**wanted: str) -> Vase:
    """Return a vase with these properties."""
    rng = random.Random("one")
    return next(
        vase
        for vase in (invent(rng) for _ in range(5000))
        if all(getattr(vase, name) == value for name, value in wanted.items())
    )


def test_the_catalogue_entry_describes_the_vase() -> None:
    for vase in VASES:
        entry = vase.annotation
        assert (entry["vase_id"], entry["shape"], entry["technique"], entry["fabric"]) == (
            vase.id,
            vase.shape,
            vase.ware.technique,
            vase.ware.fabric,
        )
        assert (entry["attribution"], entry["provenance"]) == (vase.painter, vase.provenance)
        match = re.fullmatch(r"c\. (\d+)-(\d+) BCE", str(entry["date"]))
        assert match is not None
        assert (entry["date_start"], entry["date_end"]) == (-int(match[1]), -int(match[2]))
        assert vase.ware.earliest >= int(match[1]) > int(match[2]) >= vase.ware.latest
        assert SUBJECTS[vase.subject] in str(entry["decoration"])
        assert vase.border in str(entry["decoration"])
        for field in ("fabric", "technique", "shape", "provenance", "date", "attribution", "decoration"):
            assert str(entry[field]) in str(entry["caption"])


def test_every_ware_shape_subject_and_border_can_be_drawn() -> None:
    for ware in WARES:
        base = dataclasses.replace(VASES[0], ware=ware)
        for shape in ware.shapes:
            for subject, border in zip(ware.subjects * 3, ware.borders * 6, strict=False):
                surface, _ = paint(dataclasses.replace(base, shape=shape, subject=subject, border=border))
                assert surface.std() > 15


def zone(vase: Vase) -> np.ndarray:
    """Return the painted rows that contain the figures."""
    low, high = SHAPES[vase.shape].scene
    return paint(vase)[0][int((1 - high) * HEIGHT) + 8 : int((1 - low) * HEIGHT) - 2]


def test_the_painted_technique_matches_the_catalogue() -> None:
    background = {
        technique: np.median(zone(one(technique=technique)), axis=(0, 1))
        for technique in ("black-figure", "red-figure", "white-ground")
    }
    assert background["red-figure"].max() < 70  # clay-coloured figures on black gloss
    assert background["black-figure"].mean() > 90  # black figures on clay
    assert background["white-ground"].min() > 150


def test_the_painted_subject_and_border_match_the_catalogue() -> None:
    base = one(technique="black-figure", shape="krater")
    low, high = SHAPES["krater"].scene
    rows = slice(int((1 - high) * HEIGHT), int((1 - low) * HEIGHT))
    pictures = [paint(dataclasses.replace(base, subject=subject, border="tongue"))[0] for subject in base.ware.subjects]
    for number, picture in enumerate(pictures):
        for other in pictures[number + 1 :]:
            different = np.abs(picture - other).max(-1) > 60
            assert different[rows].mean() > 0.02
            assert not different[: rows.start].any()  # the pictures differ only in the scene
    meander, tongue = (paint(dataclasses.replace(base, border=border))[0] for border in ("meander", "tongue"))
    different = np.abs(meander - tongue).max(-1) > 60
    assert not different[rows].any()
    assert different.any()


@pytest.mark.parametrize("name", SHAPES)
def test_the_rendered_shape_matches_the_catalogue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES[name]
    vase = dataclasses.replace(VASES[0], shape=name)
    view = View(size=400, azimuth=0, elevation=0.001, radius=60, centre=200, base=380, lamp=20, gloss=0.5)
    with monkeypatch.context() as bare:
        bare.setitem(SHAPES, name, dataclasses.replace(shape, handles=()))
        _, cover = render(vase, view)
    body = cover > 0.5
    height, width = np.ptp(np.nonzero(body.any(1))[0]) + 1, np.ptp(np.nonzero(body.any(0))[0]) + 1
    assert height / width == pytest.approx(shape.aspect, rel=0.05)
    for level in (0.2, 0.5, 0.9):
        row = round(380 - level * 2 * 60 * shape.aspect)
        assert body[row].sum() == pytest.approx(2 * 60 * float(shape.radius(np.array(level))), abs=4)
    _, handled = render(vase, dataclasses.replace(view, azimuth=90 if shape.handles[0].azimuth == 180 else 0))
    assert (handled > 0.5).sum() > body.sum() + 50  # the handles are outside the outline


def test_the_camera_moves_around_the_vase() -> None:
    vase = one(subject="horse", technique="red-figure", shape="amphora")
    front, side = look(vase, azimuth=0), look(vase, azimuth=90)
    assert (np.abs(front - side).max(-1) > 50).mean() > 0.02
    # The back has the same scene as the front. From the side of a handle, no scene is in the middle.
    assert np.abs(front - look(vase, azimuth=180)).mean() < np.abs(front - side).mean()


def test_vase_and_shot_determine_the_photograph() -> None:
    vase, other = VASES[:2]
    shot = Shot(20, "cracks", 5, 128)
    assert photograph(vase, shot) == photograph(vase, shot)
    changed = [
        photograph(other, shot),
        photograph(vase, dataclasses.replace(shot, seed=6)),
        photograph(vase, dataclasses.replace(shot, damage=None)),
    ]
    assert len({photograph(vase, shot), *changed}) == 4


def sharpness(picture: np.ndarray) -> float:
    """Return the strength of the edges above the noise."""
    grey = np.asarray(Image.fromarray(picture.mean(-1).astype(np.uint8)).reduce(2), dtype=np.float32)
    return float(np.percentile(np.hypot(*np.gradient(grey)), 97))


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_visible_in_the_photograph(kind: str) -> None:
    """The same shot with and without damage differs clearly, for every vase."""
    for number, vase in enumerate(VASES[:12]):
        whole, bad = look(vase, seed=number), look(vase, kind, seed=number)
        changed = float((np.abs(whole - bad).max(-1) > 40).mean())
        if kind == "dark":
            assert bad.mean() < 0.3 * whole.mean()
        elif kind == "blur":
            assert sharpness(bad) < 0.6 * sharpness(whole)
        else:
            assert changed > 0.02, f"vase {number}"
