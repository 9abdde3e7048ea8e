"""Photographs with names unlike a museum's export: all stages find the same vases, or stop with an error."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from tests.stages.test_annotated_names import photographs
from tests.stages.test_build_dataset import build
from tests.stages.test_classifier_stages import SMALL
from vasevqa import files
from vasevqa.dataset import assignment
from vasevqa.errors import ConfigError, DataError
from vasevqa.runtime.command import command
from vasevqa.runtime.flags import argv
from vasevqa.spec import StageCall
from vasevqa.stages import build_dataset, select_views, train_classifier

IDS = tuple(f"{number}.102{number}.114" for number in range(8))
ODD = ("1836,0224.127", 'F "2159"', "E 44\nB", "zürich 3", "a;b\tc", "x\r1", "'=1+1")


def filtered(folder: Path, names: dict[str, float], rejected: dict[str, float] | None = None) -> Path:
    """The output of clip-filter: accepted photographs with their similarities, and the report."""
    for number, name in enumerate(names):
        pictures.save(folder / "accepted" / name, number)
    rows = [(name, value, True) for name, value in names.items()]
    rows += [(name, value, False) for name, value in (rejected or {}).items()]
    images = [
        {"name": name, "accepted": accepted, "score": value, "high_similarity": value} for name, value, accepted in rows
    ]
    (folder / "filtering_report.json").write_text(json.dumps({"schema": 1, "images": images}), encoding="utf-8")
    return folder


def select(images: Path, out: Path, **params: Any) -> tuple[dict[str, Any], RecordingProgress]:
    progress = RecordingProgress()
    call = StageCall(
        select_views.Params(precision="fp32", **params),
        select_views.Options(device="cpu"),
        {"images": images},
        FolderOutput(out),
        progress,
    )
    select_views.run(call)
    report: dict[str, Any] = json.loads((out / "best_views_report.json").read_text())
    return report, progress


def rows() -> list[dict[str, str]]:
    return [{"vase_id": one, "shape": "kylix"} for one in IDS]


def test_folders_per_vase_are_used_from_views_to_rows(tmp_path: Path) -> None:
    names = {f"{one}/0{view}.jpg": view / 10 for one in IDS for view in (1, 2, 3)}
    report, progress = select(filtered(tmp_path / "filtered", names), tmp_path / "views")
    assert {row["vase"]: row["best"] for row in report["vases"]} == {one: f"{one}/03.jpg" for one in IDS}
    assert report["named_by"] == ["folder/view"]
    assert "vases told apart by folder/view: 24 photographs of 8 vases" in progress.notes
    best = build(tmp_path, rows(), tmp_path / "views")
    every = build(tmp_path, rows(), tmp_path / "views", inputs={"accepted": tmp_path / "filtered"}, views="all")
    for made, count in ((best, 8), (every, 24)):
        sides = {side: {row["vase_id"] for row in made[side]} for side in ("sft", "val", "eval")}
        assert set.union(*sides.values()) == set(IDS)
        assert sum(map(len, sides.values())) == 8  # no vase is in two splits
        assert len({image for side in sides for row in made[side] for image in row["images"]}) == count


def test_rejected_photographs_do_not_change_how_other_names_are_read(tmp_path: Path) -> None:
    """Each numbered vase has only one view left, with a high number. Alone, this number would look like an inventory
    number.
    """
    kept = {f"F {number}_{7 + number}.jpg": 0.5 for number in range(1, 9)}
    lost = {f"F {number}_{view}.jpg": 0.1 for number in range(1, 10) for view in range(1, 7 + number)}
    report, _ = select(filtered(tmp_path / "filtered", kept, lost), tmp_path / "views")
    assert [row["vase"] for row in report["vases"]] == [f"f {number}" for number in range(1, 9)]
    assert [row["vase"] for row in report["lost"]] == ["f 9"]
    made = build(tmp_path, [{"vase_id": f"F {n}", "shape": "kylix"} for n in range(1, 9)], tmp_path / "views")
    assert made["report"]["problems"] == {}
    assert sum(made["report"]["vases"].values()) == 8


def test_single_photograph_vases_are_the_same_in_select_views_and_build_dataset(tmp_path: Path) -> None:
    names = {f"IMG_{number:04}.jpg": 0.5 for number in range(8)}
    images = filtered(tmp_path / "filtered", names)
    with pytest.raises(DataError, match=r"IMG_0000.jpg, IMG_0001.jpg, IMG_0002.jpg\).*camera.*unmatched: own-vase"):
        select(images, tmp_path / "none")
    report, progress = select(images, tmp_path / "views", unmatched="own-vase")
    assert (len(report["vases"]), len(report["unmatched"])) == (8, 8)
    assert progress.summaries[-1][1]["unmatched"] == 8
    made = build(tmp_path, [{"image": name, "shape": "kylix"} for name in names], tmp_path / "views")
    assert sum(made["report"]["vases"].values()) == 8


def test_photographs_without_a_known_vase_stop_build_dataset(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "views", tuple(f"IMG_{number:04}.jpg" for number in range(10)))
    named = [{"image": f"IMG_{number:04}.jpg", "shape": "kylix"} for number in range(8)]
    with pytest.raises(DataError, match=r"2 of 10 names .*\(such as IMG_0008.jpg, IMG_0009.jpg\)"):
        build(tmp_path, named, folder)
    made = build(tmp_path, named, folder, unmatched="own-vase")
    assert made["report"]["problems"] == {"image without a row": 2}


def test_the_users_pattern_is_used_in_both_stages(tmp_path: Path) -> None:
    names = {f"{one}/front/a.jpg": 0.5 for one in IDS} | {f"{one}/back/b.jpg": 0.6 for one in IDS}
    pattern = r"(?P<vase>[\d.]+)/(?P<view>\w+)/\w"
    report, _ = select(filtered(tmp_path / "filtered", names), tmp_path / "views", name_pattern=pattern)
    assert {row["view"] for row in report["vases"]} == {"back"}
    for given in ({}, {"name_pattern": [pattern]}):
        assert sum(build(tmp_path, rows(), tmp_path / "views", **given)["report"]["vases"].values()) == 8
    with pytest.raises(ConfigError, match="matches none of 8 names"):
        build(tmp_path, rows(), tmp_path / "views", name_pattern="(?P<vase>x)(?P<view>y)")


def test_the_command_line_and_a_recipe_accept_one_or_several_patterns(tmp_path: Path) -> None:
    several = ["folder/view", "UUID_view_ac"]
    params = select_views.Params(name_pattern=several)
    words = argv(select_views.STAGE, params, select_views.Options(), {}, "out")
    assert [word for word in words if "pattern" in word] == [f"--name-pattern={one}" for one in several]
    assert select_views.Params(name_pattern=["id_view"]) == select_views.Params(name_pattern="id_view")
    one = argv(select_views.STAGE, select_views.Params(name_pattern="id_view"), select_views.Options(), {}, "out")
    assert "--name-pattern=id_view" in one
    given = ["--input-dir", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--name-pattern", "id_view"]
    pictures.save(tmp_path / "kylix.jpg", 1)
    result = CliRunner().invoke(command(select_views.STAGE), [*given, "--name_pattern", "folder/view"])
    assert result.exit_code == 2
    assert "id_view matches none of 1 names (kylix.jpg)" in result.output


@pytest.mark.parametrize("stage", [select_views.STAGE, build_dataset.STAGE, train_classifier.STAGE])
def test_a_plan_reports_a_broken_pattern(stage: Any) -> None:
    with pytest.raises(ConfigError, match="regular expression"):
        stage.check({}, stage.params(name_pattern=["folder/view", "("]))
    stage.check({}, stage.params(name_pattern="folder/view"))


def test_ids_are_unchanged_in_every_table(tmp_path: Path) -> None:
    sides = {vase.lower(): ("train", "val", "eval")[number % 3] for number, vase in enumerate(ODD)}
    path = tmp_path / "splits.csv"
    with files.writing(path, "w") as stream:
        assignment.write(stream, sides)
    assert assignment.read(path) == sides
    lost = {f"{one}_front.jpg": 0.25 for one in ("1836,0224.127", 'F "2159"', "E 44\nB", "Zürich 3")}
    images = filtered(tmp_path / "filtered", {"A 1_front.jpg": 0.5}, lost)
    select(images, tmp_path / "views")
    table = list(files.read_table(tmp_path / "views/lost_vases.csv"))
    assert [(row["vase"], row["best"], row["score"]) for row in table] == [
        (name.removesuffix("_front.jpg").lower(), name, "0.25") for name in sorted(lost)
    ]
    with open(tmp_path / "views/lost_vases.csv", newline="", encoding="utf-8") as stream:
        assert {len(cells) for cells in csv.reader(stream)} == {4}


@pytest.mark.parametrize("cell", ODD)
def test_a_written_table_is_read_unchanged(cell: str, tmp_path: Path) -> None:
    with files.writing(tmp_path / "a.csv", "w") as stream:
        files.write_table(stream, ("path", "class"), [(cell, 1), ("plain", None)])
    assert list(files.read_table(tmp_path / "a.csv")) == [
        {"path": cell, "class": "1"},
        {"path": "plain", "class": ""},
    ]


def train(data: Path, out: Path, **params: Any) -> RecordingProgress:
    progress = RecordingProgress()
    settings = train_classifier.Params(**{**SMALL, "epochs": 1, "batch_size": 4, **params})
    train_classifier.run(
        StageCall(settings, train_classifier.Options(device="cpu"), {"data": data}, FolderOutput(out), progress)
    )
    return progress


def test_a_classifier_reads_class_folders_and_keeps_vases_together(tmp_path: Path) -> None:
    for number in range(8):
        for view in range(2):
            name = f"{'low' if number < 4 else 'high'}/Vase {number}/IMG_{number}{view}.jpg"
            pictures.save(tmp_path / "data" / ("val" if number % 4 == 3 else "train") / name, 2 * number + view)
    progress = train(tmp_path / "data", tmp_path / "out")
    assert "vases told apart by folder/view: 16 photographs of 8 vases" in progress.notes
    assert (
        "train and val are merged and split anew by vase, low is read as 0, high is read as 1"
        in progress.summaries[-1][0]
    )
    sizes = json.loads((tmp_path / "out/training_results.json").read_text())["splits"]
    assert {part: size["images"] % 2 for part, size in sizes.items()} == {"train": 0, "val": 0, "test": 0}


def test_the_classifier_refuses_names_without_a_vase_before_decoding(tmp_path: Path) -> None:
    for number in range(8):
        pictures.save(tmp_path / f"data/{number % 2}/IMG_{number:04}.jpg", number)
    with pytest.raises(DataError, match=r"8 of 8 names .*camera"):
        train_classifier.STAGE.check({"data": tmp_path / "data"}, train_classifier.Params())
    progress = train(tmp_path / "data", tmp_path / "out", unmatched="own-vase")
    assert "8 names match no pattern" in progress.summaries[-1][0]
    assert progress.summaries[-1][1]["unmatched"] == 8
