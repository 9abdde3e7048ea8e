"""A collection that grows: build-dataset decodes only photographs that no earlier run on the volume has sketched."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.artifacts.known import FOLDER
from vasevqa.dataset import sketches
from vasevqa.dataset.duplicates import Sketch, sketch
from vasevqa.spec import StageCall
from vasevqa.stages import build_dataset

OLD, NEW = 57, 3
RESULTS = ("sft.jsonl", "val.jsonl", "grpo.jsonl", "eval.jsonl", "splits.csv", "dataset_report.json")


class Collection:
    """Photographs on a volume, of which `build` makes a dataset as a launcher's step does."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume, self.photographs = root / "volume", root / "volume/photographs"
        self.decoded: list[str] = []
        self.progress = RecordingProgress()
        self.runs = 0
        lock, decode = threading.Lock(), sketches.open_image

        def counted(path: Path, cover: int | None = None) -> Any:
            with lock:
                self.decoded.append(path.name)
            return decode(path, cover)

        monkeypatch.setattr(sketches, "open_image", counted)
        self.grow(0, OLD)

    def grow(self, first: int, last: int) -> None:
        for number in range(first, last):
            pictures.save(self.photographs / f"V{number:02}_front.jpg", number)

    def build(self, volume: bool = True) -> dict[str, str]:
        """Build into a new folder at the same place, and return the text of its files."""
        out = self.volume.parent / f"out{self.runs}" / "dataset"
        self.runs += 1
        rows = [{"vase_id": f"V{number:02}", "fabric": "Attic", "shape": "kylix"} for number in range(OLD + NEW)]
        table = self.volume.parent / "annotations.json"
        table.write_text(json.dumps(rows))
        inputs = {"images": self.photographs, "annotations": table}
        output = FolderOutput(out, standalone=False, volume=self.volume if volume else None)
        options = build_dataset.BuildOptions(image_root=str(out.parent), workers=2)
        self.decoded.clear()
        self.progress = RecordingProgress()
        build_dataset.run(StageCall(build_dataset.BuildParams(), options, inputs, output, self.progress))
        return {name: (out / name).read_text() for name in RESULTS}


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    return Collection(tmp_path, monkeypatch)


def test_only_new_photographs_are_decoded(collection: Collection) -> None:
    collection.build()
    assert len(collection.decoded) == OLD
    collection.grow(OLD, OLD + NEW)
    shutil.copy(collection.photographs / "V00_front.jpg", collection.photographs / "V00_back.jpg")
    grown = collection.build()
    assert sorted(collection.decoded) == ["V57_front.jpg", "V58_front.jpg", "V59_front.jpg"]
    assert "58 images are known from earlier runs, 3 are new" in collection.progress.notes
    assert collection.progress.summaries[0][1]["known"] == OLD + 1
    assert collection.progress.phases[0] == ("reading", NEW, "images")
    assert json.loads(grown["dataset_report.json"])["near_duplicates"] == [["V00_back.jpg", "V00_front.jpg"]]
    shutil.rmtree(collection.volume / FOLDER)
    assert collection.build() == grown  # what is known changes no result
    assert len(collection.decoded) == OLD + NEW + 1


def test_an_edited_photograph_is_decoded_and_an_unreadable_one_stays_unreadable(collection: Collection) -> None:
    (collection.photographs / "V01_front.jpg").write_bytes(b"no picture")
    collection.build()
    pictures.save(collection.photographs / "V00_front.jpg", 99)
    again = collection.build()
    assert sorted(collection.decoded) == ["V00_front.jpg", "V01_front.jpg"]
    assert [file["name"] for file in json.loads(again["dataset_report.json"])["quarantined"]] == ["V01_front.jpg"]


def test_a_damaged_store_and_another_version_of_the_stage_cost_only_time(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = collection.build()
    [store] = (collection.volume / FOLDER).iterdir()
    store.write_text("This is no database.\n" * 200)
    assert collection.build() == before
    assert len(collection.decoded) == OLD
    collection.build()
    assert collection.decoded == []
    newer = {**build_dataset.made_for(), "version": build_dataset.STAGE.version + 1}
    monkeypatch.setattr(build_dataset, "made_for", lambda: newer)
    assert collection.build() == before
    assert len(collection.decoded) == OLD


def test_without_a_volume_nothing_is_stored(collection: Collection) -> None:
    collection.build(volume=False)
    assert not (collection.volume / ".cache").exists()


def test_a_stored_sketch_is_the_sketch_of_the_picture() -> None:
    made = sketch(pictures.photo(3, (300, 200)))
    again = Sketch.from_bytes(made.as_bytes())
    for part in ("hash", "thumbnail", "mirrored", "detail"):
        assert np.array_equal(getattr(made, part), getattr(again, part)), part
