"""The rows of a training: checked by the rules of ms-swift, measured before the model is loaded, and counted in the
training.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes import FolderOutput, RecordingProgress
from tests.training.conftest import OPTIONS, grpo_params, losses, sft_params, write_rows
from vasevqa.curation.images import Unreadable, open_image
from vasevqa.dataset.row_checks import check_rows
from vasevqa.errors import DataError, GateError
from vasevqa.report.training import left_out
from vasevqa.spec import StageCall
from vasevqa.stages import grpo, sft
from vasevqa.training import trained_rows
from vasevqa.training.swift import lengths, worker
from vasevqa.training.trainer import Training

USER, ANSWER = {"role": "user", "content": "<image>Which shape?"}, {"role": "assistant", "content": "kylix"}
ROW: dict[str, Any] = {"messages": [USER, ANSWER], "images": ["a.jpg"]}


def picture(path: Path, size: tuple[int, int] = (112, 112), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise(size, 60).convert("RGB").save(path, exif=exif)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        picture(tmp_path / f"rows/{name}.jpg")
    return tmp_path / "rows"


def call(tmp_path: Path, qwen: Path, folder: Path, **changes: Any) -> StageCall[Any, Any]:
    kind = grpo_params if (folder / "grpo.jsonl").exists() else sft_params
    options = (grpo.GrpoOptions if kind is grpo_params else sft.SftOptions)(**{**OPTIONS, "device": "cpu"})
    output = FolderOutput(tmp_path / "volume/artifacts/sft/k", volume=tmp_path / "volume")
    return StageCall(kind(**changes), options, {"model": qwen, "dataset": folder}, output, RecordingProgress())


REFUSED: dict[str, tuple[list[Any], str]] = {
    "a list": ([[]], "line 1 is not a JSON object"),
    "bytes": ([{**ROW, "images": [{"bytes": "iVBORw0KGgo="}]}], "holds a picture as bytes"),
    "a data URI": ([{**ROW, "images": ["data:image/png;base64,iVBORw0KGgo="]}], "is not a path"),
    "an address": ([{**ROW, "images": ["https://example.org/a.jpg"]}], "is not a path"),
    "image, not there": ([{"messages": [USER, ANSWER], "image": "c.jpg"}], r"names the image c\.jpg"),
    "image after images": (
        [ROW, {"messages": [USER, ANSWER], "image": "a.jpg"}],
        "line 2 .* both `images` and `image`",
    ),
    "a tag too many": (
        [{**ROW, "messages": [{**USER, "content": "<image><image>?"}, ANSWER]}],
        "has 2 <image> tags and 1",
    ),
    "a tag too few": ([{**ROW, "images": ["a.jpg", "b.jpg"]}], "has 1 <image> tags and 2 pictures"),
    "a tag without pictures": ([{"messages": [USER, ANSWER]}], "has 1 <image> tags and 0 pictures"),
    "an empty answer": ([{**ROW, "messages": [USER, {**ANSWER, "content": " "}]}], "an empty answer"),
    "no answer": ([{**ROW, "messages": [USER]}], "ends without an answer"),
    "an answer before the question": ([{**ROW, "messages": [ANSWER, USER]}], "ends without an answer"),
    "an unknown role": ([{**ROW, "messages": [{**USER, "role": "visitor"}, ANSWER]}], "the role 'visitor'"),
    "no content": ([{**ROW, "messages": [{"role": "user", "content": None}, ANSWER]}], "without content"),
    "system in the middle": (
        [{**ROW, "messages": [USER, {"role": "system", "content": "x"}, ANSWER]}],
        "a system turn after",
    ),
    "two forms": ([ROW, {"query": "<image>?", "response": "kylix", "images": ["a.jpg"]}], "line 2 holds query"),
    "a video part": (
        [{"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}, ANSWER]}],
        "a part of the type 'video'",
    ),
    "pictures twice": (
        [{**ROW, "messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}]}, ANSWER]}],
        "both in its messages and in a column",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_row_that_ms_swift_would_drop_is_refused_with_its_line(what: str, folder: Path) -> None:
    rows, message = REFUSED[what]
    write_rows(folder / "sft.jsonl", rows)
    with pytest.raises(DataError, match=message) as refused:
        check_rows(folder / "sft.jsonl", folder)
    assert f"line {len(rows)} " in str(refused.value)


ACCEPTED: dict[str, Any] = {
    "image": {"messages": [USER, ANSWER], "image": "a.jpg"},
    "a path in an object": {**ROW, "images": [{"bytes": None, "path": "a.jpg"}]},
    "no tags": {**ROW, "messages": [{**USER, "content": "Which?"}, ANSWER]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}]}, ANSWER]},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "x"}],
        "images": "a.jpg",
    },
    "messages as JSON": {**ROW, "messages": json.dumps([USER, ANSWER])},
    "query": {"query": "<image>?", "response": "kylix", "images": ["a.jpg"]},
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_row_that_ms_swift_reads_is_accepted(what: str, folder: Path) -> None:
    (folder / "sft.jsonl").write_text(f"\ufeff{json.dumps(ACCEPTED[what])}\n\n{json.dumps(ACCEPTED[what])}\n", "utf-8")
    checked = check_rows(folder / "sft.jsonl", folder)
    assert (checked.lines, checked.images) == ([1, 3], ["a.jpg"])


def test_a_picture_in_the_working_folder_does_not_replace_another_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(folder / "sft.jsonl", [ROW])
    picture(folder.parent / "elsewhere/a.jpg")
    monkeypatch.chdir(folder.parent / "elsewhere")
    with pytest.raises(DataError, match="from the working folder"):
        check_rows(folder / "sft.jsonl", folder)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_picture_is_the_size_in_training(orientation: int, tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (301, 223), orientation)
    assert lengths.picture_size(tmp_path / "a.jpg") == open_image(tmp_path / "a.jpg").size
    assert lengths.picture_size(tmp_path / "a.jpg") == ((301, 223) if orientation < 5 else (223, 301))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_truncated_picture_is_detected(mode: str, tmp_path: Path) -> None:
    Image.effect_noise((640, 480), 60).convert(mode).save(tmp_path / "a.jpg")
    assert lengths.picture_size(tmp_path / "a.jpg") == (640, 480)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2000])
    with pytest.raises(Unreadable, match="truncated"):
        lengths.picture_size(tmp_path / "a.jpg")


def various(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write rows with or without a system turn, with one or several questions, and with up to three pictures of
    different sizes.
    """
    draw, rows = random.Random(5), []
    sizes = [(112, 112), (400, 90), (31, 500), (8, 8), (1200, 900), (333, 222)]
    for number, size in enumerate(sizes):
        picture(folder / f"{number}.jpg", size, 1 + number)
    Image.new("I;16", (90, 140), 40000).save(folder / "6.png")
    names = [f"{number}.jpg" for number in range(6)] + ["6.png"]
    for number in range(count):
        images = draw.choices(names, k=number % 4)
        turns = [
            {"role": "user", "content": "<image>" * len(images) + f"Which shape? {'ἀμφορεύς ' * draw.randint(0, 60)}"}
        ]
        turns.append({"role": "assistant", "content": "A kylix. " * draw.randint(1, 40)})
        for _ in range(draw.randint(0, 3)):
            turns += [{"role": "user", "content": "And the date?"}, {"role": "assistant", "content": "450 BC"}]
        if number % 3 == 0:
            turns.insert(0, {"role": "system", "content": "You know vases."})
        rows.append({"messages": turns, "images": images})
    return rows


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
def test_lengths_equal_the_lengths_of_ms_swift(
    kind: str, tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swift.dataset import load_dataset
    from swift.model import get_processor
    from swift.template import get_template

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_rows(tmp_path / "sft.jsonl", various(tmp_path, 200 if kind == "qwen2_5_vl" else 30))
    rows, _ = load_dataset([str(tmp_path / "sft.jsonl")], load_from_cache_file=False)
    template = get_template(get_processor(str(qwen), model_type="qwen2_5_vl"), template_type=kind)
    template.set_mode("train")
    names = check_rows(tmp_path / "sft.jsonl", tmp_path).images
    with lengths.without_pixels(template, lengths._Pictures(tmp_path, names)):
        counted = [lengths._length(row, template, "sft") for row in rows]
    template._load_image = lambda image, load: open_image(tmp_path / image["path"])
    encoded = [len(template.encode(row)["input_ids"]) for row in rows]
    assert [problem for _, problem in counted if problem] == []
    assert [length for length, _ in counted] == encoded
    assert max(encoded) > 10 * min(encoded)


def test_a_few_bad_rows_are_left_out_and_the_training_reads_the_others(
    tmp_path: Path, qwen: Path, folder: Path
) -> None:
    rows = [{**ROW, "images": [f"{number:02}.jpg"]} for number in range(40)]
    for row in rows:
        picture(folder / row["images"][0])
    (folder / "07.jpg").write_bytes((folder / "07.jpg").read_bytes()[:-1500])
    rows[30] = {**ROW, "messages": [USER, {"role": "assistant", "content": "a long description " * 300}]}
    write_rows(folder / "sft.jsonl", rows)
    write_rows(folder / "val.jsonl", [*rows[8:27], rows[30]])
    given = call(tmp_path, qwen, folder, max_steps=10)
    sft.run(given)
    root = given.output.root
    summary = json.loads((root / "training_summary.json").read_text())
    assert summary["rows"] == {"train": 38, "validation": 19}
    assert summary["dropped"] == {"train": {"too_long": 1, "broken": 1}, "validation": {"too_long": 1}}
    assert sorted(losses(root)) == list(range(1, 11))
    with (root / "dropped_rows.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [(row["file"], row["line"]) for row in table] == [
        ("sft.jsonl", "8"),
        ("sft.jsonl", "31"),
        ("val.jsonl", "20"),
    ]
    assert "07.jpg" in table[0]["why"]
    assert int(table[1]["length"]) > 512
    kept = (root / "training/rows/sft.jsonl").read_text().splitlines()
    assert kept == [
        line for number, line in enumerate((folder / "sft.jsonl").read_text().splitlines()) if number not in (7, 30)
    ]
    assert "38 rows (1 too long, 1 broken left out)" in given.progress.summaries[0][0]  # type: ignore[attr-defined]
    assert [(part.file, part.count) for part in left_out({"sft": root})] == [("sft.jsonl", 2), ("val.jsonl", 1)]


def test_many_long_rows_stop_the_training(
    tmp_path: Path, qwen: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {**ROW, "messages": [USER, {"role": "assistant", "content": "a long description " * 300}]}
    write_rows(folder / "sft.jsonl", [ROW, long] * 8)
    with pytest.raises(DataError, match=r"8 of 16 rows \(8 too long\) .* line 2 .* raise max_length \(512"):
        sft.run(call(tmp_path, qwen, folder))
    # Counted rows are not counted again, even in another folder or with another max_length.
    monkeypatch.setattr(trained_rows, "_count", None)
    with pytest.raises(DataError, match=r"raise max_length \(600"):
        sft.run(call(tmp_path, qwen, folder, max_length=600))
    assert Training(call(tmp_path, qwen, folder, max_length=4096)).check() == {"train": 16}


def test_one_long_row_stops_a_training_that_must_not_drop_rows(tmp_path: Path, folder: Path) -> None:
    write_rows(folder / "sft.jsonl", [ROW] * 40)
    checked = check_rows(folder / "sft.jsonl", folder)
    measured = [(40, "")] * 39 + [(513, "")]
    assert trained_rows.trainable(checked, measured, sft_params(), tmp_path).count == 39
    assert trained_rows.trainable(checked, [(512, "")] * 40, sft_params(), tmp_path).path == folder / "sft.jsonl"
    with pytest.raises(DataError, match="line 40"):
        trained_rows.trainable(checked, measured, sft_params(on_long_rows="error"), tmp_path)
    cut = sft_params(extra_args={"truncation_strategy": "right"})
    assert trained_rows.trainable(checked, measured, cut, tmp_path).left_out == ()


def test_prompts_for_grpo_are_measured_without_an_answer(tmp_path: Path, qwen: Path, folder: Path) -> None:
    prompt = {"messages": [USER], "images": ["a.jpg"]}
    answers = ["kylix", -450, {"role": "assistant", "content": "kylix"}, ["kylix"]] * 10
    rows = [{**prompt, "solution": answer} for answer in answers]
    rows[5]["messages"] = [USER, {"role": "assistant", "content": "dropped by ms-swift " * 300}]
    rows[6]["messages"] = [{**USER, "content": "<image>" + "why " * 900}]
    write_rows(folder / "grpo.jsonl", rows)
    training = Training(call(tmp_path, qwen, folder))
    assert training.check() == {"train": 39}
    assert [one.line for one in training.rows["train"].left_out] == [7]


def test_a_training_that_reads_other_rows_than_counted_is_stopped() -> None:
    from swift.dataset import LazyLLMDataset

    rows = LazyLLMDataset(list(range(8)), lambda row: row, strict=True)  # type: ignore[arg-type]
    worker.check_counts(rows, None, (8, None))
    with pytest.raises(GateError, match="reads 8 training rows, but 9 were counted"):
        worker.check_counts(rows, None, (9, None))
    with pytest.raises(GateError, match="reads 0 validation rows, but 2"):
        worker.check_counts(rows, None, (8, 2))
    with pytest.raises(GateError, match="would replace training rows"):
        worker.check_counts(LazyLLMDataset(list(range(8)), lambda row: row), None, (8, None))  # type: ignore[arg-type]
