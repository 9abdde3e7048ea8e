"""build-dataset: all input formats, no leak between splits, and a reason for each omitted row or image."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.curation.hashes import near_duplicates
from vasevqa.dataset import splits
from vasevqa.errors import ConfigError, DataError
from vasevqa.runtime.command import command
from vasevqa.spec import StageCall
from vasevqa.stages import build_dataset

IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(12)]
SHAPES = ("lekythos", "amphora", "kylix")


def picture(seed: int, size: int = 96) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def name(number: int, view: str = "front") -> str:
    return f"{IDS[number]}_{view}_ac001001.jpg"


@pytest.fixture
def views(tmp_path: Path) -> Path:
    """The output of select-views: one view for each of twelve vases, from two museums."""
    for number in range(12):
        path = tmp_path / "views/best_views" / ("london" if number % 2 else "münchen") / name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return tmp_path / "views"


def attributes(number: int) -> dict[str, Any]:
    shape = SHAPES[number % 3]
    return {
        "vase_id": IDS[number],
        "fabric": "Attic",
        "shape": shape,
        "date": "525-475 BCE",
        "caption": f"An Attic {shape}.",
    }


def build(
    folder: Path,
    annotations: Any,
    pictures: Path,
    name: str = "annotations.json",
    inputs: dict[str, Path] | None = None,
    **params: Any,
) -> dict[str, Any]:
    path = folder / name
    path.write_text(annotations if isinstance(annotations, str) else json.dumps(annotations), encoding="utf-8")
    output, progress = FolderOutput(folder / "out"), RecordingProgress()
    given = {"images": pictures, "annotations": path, **(inputs or {})}
    build_dataset.run(
        StageCall(build_dataset.BuildParams(**params), build_dataset.BuildOptions(), given, output, progress)
    )
    found: dict[str, Any] = {
        file: [json.loads(line) for line in (output.root / f"{file}.jsonl").read_text().splitlines()]
        for file in ("sft", "val", "grpo", "eval")
    }
    found["report"] = json.loads((output.root / "dataset_report.json").read_text())
    found["root"] = output.root
    return found


def test_rows_for_sft_grpo_and_evaluation_are_written(tmp_path: Path, views: Path) -> None:
    found = build(tmp_path, [attributes(number) for number in range(12)], views)
    assert found["report"]["vases"] == {"sft": 10, "val": 1, "eval": 1}
    assert (len(found["sft"]), len(found["val"]), len(found["eval"]), len(found["grpo"])) == (40, 4, 4, 30)
    row = next(row for row in found["sft"] if row["attribute"] == "shape")
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"].startswith("<image>")
    assert row["messages"][1]["content"] in SHAPES
    for file in ("sft", "val", "grpo", "eval"):
        for row in found[file]:
            assert (found["root"] / row["images"][0]).is_file()
    asked = found["grpo"][0]
    assert [message["role"] for message in asked["messages"]] == ["user"]
    assert asked["solution"]
    assert {row["attribute"] for row in found["grpo"]} == {"fabric", "shape", "date"}
    assert {row["vase_id"] for row in found["eval"]} == set(found["report"]["vase_ids"]["eval"])
    assert found["report"]["image_root"] == "."
    assert found["report"]["problems"] == {}


def test_paths_are_relative_to_the_volume_under_a_launcher(tmp_path: Path, views: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([attributes(number) for number in range(12)]))
    # Files above an input are not in the artifact's key, and are not read.
    names = [path.relative_to(views / "best_views").as_posix() for path in views.rglob("*.jpg")]
    seen = [{"name": name, "view": "front", "similarity": 0} for name in names]
    told = {"vase": "one", "best": "", "view": "", "similarity": 0, "reason": "", "views": seen}
    (views.parent / "best_views_report.json").write_text(json.dumps({"named_by": ["UUID_view_ac"], "vases": [told]}))
    volume = tmp_path / "volume"
    output = FolderOutput(volume / "artifacts/build-dataset/k", standalone=False, volume=volume)
    build_dataset.run(
        StageCall(
            build_dataset.BuildParams(),
            build_dataset.BuildOptions(),
            {"images": views, "annotations": tmp_path / "a.json"},
            output,
            RecordingProgress(),
        ),
    )
    row = json.loads((output.root / "sft.jsonl").read_text().splitlines()[0])
    assert row["images"][0].startswith("artifacts/build-dataset/k/images/")
    assert (volume / row["images"][0]).is_file()
    assert row["vase_id"] in IDS
    assert json.loads((output.root / "dataset_report.json").read_text())["image_root"] == "../../.."


def as_table(rows: list[dict[str, Any]], delimiter: str) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return "\ufeff" + stream.getvalue()


FORMATS: dict[str, Any] = {
    "list.json": json.dumps([attributes(number) for number in range(12)]),
    "object.json": json.dumps(
        {
            IDS[number]: {key: value for key, value in attributes(number).items() if key != "vase_id"}
            for number in range(12)
        }
    ),
    "lines.jsonl": "\n".join(json.dumps(attributes(number)) for number in range(12)),
    "table.csv": as_table([attributes(number) for number in range(12)], ","),
    "semicolons.csv": as_table([attributes(number) for number in range(12)], ";"),
    "table.tsv": as_table([attributes(number) for number in range(12)], "\t"),
}


@pytest.mark.parametrize("file", FORMATS)
def test_attributes_in_each_format_give_the_same_rows(file: str, tmp_path: Path, views: Path) -> None:
    (tmp_path / "one").mkdir()
    expected = build(tmp_path / "one", FORMATS["list.json"], views)
    found = build(tmp_path, FORMATS[file], views, file)
    assert [found[name] for name in ("sft", "val", "grpo", "eval")] == [
        expected[name] for name in ("sft", "val", "grpo", "eval")
    ]


def original(number: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": f"A {SHAPES[number % 3]}."}]
    return {
        "images": [f"/data/photos/{name(number)}", f"/data/photos/{name(number, 'back')}"],
        "caption": f"Vase {number}.",
        "conversations": turns,
    }


def test_the_original_format_and_sharegpt_are_read(tmp_path: Path, views: Path) -> None:
    found = build(tmp_path, [original(number) for number in range(12)], views)
    told = [row for row in found["sft"] if row["attribute"] == ""]
    assert len(told) == 10
    for row in told:
        assert row["messages"][0]["content"] == "<image>What is this?"
        assert len(row["images"]) == 1
    assert {row["attribute"] for row in found["sft"]} == {"", "caption"}
    assert found["grpo"][0]["solution"].startswith("A ")


def test_turns_with_several_images_are_read_and_wrong_tags_are_reported(tmp_path: Path, views: Path) -> None:
    def turns(*values: str) -> list[dict[str, str]]:
        return [
            {"role": role, "content": value} for role, value in zip(("user", "assistant") * 3, values, strict=False)
        ]

    rows = [
        {"images": [name(number)], "messages": turns("<image>One?", "Yes.", "Sure?", "Yes, sure.")}
        for number in range(6)
    ]
    rows.append({"images": [name(6), name(7)], "messages": turns("Compare <image> and <image>.", "Alike.")})
    rows.append({"images": [name(8)], "messages": turns("<image><image>Which?", "This.")})
    rows.append({"images": [name(9)], "messages": turns("Anything?", "")})
    rows.append({"images": [name(10)], "messages": [{"role": "assistant", "content": "I begin."}]})
    rows.append(
        {"images": [name(11)], "messages": [{"role": "wizard", "content": "x"}, {"role": "assistant", "content": "y"}]}
    )
    found = build(tmp_path, rows, views, eval_fraction=0, val_fraction=0)
    both = next(row for row in found["sft"] if len(row["images"]) == 2)
    assert both["messages"][0]["content"].count("<image>") == 2
    assert next(row for row in found["sft"] if len(row["messages"]) == 4)["messages"][2]["content"] == "Sure?"
    assert all(row["solution"] == "Alike." for row in found["grpo"]), (
        "a conversation with several turns must not be a GRPO row"
    )
    problems = found["report"]["problems"]
    assert problems["too many image tags"] == 1
    assert problems["empty answer"] == 1
    assert problems["broken row"] == 2
    assert problems["empty row"] == 3


def test_omitted_rows_and_images_are_counted_and_listed(tmp_path: Path, views: Path) -> None:
    (views / "best_views/london/broken.jpg").write_bytes(b"not a picture")
    lines = [json.dumps(attributes(number)) for number in range(10)]
    lines.insert(3, '{"vase_id": "x", "shape":')
    lines.append(json.dumps({**attributes(0), "vase_id": "nowhere"}))
    lines.append(json.dumps({"images": ["/elsewhere/unknown.jpg"], "caption": "Outside."}))
    lines.append(json.dumps({"images": ["../../up.jpg"], "caption": "Up."}))
    lines.append(json.dumps({"shape": "kylix"}))
    lines.append(json.dumps({"vase_id": IDS[1], "technique": "  "}))
    lines.append("[1, 2]")
    found = build(tmp_path, "\n".join(lines), views, "rows.jsonl")
    report = found["report"]
    assert report["problems"] == {
        "broken JSON": 1,
        "broken row": 1,
        "empty answer": 1,
        "empty row": 1,
        "image without a row": 2,
        "left the volume": 2,
        "row without an image": 2,
    }
    assert report["problem_list"]["broken JSON"][0]["where"] == "rows.jsonl, line 4"
    assert {item["what"] for item in report["problem_list"]["left the volume"]} == {
        "/elsewhere/unknown.jpg",
        "../../up.jpg",
    }
    assert [item["name"] for item in report["quarantined"]] == ["london/broken.jpg"]


@pytest.mark.parametrize(
    ("text", "file", "said"),
    [
        ('[{"vase_id": ', "a.json", "broken JSON.*line 1"),
        ("[]", "a.json", "0 annotations"),
        ('"text"', "a.json", "neither a list"),
        ("name,colour\nx,red\n", "a.csv", "names no column"),
        (json.dumps([{"vase_id": "nobody", "shape": "kylix"}]), "a.json", "row without an image"),
    ],
)
def test_an_empty_dataset_is_an_error_with_the_reason(
    text: str, file: str, said: str, tmp_path: Path, views: Path
) -> None:
    with pytest.raises(DataError, match=said):
        build(tmp_path, text, views, file)
    assert not (tmp_path / "out/sft.jsonl").exists()


def test_annotations_in_other_encodings_are_read(tmp_path: Path, views: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "latin.json").write_bytes('[{"vase_id": "é"}]'.encode("latin-1"))
    (folder / "good.json").write_text(json.dumps([attributes(number) for number in range(12)]))
    output = FolderOutput(tmp_path / "out")
    build_dataset.run(
        StageCall(
            build_dataset.BuildParams(),
            build_dataset.BuildOptions(),
            {"images": views, "annotations": folder},
            output,
            RecordingProgress(),
        ),
    )
    report = json.loads((output.root / "dataset_report.json").read_text())
    assert report["problem_list"]["unreadable file"][0]["where"] == "latin.json"


def test_near_duplicates_stay_in_one_split(tmp_path: Path, views: Path) -> None:
    for number in range(6):  # smaller copies of the photographs with the names of other vases
        copy = views / "best_views/copies" / name(number).replace("-0000-4000", "-1111-4000")
        copy.parent.mkdir(exist_ok=True)
        picture(number).resize((80, 80)).save(copy, quality=60)
    rows = [attributes(number) for number in range(12)] + [
        {**attributes(number), "vase_id": IDS[number].replace("-0000-4000", "-1111-4000")} for number in range(6)
    ]
    for seed in range(5):
        (tmp_path / str(seed)).mkdir()
        found = build(tmp_path / str(seed), rows, views, seed=seed, eval_fraction=0.3)
        assert found["report"]["near_duplicate_pairs"] == 6
        sides = {vase: side for side in ("sft", "val", "eval") for vase in found["report"]["vase_ids"][side]}
        assert len(sides) == 18
        for number in range(6):
            assert sides[IDS[number]] == sides[IDS[number].replace("-0000-4000", "-1111-4000")]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 999), min_size=1, max_size=40), st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, 5))
def test_splits_keep_training_first(vases: set[int], val: float, evaluation: float, seed: int) -> None:
    names = [str(vase) for vase in sorted(vases)]
    sides = splits.split(names, val, evaluation, seed)
    assert "train" in sides
    assert sides == splits.split(names, val, evaluation, seed)
    if len(names) >= 3 and val and evaluation:
        assert {"train", "val", "eval"} == set(sides)


def test_pairs_equal_the_result_of_comparing_all_images() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    near = base[:20].copy()
    for row in near:
        for bit in rng.choice(256, rng.integers(0, 12), replace=False):
            row[bit // 8] ^= 1 << (bit % 8)
    hashes = np.concatenate([base, near])
    expected = [
        (one, other)
        for one in range(60)
        for other in range(one + 1, 60)
        if int(np.bitwise_count(hashes[one] ^ hashes[other]).sum()) <= 8
    ]
    assert near_duplicates(hashes, 8) == expected
    assert len(near_duplicates(np.zeros((50_000, 32), dtype=np.uint8), 8)) == 49_999


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_vases(tmp_path: Path, views: Path) -> None:
    rows = [attributes(number) for number in range(12)]
    written = []
    for number, seed in enumerate((1, 1, 2)):
        (tmp_path / str(number)).mkdir()
        root = build(tmp_path / str(number), rows, views, seed=seed)["root"]
        written.append({file.name: file.read_bytes() for file in root.glob("*.jsonl")})
    assert written[0] == written[1] != written[2]


def test_the_users_questions_and_limits_are_used(tmp_path: Path, views: Path) -> None:
    questions = tmp_path / "questions.yaml"
    questions.write_text('system: You know vases.\nshape: ["Form?"]\nfabric: ["Ware?"]\n')
    rows = [attributes(number) for number in range(12)]
    found = build(tmp_path, rows, views, inputs={"questions": questions}, max_questions=1)
    assert {row["messages"][1]["content"] for row in found["sft"]} <= {"<image>Form?", "<image>Ware?"}
    assert {row["messages"][0]["content"] for row in found["grpo"]} == {"You know vases."}
    assert len(found["sft"]) == 10
    for text, said in (
        ("shapes: [x]", "Did you mean 'shape'"),
        ("shape: x", "needs a list"),
        ("shape: [<image>x]", "remove <image>"),
        ("{", "not valid YAML"),
        ("system: x", "holds no question"),
    ):
        questions.write_text(text)
        with pytest.raises(ConfigError, match=said):
            build(tmp_path, rows, views, inputs={"questions": questions})


def test_all_accepted_views_can_be_used(tmp_path: Path, views: Path) -> None:
    accepted = tmp_path / "filtered/accepted"
    accepted.mkdir(parents=True)
    for number in range(6):
        for view, seed in (("front", number), ("back", 100 + number)):
            picture(seed).save(accepted / name(number, view))
    rows = [attributes(number) for number in range(6)]
    found = build(tmp_path, rows, views, inputs={"accepted": tmp_path / "filtered"}, views="all")
    assert found["report"]["images"] == 12
    sides = {side: {row["vase_id"] for row in found[side]} for side in ("sft", "val", "eval")}
    assert not sides["sft"] & sides["eval"]
    assert not sides["sft"] & sides["val"]
    with pytest.raises(ConfigError, match="needs --accepted-dir"):
        build(tmp_path, rows, views, views="all")


def test_the_command(tmp_path: Path, views: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([attributes(0), attributes(1)]))
    words = ["--input-dir", str(views), "--annotations", str(tmp_path / "a.json"), "--output_dir", str(tmp_path / "o")]
    words.append("--allow-unmatched")
    result = CliRunner().invoke(command(build_dataset.STAGE), words)
    assert result.exit_code == 3, result.output
    assert "train, val, eval needs at least 3 vases with annotations, and there are 2" in result.output
    assert "; the most common problem is 'image without a row' (10 times, first " in result.output
    assert CliRunner().invoke(command(build_dataset.STAGE), [*words, "--val-fraction", "0"]).exit_code == 0
    (tmp_path / "a.json").write_text(json.dumps([attributes(number) for number in range(3)]))
    result = CliRunner().invoke(command(build_dataset.STAGE), words)
    assert result.exit_code == 0, result.output
    assert (
        CliRunner()
        .invoke(command(build_dataset.STAGE), [*words, "--image-root", str(tmp_path / "elsewhere")])
        .exit_code
        == 2
    )
