"""A collection that grows: clip-filter and classify compute only what no earlier run on the volume has computed."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import clips, pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.artifacts.known import FOLDER
from vasevqa.curation import classifier, embeddings, loader
from vasevqa.errors import Interrupted
from vasevqa.spec import StageCall
from vasevqa.stages import classify, clip_filter

OLD, NEW = 57, 3


class Decoded:
    """Counts the images that the loader decodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self._lock = threading.Lock()
        decode = loader.open_image

        def counted(path: Path, cover: int | None = None) -> Any:
            with self._lock:
                self.names.append(path.name)
            return decode(path, cover)

        monkeypatch.setattr(loader, "open_image", counted)

    def during(self, work: Callable[[], object]) -> list[str]:
        """Return the names of the images that `work` decodes."""
        self.names.clear()
        work()
        return sorted(self.names)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    return Decoded(monkeypatch)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs: OLD of them, and NEW more, which a test adds."""
    folder = tmp_path_factory.mktemp("drawn")
    for number in range(OLD + NEW):
        pictures.save(folder / f"{number:02}.jpg", number)
    return folder


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two classifiers with random weights."""
    folder = tmp_path_factory.mktemp("classifiers")
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = classifier.build("resnet18").state_dict()
        torch.save({"arch": "resnet18", "image_size": 32, "state_dict": state}, folder / f"{seed}.pth")
    return [folder / "0.pth", folder / "1.pth"]


class Stage:
    """One of the two stages with two models: `run` works on a volume, as a launcher's step does."""

    def __init__(self, name: str, models: list[Path], root: Path, drawn: Path) -> None:
        self.name, self.models, self.drawn = name, models, drawn
        self.volume, self.photographs = root / "volume", root / "volume/photographs"
        self.photographs.mkdir(parents=True)
        self.grow(0, OLD)
        self.outputs: list[Path] = []
        self.progress = RecordingProgress()

    def grow(self, first: int, last: int) -> None:
        for number in range(first, last):
            shutil.copy(self.drawn / f"{number:02}.jpg", self.photographs)

    def run(self, model: int = 0, volume: bool = True, again: bool = False, **params: Any) -> dict[str, Any]:
        """Run the stage into a new output, or `again` into the last one, and return its results by name."""
        out = self.outputs[-1] if again else self.volume.parent / f"out{len(self.outputs)}"
        self.outputs.append(out)
        output = FolderOutput(out, standalone=not volume, volume=self.volume if volume else None)
        self.progress = RecordingProgress()
        if self.name == "classify":
            inputs = {"images": self.photographs, "model": self.models[model]}
            options = classify.Options(device="cpu", batch_size=8)
            classify.run(StageCall(classify.Params(**params), options, inputs, output, self.progress))
            rows = (out / "predictions.csv").read_text().splitlines()[1:]
            assert len(rows) == sum(1 for side in "01" for _ in (out / side).glob("*.jpg"))
            return {row.split(",")[0]: row for row in rows}
        inputs = {"images": self.photographs, "clip_model": self.models[model]}
        choice = clip_filter.Options(device="cpu", batch_size=8)
        clip_filter.run(
            StageCall(clip_filter.Params(precision="fp32", **params), choice, inputs, output, self.progress)
        )
        stored = embeddings.load(out / embeddings.FILE)
        assert stored is not None
        report = json.loads((out / "filtering_report.json").read_text())
        assert stored[0] == [row["name"] for row in report["images"]]
        return {name: row.tolist() for name, row in zip(stored[0], stored[2], strict=True)}

    @property
    def store(self) -> Path:
        return next((self.volume / FOLDER).glob("*.sqlite"))


@pytest.fixture(params=["classify", "clip-filter"])
def stage(request: pytest.FixtureRequest, hf_clip: Path, classifiers: list[Path], drawn: Path, tmp_path: Path) -> Stage:
    if request.param == "classify":
        return Stage("classify", classifiers, tmp_path, drawn)
    return Stage("clip-filter", [hf_clip, clips.hugging_face(tmp_path / "other-clip", seed=1)], tmp_path, drawn)


def test_only_new_photographs_are_decoded(stage: Stage, decoded: Decoded) -> None:
    first: dict[str, Any] = {}
    assert len(decoded.during(lambda: first.update(stage.run()))) == OLD
    stage.grow(OLD, OLD + NEW)
    second: dict[str, Any] = {}
    assert decoded.during(lambda: second.update(stage.run())) == ["57.jpg", "58.jpg", "59.jpg"]
    assert second.keys() - first.keys() == {"57.jpg", "58.jpg", "59.jpg"}
    assert {name: second[name] for name in first} == first  # bit by bit
    assert stage.progress.notes[0] == "57 images are known from earlier runs, 3 are new"
    assert stage.progress.summaries[0][1]["known"] == OLD
    assert stage.progress.phases[0][1] == NEW


def test_the_figures_count_what_an_earlier_attempt_computed_as_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forecast divides the time of the last attempt by the photographs that this attempt computed."""
    monkeypatch.setattr(embeddings, "PART_SIZE", 8)
    decode = loader.open_image

    def stopped(path: Path, cover: int | None = None) -> Any:
        if path.name == "40.jpg":
            raise Interrupted("The node is drained.")
        return decode(path, cover)

    with monkeypatch.context() as patched:
        patched.setattr(loader, "open_image", stopped)
        with pytest.raises(Interrupted):
            stage.run(volume=False)
    stage.run(volume=False, again=True)
    new = stage.progress.phases[0][1]
    assert 17 <= new < OLD
    assert stage.progress.summaries[0][1]["known"] == OLD - new


def test_a_renamed_photograph_is_known_and_an_edited_one_is_not(stage: Stage, decoded: Decoded) -> None:
    before = stage.run()
    (stage.photographs / "00.jpg").rename(stage.photographs / "renamed.jpg")
    shutil.copy(stage.drawn / "58.jpg", stage.photographs / "01.jpg")
    after: dict[str, Any] = {}
    assert decoded.during(lambda: after.update(stage.run())) == ["01.jpg"]
    assert after["01.jpg"] != before["01.jpg"]
    assert str(after["renamed.jpg"]).replace("renamed", "00") == str(before["00.jpg"])


def test_another_model_or_way_of_decoding_computes_everything(stage: Stage, decoded: Decoded) -> None:
    stage.run()
    assert len(decoded.during(lambda: stage.run(model=1))) == OLD
    assert len(decoded.during(lambda: stage.run(exact_decode=True))) == OLD
    assert decoded.during(stage.run) == []


def test_a_damaged_store_costs_only_time(stage: Stage, decoded: Decoded) -> None:
    before = stage.run()
    stage.store.write_text("This is no database.\n" * 200)
    after: dict[str, Any] = {}
    assert len(decoded.during(lambda: after.update(stage.run()))) == OLD
    assert list(after) == list(before)
    assert decoded.during(stage.run) == []  # the store is whole again


def test_a_volume_on_which_nothing_can_be_stored_costs_only_time(stage: Stage, decoded: Decoded) -> None:
    (stage.volume / ".cache").write_text("a file in the place of the folder")
    assert len(decoded.during(stage.run)) == OLD


def test_without_a_volume_nothing_is_written_outside_the_output(stage: Stage, decoded: Decoded) -> None:
    assert len(decoded.during(lambda: stage.run(volume=False))) == OLD
    assert {path.name for path in stage.volume.iterdir()} == {"photographs"}
