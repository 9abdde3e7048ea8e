"""The estimated time of a plan, from artifacts of this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from PIL import Image

from tests import pictures
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Volume
from vasevqa.curation import checks
from vasevqa.curation.images import ImageFile, find_images
from vasevqa.curation.pace import seconds_per_photograph
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.forecast import forecast, measure, measure_clip
from vasevqa.pipeline.plan import Plan, make_plan
from vasevqa.pipeline.recipe import load_recipe


@pytest.fixture
def world(tmp_path: Path) -> Path:
    pictures.vases(tmp_path / "photos", 2, 2)
    (tmp_path / "clip").mkdir()
    (tmp_path / "r.yaml").write_text(
        "inputs: {images: photos, clip_model: clip}\nskip: [train-classifier, classify]\nto: select-views\n"
    )
    return tmp_path


def planned(world: Path, *overrides: str) -> Plan:
    return make_plan(load_recipe(world / "r.yaml", PIPELINE, overrides), PIPELINE, Volume(world / "volume"))


def made(world: Path, seconds: int, images: object, host: str, threshold: float) -> None:
    """Write an artifact of clip-filter like that of a run."""
    step = planned(world, f"clip-filter.threshold={threshold}").steps[0]
    output = StageOutput(step.artifact.partial)
    output.write_text("result", "x")
    times = {"started": "2026-05-01T10:00:00+00:00", "finished": f"2026-05-01T10:00:{seconds:02}+00:00"}
    inputs = {name: {"key": given.key, "path": given.value} for name, given in step.inputs.items()}
    record = {"step": step.name, "stage": step.stage.name, "stage_version": step.stage.version, "inputs": inputs}
    output.seal({**record, "params": {}, "host": host, "figures": {"images": images}, **times})
    step.artifact.commit("test")


def test_there_is_no_estimate_at_first(world: Path) -> None:
    assert forecast(planned(world), 100).said() == "time: unknown for clip-filter, select-views"


def test_the_estimate_comes_from_earlier_runs(world: Path) -> None:
    made(world, 10, 20, socket.gethostname(), 0.1)
    assert forecast(planned(world), 100).said() == (
        "time: about 50 s on this machine for clip-filter; unknown for select-views"
    )
    assert forecast(planned(world), None).seconds == {}
    assert forecast(planned(world, "clip-filter.threshold=0.1"), 100).unknown == ("select-views",)


@pytest.mark.parametrize(("images", "host"), [(20, "another-machine"), (0, ""), ("many", ""), (None, "")])
def test_artifacts_without_usable_times_are_ignored(world: Path, images: object, host: str) -> None:
    made(world, 10, images, host or socket.gethostname(), 0.1)
    assert forecast(planned(world), 100).seconds == {}


def test_a_measurement_tells_what_no_artifact_tells(world: Path) -> None:
    first = planned(world)
    assert forecast(first, 100, {"clip-filter": 0.5}).said() == (
        "time: about 50 s on this machine for clip-filter; unknown for select-views"
    )
    made(world, 10, 20, socket.gethostname(), 0.1)
    assert forecast(planned(world, "clip-filter.threshold=0.1"), 100, {"select-views": 1.0}).seconds == {
        "select-views": 100.0
    }
    assert measure(planned(world), find(world)) == {}  # nothing is measured, since an artifact tells it


def test_clip_is_measured_on_the_users_photographs(world: Path, tiny_clip: Path) -> None:
    recipe = world / "r.yaml"
    recipe.write_text(recipe.read_text().replace("clip_model: clip", f"clip_model: {tiny_clip}"))
    (world / "photos/broken.jpg").write_bytes(b"no picture")
    measured = measure(planned(world, "clip-filter.device=cpu"), find(world))
    assert set(measured) == {"clip-filter"}
    assert 0 < measured["clip-filter"] < 60
    assert measure_clip(tiny_clip, find(world)[-1:], "cpu", 8) is None


def test_the_measurement_ends_after_its_seconds(world: Path, tiny_clip: Path) -> None:
    ticks = iter(range(0, 100, 2))
    # Read at the start, before each batch of one photograph, and at the end: 0, 2, 4, 6, 8 seconds.
    assert seconds_per_photograph(tiny_clip, find(world), "cpu", 1, lambda: float(next(ticks))) == 8 / 2


def test_the_measurement_includes_the_data_checks_unless_they_are_off(
    world: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = world / "r.yaml"
    recipe.write_text(recipe.read_text().replace("clip_model: clip", f"clip_model: {tiny_clip}"))
    checked: list[Path] = []
    measured = checks.measure

    def counted(path: Path, decoded: Image.Image) -> bytes:
        checked.append(path)
        return measured(path, decoded)

    monkeypatch.setattr(checks, "measure", counted)
    assert measure(planned(world, "clip-filter.device=cpu", "clip-filter.checks=none"), find(world))
    assert checked == []
    assert measure(planned(world, "clip-filter.device=cpu"), find(world))
    assert len(checked) == len(find(world))


def find(world: Path) -> list[ImageFile]:
    return sorted(find_images(world / "photos"), key=lambda item: "broken" in item.name)
