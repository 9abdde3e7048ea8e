"""No leaks: training contains nothing of a held-out vase, such as near-duplicates, earlier answers or equal content."""

from __future__ import annotations

import io
import json
import random
import shutil
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from safetensors.numpy import save_file

from tests.stages.test_build_dataset import IDS, attributes, build, name, picture
from vasevqa.dataset import splits
from vasevqa.dataset.duplicates import clip_features, registered_pairs, sketch
from vasevqa.dataset.rows import held_out
from vasevqa.errors import DataError
from vasevqa.sample.catalogue import Vase, invent
from vasevqa.sample.photographing import Shot, photograph


@lru_cache
def drawn(number: int) -> tuple[Vase, Image.Image]:
    rng = random.Random(number)
    vase = invent(rng)
    return vase, Image.open(io.BytesIO(photograph(vase, Shot(rng.uniform(0, 360), None, number)))).convert("RGB")


def cropped(image: Image.Image, part: float = 0.02) -> Image.Image:
    width, height = image.size
    box = (int(width * part), int(height * part), int(width * (1 - part)), int(height * (1 - part)))
    return image.crop(box)


def bordered(image: Image.Image, share: float, color: tuple[int, int, int]) -> Image.Image:
    return ImageOps.expand(image, int(image.width * share), color)


def turned(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))


PLANTED: list[Callable[[Image.Image], Image.Image]] = [
    cropped,
    lambda image: cropped(ImageOps.mirror(image)),
    lambda image: bordered(image, 0.04, (255, 255, 255)),
    lambda image: bordered(image, 0.06, (0, 0, 0)),
    lambda image: turned(image, 1),
    lambda image: turned(image, -1),
    lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    ImageOps.mirror,
    lambda image: ImageOps.mirror(ImageEnhance.Brightness(image).enhance(0.7)),
    lambda image: image.convert("L").convert("RGB"),
    lambda image: image.resize((200, 200)),
    lambda image: ImageEnhance.Contrast(image).enhance(1.3),
]


def test_planted_near_duplicates_are_found() -> None:
    originals = [drawn(number)[1] for number in range(13)]
    copies = [change(original) for change, original in zip(PLANTED, originals, strict=True)]
    pairs = registered_pairs([sketch(image) for image in (*originals, *copies)])
    assert [number for number in range(13) if (number, number + 13) not in pairs] == []
    assert set(pairs) <= {(number, number + 13) for number in range(13)}


def test_different_vases_of_one_shape_and_technique_stay_apart() -> None:
    vases = [drawn(number) for number in range(150)]
    alike = [
        (one, other)
        for one, other in combinations(range(150), 2)
        if (vases[one][0].shape, vases[one][0].technique) == (vases[other][0].shape, vases[other][0].technique)
    ]
    random.Random(0).shuffle(alike)
    joined = set(registered_pairs([sketch(image) for _, image in vases]))
    assert len(alike) >= 500
    assert sum(pair in joined for pair in alike[:500]) <= 5


def test_planted_near_duplicates_are_never_in_two_splits(tmp_path: Path) -> None:
    folder = tmp_path / "views"
    folder.mkdir()
    twins = [one.replace("-0000-4000", "-1111-4000") for one in IDS]
    for number in range(12):
        drawn(number)[1].save(folder / name(number))
        PLANTED[number](drawn(number)[1]).save(folder / name(number).replace("-0000-4000", "-1111-4000"))
    rows = [{**attributes(number), "vase_id": ids[number]} for number in range(12) for ids in (IDS, twins)]
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        made = build(tmp_path / str(seed), rows, folder, seed=seed, eval_fraction=0.3, val_fraction=0.2)
        sides = {vase: side for side, vases in made["report"]["vase_ids"].items() for vase in vases}
        assert [number for number in range(12) if sides[IDS[number]] != sides[twins[number]]] == []


def test_additional_vases_do_not_change_the_split_of_other_vases() -> None:
    names = [f"vase-{number:03}" for number in range(210)]
    before, after = (splits.split(names[:count], 0.1, 0.15, 7) for count in (200, 210))
    assert after[:200] == before
    assert 15 <= before.count("eval") <= 45
    assert 8 <= before.count("val") <= 34
    assert splits.split(names[:200], 0.1, 0.15, 8) != before


@pytest.fixture
def views(tmp_path: Path) -> Path:
    folder = tmp_path / "views"
    folder.mkdir()
    for number in range(12):
        picture(number).save(folder / name(number))
    return folder


def test_the_splits_are_written_and_can_be_reused(tmp_path: Path, views: Path) -> None:
    rows = [attributes(number) for number in range(12)]
    made = build(tmp_path, rows, views)
    table = (made["root"] / "splits.csv").read_text().splitlines()
    assert table[0] == "vase,side"
    assert len(table) == 13
    given = tmp_path / "mine.csv"
    given.write_text(
        "vase,side\n" + "".join(f"{IDS[number]},{'eval' if number < 3 else 'train'}\n" for number in range(10))
    )
    (tmp_path / "again").mkdir()
    again = build(tmp_path / "again", rows, views, inputs={"splits": given})
    assert set(again["report"]["vase_ids"]["eval"]) >= set(IDS[:3])
    assert not set(again["report"]["vase_ids"]["eval"]) & set(IDS[3:10])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", r"line 1: the header is `a,b`; write `vase,side`"),
        ("vase,side\nv1,test\n", r"line 2: there is no side 'test'; write one of train, val, eval"),
        ("vase,side\nv1,train\nv1,eval\n", "line 3: v1 is on two sides"),
        ("vase,side\nv1\n", "line 2 has no side"),
        ("vase,side\n", "names no vase"),
        ("", "the header is ``; write `vase,side`"),
    ],
)
def test_invalid_splits_are_reported_in_one_sentence(text: str, says: str, tmp_path: Path, views: Path) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        build(tmp_path, [attributes(0)], views, inputs={"splits": tmp_path / "mine.csv"})


def test_given_splits_that_separate_near_duplicates_are_refused(tmp_path: Path, views: Path) -> None:
    twin = IDS[0].replace("-0000-4000", "-1111-4000")
    ImageOps.mirror(picture(0)).save(views / name(0).replace("-0000-4000", "-1111-4000"))
    given = tmp_path / "mine.csv"
    given.write_text(f"vase,side\n{IDS[0]},train\n{twin},eval\n")
    rows = [*(attributes(number) for number in range(12)), {**attributes(0), "vase_id": twin}]
    with pytest.raises(DataError, match="near-duplicate photographs or occur in one row; assign both to one side"):
        build(tmp_path, rows, views, inputs={"splits": given})


def test_held_out_questions_contain_no_earlier_answers(tmp_path: Path, views: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>Which shape?"},
        {"from": "gpt", "value": "a kylix"},
        {"from": "human", "value": "Where from?"},
        {"from": "gpt", "value": "Vulci"},
    ]
    rows = [{"image": name(number), "vase_id": IDS[number], "conversations": turns} for number in range(12)]
    made = build(tmp_path, rows, views, eval_fraction=0.4)
    assert {len(row["messages"]) for row in made["eval"]} == {2}
    asked = {(row["messages"][0]["content"], row["solution"]) for row in made["eval"]}
    assert asked == {("<image>Which shape?", "a kylix"), ("<image>Where from?", "Vulci")}
    assert {len(row["messages"]) for row in made["sft"]} == {4}


def test_the_same_content_under_another_name_is_reported_as_a_leak(tmp_path: Path, views: Path) -> None:
    made = build(tmp_path, [attributes(number) for number in range(12)], views)
    root = made["root"]
    assert held_out(root, root)
    held, seen = made["eval"][0]["images"][0], made["sft"][0]["images"][0]
    (root / held).unlink()
    shutil.copy(root / seen, root / held)
    with pytest.raises(DataError, match="the same picture as") as caught:
        held_out(root, root)
    assert held in str(caught.value)
    assert seen in str(caught.value)


def test_splits_in_another_unicode_form_name_the_same_vases(tmp_path: Path) -> None:
    folder = tmp_path / "views"
    folder.mkdir()
    towns = ("München", "Köln", "Zürich", "Århus", "Málaga", "Würzburg")
    for number, town in enumerate(towns):
        picture(number).save(folder / f"{town} 1_front.jpg")
    given = tmp_path / "mine.csv"
    held = [unicodedata.normalize("NFD", f"{town} 1") for town in towns[:3]]
    given.write_text("vase,side\n" + "".join(f"{one},eval\n" for one in [*held, "Basel 1"]), encoding="utf-8")
    rows = [{"vase_id": f"{town} 1", "shape": "kylix"} for town in towns]
    made = build(tmp_path, rows, folder, inputs={"splits": given}, eval_fraction=0.0, val_fraction=0.0)
    assert made["report"]["vase_ids"]["eval"] == sorted(f"{town.lower()} 1" for town in towns[:3])
    assert any("1 vases in the splits have no photograph here: basel 1" in note for note in made["report"]["notes"])


def test_splits_of_other_vases_are_an_error(tmp_path: Path, views: Path) -> None:
    given = tmp_path / "mine.csv"
    given.write_text("vase,side\nBasel 1,eval\nBasel 2,train\n")
    with pytest.raises(DataError, match=r"None of the 2 vases in the splits file, such as basel 1, has a photograph"):
        build(tmp_path, [attributes(0)], views, inputs={"splits": given})


@pytest.mark.parametrize(
    ("line", "says"),
    [(b'{"messages": "caf\xe9"}', "not UTF-8"), (b"[" * 100_000, r"not valid JSON \(nested"), (b"{", "not valid JSON")],
    ids=["latin-1", "deep", "cut"],
)
def test_a_damaged_file_of_rows_is_reported_with_its_line(line: bytes, says: str, tmp_path: Path, views: Path) -> None:
    root = build(tmp_path, [attributes(number) for number in range(12)], views)["root"]
    rows = (root / "eval.jsonl").read_bytes()
    number = rows.count(b"\n") + 2
    (root / "eval.jsonl").write_bytes(rows + b"\n" + line)
    with pytest.raises(DataError, match=rf"eval\.jsonl, line {number} is {says}"):
        held_out(root, root)


def test_a_line_separator_in_a_text_does_not_end_a_row(tmp_path: Path, views: Path) -> None:
    rows = [{**attributes(number), "caption": "An Attic\u2028kylix\x85 of about 500."} for number in range(12)]
    root = build(tmp_path, rows, views)["root"]
    (root / "eval.jsonl").write_text((root / "eval.jsonl").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    captions = [row["solution"] for row in held_out(root, root) if row["attribute"] == "caption"]
    assert captions
    assert all(caption.startswith("An Attic") and caption.endswith("500.") for caption in captions)


def test_neighbours_by_clip_are_compared_in_detail(tmp_path: Path) -> None:
    light = np.linspace(0.5, 1.0, 96)[None, :, None]
    first = (np.asarray(picture(9)) * light).astype(np.uint8)
    second = (np.asarray(picture(9)) * light[:, ::-1]).astype(np.uint8)  # with light from the other side
    pictures = [Image.fromarray(first), Image.fromarray(second), *(picture(number) for number in range(4))]
    sketches = [sketch(one) for one in pictures]
    assert registered_pairs(sketches) == []
    near = np.eye(6, dtype=np.float32)
    near[1] = near[0]
    save_file({"features": near * 3}, str(tmp_path / "e.safetensors"), {"names": json.dumps(list("abcdef"))})
    features = clip_features(tmp_path / "e.safetensors", list("abcdef"))
    assert registered_pairs(sketches, features=features) == [(0, 1)]
    near[3] = near[2]  # neighbours that show different vases
    assert registered_pairs(sketches, features=near) == [(0, 1)]
    assert registered_pairs(sketches, {(0, 1)}, near) == []
    assert not clip_features(tmp_path / "e.safetensors", ["z"]).any()  # type: ignore[union-attr]
    (tmp_path / "e.safetensors").write_bytes(b"broken")
    assert clip_features(tmp_path / "e.safetensors", ["a"]) is None
