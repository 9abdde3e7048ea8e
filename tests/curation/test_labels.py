"""Labelled folders of other trainers: clear names are read, and unclear names are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pictures
from vasevqa.curation.labels import labelled_images
from vasevqa.errors import DataError
from vasevqa.folders import PassedOver


def filled(root: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        pictures.save(root / folder / pictures.vase_name(number, 0), number)
    return root


@pytest.mark.parametrize(
    ("low", "high"),
    [
        *(("0", "1"), ("low", "high"), ("bad", "good"), ("fail", "pass"), ("0_low", "1_high"), ("0-bad", "1-good")),
        *(("Low Quality", "High Quality"), ("LowQuality", "HighQuality"), ("class0", "class1"), ("schlecht", "gut")),
        *(("rejected", "accepted"), ("fail/sub", "pass/deep/sub"), ("train/0", "train/1"), ("Train/bad", "Train/good")),
    ],
)
def test_clear_folder_names_are_read_as_labels(low: str, high: str, tmp_path: Path) -> None:
    found, said = labelled_images(filled(tmp_path, low, high))
    assert [item.label for item in found] == [0, 1]
    assert [item.name.split("/")[0] for item in found] == ["0", "1"]
    assert bool(said) == (low != "0")
    for name in (low, high):
        assert name.split("/")[0] in said or low == "0"


def test_splits_of_another_trainer_are_merged_and_reported(tmp_path: Path) -> None:
    found, said = labelled_images(filled(tmp_path, "train/low", "train/high", "val/low", "val/high", "test/high"))
    assert sorted(item.label for item in found) == [0, 0, 1, 1, 1]
    assert len({item.name for item in found}) == 5
    assert said == "test, train and val are merged and split anew by vase, low is read as 0, high is read as 1"


def test_other_folders_beside_0_and_1_are_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert labelled_images(filled(tmp_path, "0", "1", "unsure"))[1] == "not read: unsure"


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("amphora", "kylix"), "amphora and kylix, and it is not clear which"),
        (("0_high", "1_low"), "0_high and 1_low, and it is not clear"),
        (("low", "medium", "high"), "high, low and medium, and it is not clear"),
        (("not_good", "good"), "good and not_good, and it is not clear"),
        (("bad", "poor", "good"), "bad and poor, which would both be label 0"),
        (("low",), "no folder '1', only low"),
        (("1", "notes/deep"), "1 and notes, and it is not clear"),
        (("train/0", "val/0"), "no folder '1' in train and val"),
        (("train/0", "train/1", "extra"), "the splits train, and also extra"),
        ((), "no folder '0'"),
    ],
)
def test_unclear_folder_names_are_refused_and_listed(folders: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        labelled_images(filled(tmp_path, *folders))
    assert says in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("folders", "said", "counted"),
    [
        (("0", "1", "unsure", "."), "not read: unsure, photographs directly in data", 2),
        (("low", "high", "."), "low is read as 0 and high is read as 1; not read: photographs directly in data", 1),
        (
            ("train/0", "train/1", "test"),
            "train is read and split anew by vase; not read: photographs directly in test",
            1,
        ),
        (("train/0", "train/1", "test/notes/deep/.x"), "train is read and split anew by vase", 0),
    ],
)
def test_photographs_without_a_label_are_counted_and_reported(
    folders: tuple[str, ...], said: str, counted: int, tmp_path: Path
) -> None:
    others = PassedOver()
    found, told = labelled_images(filled(tmp_path / "data", *folders), others)
    assert len(found) == 2
    assert told == said
    assert others.counts["without a label"] == counted
