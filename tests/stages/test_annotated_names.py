"""Annotations match photographs in the usual spellings, and never match the wrong photograph."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.stages.test_build_dataset import IDS, build, name, picture
from vasevqa.errors import DataError

TOWNS = ("München", "Würzburg", "Göttingen", "Köln", "Zürich", "Århus", "Málaga", "Kraków")
NUMBERS = ("06.1021.114", "07.286.47", "17.230.14a", "1978.11.21", "1836,0224.127", "F 2159; b", "A|B", "Inv. 3")


def photographs(folder: Path, names: tuple[str, ...]) -> Path:
    folder.mkdir()
    for number, one in enumerate(names):
        (folder / one).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / one, "JPEG")
    return folder


def table(rows: list[dict[str, str]]) -> str:
    return json.dumps([{**row, "shape": "kylix"} for row in rows], ensure_ascii=False)


def used(made: dict[str, Any]) -> int:
    return len({image for file in ("sft", "val", "eval") for row in made[file] for image in row["images"]})


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("names", "written", "lenient"),
    [
        (tuple(nfd(f"{town}_1.jpg") for town in TOWNS), [f"{town}_1.jpg" for town in TOWNS], "Unicode form or case"),
        (tuple(f"{town}_1.jpg" for town in TOWNS), [nfd(f"{town}_1.JPG") for town in TOWNS], "Unicode form or case"),
        (tuple(f"{town}_1.jpg" for town in TOWNS), [f"{town.upper()}_1" for town in TOWNS], "Unicode form or case"),
        (tuple(f"{number}.jpg" for number in NUMBERS), list(NUMBERS), None),
        (tuple(f"{1000 + number}.jpg" for number in range(8)), [f"{1000 + n}.0" for n in range(8)], "decimal point"),
        (tuple(f"{town}_1.jpg" for town in TOWNS), [rf"C:\Fotos 2024\{town}_1.jpg" for town in TOWNS], None),
        (tuple(f"{town}_1.jpg" for town in TOWNS), [f"https://m.org/a/{town}_1.jpg?w=300" for town in TOWNS], None),
        (tuple(f"a b {n}.jpg" for n in range(8)), [f"file:///srv/a%20b%20{n}.jpg" for n in range(8)], None),
        (tuple(f"{n}/01.jpg" for n in range(8)), [f"photos/{n}/01.jpg" for n in range(8)], None),
    ],
)
def test_equivalent_spellings_of_a_name_match(
    names: tuple[str, ...], written: list[str], lenient: str | None, tmp_path: Path
) -> None:
    folder = photographs(tmp_path / "views", names)
    made = build(tmp_path, table([{"image": one} for one in written]), folder)
    assert used(made) == 8
    assert made["report"]["lenient"] == ({lenient: 8} if lenient else {})
    assert made["report"]["problems"] == {}


@pytest.mark.parametrize("separator", ["|", "; ", ", ", "\n"])
def test_several_images_in_one_cell_are_read(separator: str, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "views", tuple(f"{number}.jpg" for number in range(8)))
    rows = [{"image": f"{2 * pair}.jpg{separator}{2 * pair + 1}.jpg"} for pair in range(4)]
    made = build(tmp_path, table(rows), folder)
    assert used(made) == 8
    assert made["report"]["lenient"] == {"several images in one cell": 4}


def test_ids_of_a_spreadsheet_match_photographs_with_the_name_of_the_vase(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "views", tuple(f"{10023 + number}.jpg" for number in range(8)))
    made = build(tmp_path, table([{"vase_id": f"{10023 + n}.0"} for n in range(8)]), folder)
    assert used(made) == 8
    assert sum(made["report"]["lenient"].values()) == 8


def test_photographs_that_differ_only_in_case_are_not_matched_by_a_guess(tmp_path: Path) -> None:
    names = tuple(f"{number}.jpg" for number in range(8))
    folder = photographs(tmp_path / "views", (*names, "krater.jpg", "KRATER.jpg"))
    rows = [{"image": one} for one in (*names, "Krater.jpg", "krater.jpg")]
    made = build(tmp_path, table(rows), folder, unmatched="own-vase")
    assert made["report"]["problem_list"]["row without an image"][0]["what"] == "Krater.jpg"
    assert used(made) == 9


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 4, texts, strict=False)]


def filler(first: int) -> list[dict[str, Any]]:
    return [{"vase_id": IDS[number], "shape": "kylix"} for number in range(first, 12)]


def best_views(folder: Path) -> Path:
    return photographs(folder / "views", tuple(name(number) for number in range(12)))


@pytest.mark.parametrize(
    ("images", "question", "kind", "what"),
    [
        (
            [0, "gone.jpg"],
            "First: <image>\nSecond: <image>\nWhich is older?",
            "conversation with a missing",
            "gone.jpg",
        ),
        ([0, "gone.jpg"], "Which of the two is older?", "conversation with a missing image", "gone.jpg"),
        ([0, "gone.jpg", "away.jpg"], "<image><image><image>Which?", "conversation with a missing", "and 1 more"),
        ([0, 1], "<image>Which is older?", "too few image tags", "1 tags and 2 images"),
        ([0], "<image><image>Which is older?", "too many image tags", "2 tags and 1 images"),
        (["gone.jpg", "away.jpg"], "<image><image>Which is older?", "row without an image", "away.jpg"),
    ],
)
def test_a_conversation_with_a_missing_picture_is_dropped(
    images: list[int | str], question: str, kind: str, what: str, tmp_path: Path
) -> None:
    paths = [one if isinstance(one, str) else name(one) for one in images]
    rows = [{"images": paths, "messages": turns(question, "The second.")}, *filler(0)]
    made = build(tmp_path, rows, best_views(tmp_path))
    [listed] = [item for found, items in made["report"]["problem_list"].items() if kind in found for item in items]
    assert what in listed["what"]
    assert listed["where"] == "annotations.json, entry 1"
    assert not any("The second." in json.dumps(row) for file in ("sft", "val", "eval", "grpo") for row in made[file])


@pytest.mark.parametrize(
    ("images", "texts", "shown"),
    [
        ([0], ("<image>\nShape?", "kylix", "<image>\nWhen?", "500 BC"), ["<image>\nShape?", "When?"]),
        ([0, 1], ("<image><image>Older?", "B", "<image> <image>Nicer?", "A"), ["<image><image>Older?", "Nicer?"]),
        ([0, 0], ("<image> and <image>: the same?", "yes"), ["<image> and <image>: the same?"]),
        ([0, "back"], ("<image>Shape?", "It is a kylix."), ["<image>Shape?"]),
        ([0, "back"], ("Shape?", "It is a kylix."), ["<image>Shape?"]),
    ],
)
def test_a_picture_with_a_tag_in_each_turn_is_used_once(
    images: list[int | str], texts: tuple[str, ...], shown: list[str], tmp_path: Path
) -> None:
    paths = [name(0, one) if isinstance(one, str) else name(one) for one in images]
    rows = [{"images": paths, "messages": turns(*texts)}, *filler(0)]
    made = build(tmp_path, rows, best_views(tmp_path), eval_fraction=0, val_fraction=0)
    [row] = [
        row for row in made["sft"] if row["messages"][-1]["content"] == texts[-1] and len(row["messages"]) == len(texts)
    ]
    assert [message["content"] for message in row["messages"] if message["role"] == "user"] == shown
    assert len(row["images"]) == "".join(shown).count("<image>")


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("<em>kylix</em>", "kylix"),
        ("Herakles &amp; the lion<br/>B: youths||draped", "Herakles & the lion; B: youths; draped"),
        ("<p>An Attic <a href='x'>kylix</a>.</p>\n<p>Broken.</p>", "An Attic kylix.; Broken."),
        ("H. 12 cm &lt; D. 20 cm", "H. 12 cm < D. 20 cm"),
        ("&amp;uuml;ber", "über"),
        ("H < 5 > 3 & 4", "H < 5 > 3 & 4"),
        ("amphora<!-- TODO -->", "amphora"),
        ("a\x1eb", "a; b"),
        ("x&nbsp;y", "x y"),
        ("<script>alert(1)</script>kylix", "kylix"),
    ],
)
def test_markup_is_removed_from_answers(written: str, clean: str, tmp_path: Path) -> None:
    rows = [{**row, "decoration": written} for row in filler(0)]
    made = build(tmp_path, rows, best_views(tmp_path))
    answers = {row["messages"][-1]["content"] for row in made["sft"] if row["attribute"] == "decoration"}
    assert answers == {clean}
    assert sum(made["report"]["cleaned"].values()) == (0 if clean == written else 12 if "||" not in written else 24)


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|><|im_start|>system",
        "<|image_pad|>",
        "<|vision_start|>",
        "&lt;|im_end|&gt;",
        "[INST]",
        "<tool_call>",
        "<end_of_turn>",
        "<|endoftext|>",
        "&lt;image&gt;",
        "&amp;lt;image&amp;gt;",
    ],
)
def test_a_row_with_a_special_token_is_reported_and_dropped(token: str, tmp_path: Path) -> None:
    rows = [
        {**filler(0)[0], "caption": f"A kylix. {token}"},
        {"images": [name(1)], "messages": turns("<image>What?", f"A kylix {token}.")},
        {"images": [name(2)], "messages": turns(f"<image>What {token}?", "A kylix.")},
        *filler(1),
    ]
    made = build(tmp_path, rows, best_views(tmp_path))
    assert made["report"]["problems"]["chat token"] == 3
    assert {item["where"] for item in made["report"]["problem_list"]["chat token"]} == {
        f"annotations.json, entry {number}" for number in (1, 2, 3)
    }
    text = json.dumps([made[file] for file in ("sft", "val", "eval", "grpo")])
    assert token not in text
    assert {row["attribute"] for row in made["sft"]} == {"shape"}


def rows_for(count: int, strangers: int) -> list[dict[str, Any]]:
    return filler(0)[:count] + [{"vase_id": f"stranger-{number}", "shape": "x"} for number in range(strangers)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (rows_for(5, 0), "Only 5 of 12 photographs have a row in the annotations"),
        (
            rows_for(12, 13),
            r"13 of 25 rows of the annotations are dropped, and the most common problem is 'row without an image' \(",
        ),
        (
            [{**row, "date": ""} for row in rows_for(12, 13)],  # 25 empty cells, for which no row is dropped
            r"13 of 25 rows of the annotations are dropped, and the most common problem is 'row without an image' \(",
        ),
    ],
)
def test_photographs_and_rows_that_rarely_match_are_an_error(
    rows: list[dict[str, Any]], says: str, tmp_path: Path
) -> None:
    folder = best_views(tmp_path)
    with pytest.raises(DataError, match=says + ".*set allow_unmatched to true"):
        build(tmp_path, rows, folder)
    assert not (tmp_path / "out/sft.jsonl").exists()
    assert build(tmp_path, rows, folder, allow_unmatched=True)["sft"]


@pytest.mark.parametrize("rows", [rows_for(6, 0), rows_for(12, 12)])
def test_a_match_of_half_the_photographs_is_enough(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    assert build(tmp_path, rows, best_views(tmp_path))["sft"]


def test_a_file_with_the_same_name_in_the_folder_of_another_vase_does_not_match(tmp_path: Path) -> None:
    names = ("V00/front.jpg", *(f"V{number:02}/view{number}.jpg" for number in range(1, 8)))
    folder = photographs(tmp_path / "views", names)
    rows = [{"image": "scans/V07/front.jpg"}, *({"image": f"scans/{one}"} for one in names[1:])]
    made = build(tmp_path, table(rows), folder, eval_fraction=0.0, name_pattern="folder/view")
    assert made["report"]["problems"] == {"image without a row": 1, "row without an image": 1}
    assert not any("V00" in row["images"][0] for row in made["sft"])
    folder = tmp_path / "again"
    folder.mkdir()
    made = build(folder, table([{"image": f"scans/{one}"} for one in names]), tmp_path / "views")
    assert used(made) == 8


@pytest.mark.parametrize("written", ["https://museum.org/a/9.jpg", "https://[museum]/0.jpg", "/srv/foreign/9.jpg"])
def test_a_row_with_an_unknown_image_address_is_matched_by_its_vase(written: str, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "views", tuple(f"V{number:02}_1.jpg" for number in range(8)))
    made = build(tmp_path, table([{"vase_id": f"V{number:02}", "image": written} for number in range(8)]), folder)
    assert used(made) == 8
    assert "row without an image" not in made["report"]["problems"]


def test_views_that_only_the_annotations_assign_to_a_vase_stay_in_one_split(tmp_path: Path) -> None:
    names = tuple(f"IMG_{number:04}.jpg" for number in range(40))
    folder = photographs(tmp_path / "views", names)
    talk = [{"from": "human", "value": "Which shape?"}, {"from": "gpt", "value": "a kylix"}]
    rows: list[dict[str, Any]] = [
        {"image": one, "vase_id": f"N {number // 2}", "conversations": talk} for number, one in enumerate(names[:20])
    ]
    rows += [{"images": list(names[at : at + 2]), "shape": "kylix"} for at in range(20, 40, 2)]
    made = build(tmp_path, rows, folder, eval_fraction=0.3, unmatched="own-vase")
    side = {row["images"][0]: file for file in ("sft", "val", "eval") for row in made[file]}
    sides = [side[f"images/{one}"] for one in names]
    assert sides[::2] == sides[1::2]
    assert {"sft", "eval"} <= set(sides)
    assert {row["vase_id"] for row in made["sft"] + made["val"] + made["eval"]} >= {f"n {n}" for n in range(10)}
    notes = made["report"]["notes"]
    assert "the vase of 20 photographs was read from annotations, not from their names" in notes
    assert "20 photographs are treated as separate vases: their annotations name no vase" in notes


def test_a_row_for_a_vase_finds_photographs_that_a_later_row_assigns_to_this_vase(tmp_path: Path) -> None:
    names = tuple(f"IMG_{number:04}.jpg" for number in range(8))
    folder = photographs(tmp_path / "views", names)
    rows: list[dict[str, Any]] = [{"vase_id": f"N {number}", "shape": "kylix"} for number in range(8)]
    rows += [{"vase_id": f"N {number}", "image": one, "fabric": "Attic"} for number, one in enumerate(names)]
    made = build(tmp_path, rows, folder)
    asked = [row["attribute"] for file in ("sft", "val", "eval") for row in made[file]]
    assert sorted(asked) == ["fabric"] * 8 + ["shape"] * 8


@pytest.mark.parametrize("answer", ["<p></p>", "<i>unknown</i>", "&mdash;", "<!-- none -->", " \u2013 "])
def test_an_answer_that_contains_only_markup_gives_no_row(answer: str, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "views", tuple(f"V{number:02}_1.jpg" for number in range(8)))
    talk = [
        {"from": "human", "value": "<image>Where from?"},
        {"from": "gpt", "value": answer},
        {"from": "human", "value": "Which shape?"},
        {"from": "gpt", "value": "a kylix"},
    ]
    rows = [{"vase_id": f"V{n:02}", "shape": "kylix", "date": answer, "conversations": talk} for n in range(8)]
    made = build(tmp_path, rows, folder, eval_fraction=0.0)
    assert {row["messages"][-1]["content"] for row in made["sft"]} == {"kylix", "a kylix"}
    assert {row["messages"][0]["content"] for row in made["sft"] if row["attribute"] == "shape"} >= {
        "<image>Which shape?"
    }
    assert made["report"]["problems"] == {"empty answer": 16}
