"""The estimated time of a plan, from artifacts of this machine."""

from __future__ import annotations

import socket
from collections.abc import Generator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL.Image import Image
from torch import Tensor

from tests import pictures
from vasevqa.artifacts import digests
from vasevqa.artifacts.known import KnownPhotographs
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Volume
from vasevqa.cli import cli
from vasevqa.curation import clip, loader
from vasevqa.curation.images import ImageFile, find_images
from vasevqa.curation.loader import Batch, Loader
from vasevqa.curation.pace import Settings, seconds_per_photograph
from vasevqa.errors import ConfigError
from vasevqa.model_formats import folder_digest
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.forecast import forecast, measure, measure_clip
from vasevqa.pipeline.plan import Plan, make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.stages import clip_filter

ON_CPU = clip_filter.Options(device="cpu", batch_size=8)


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


def made(world: Path, seconds: int, images: object, host: str, threshold: float, **figures: int) -> None:
    """Write an artifact of clip-filter like that of a run."""
    step = planned(world, f"clip-filter.threshold={threshold}").steps[0]
    output = StageOutput(step.artifact.partial)
    output.write_text("result", "x")
    times = {"started": "2026-05-01T10:00:00+00:00", "finished": f"2026-05-01T10:00:{seconds:02}+00:00"}
    inputs = {name: {"key": given.key, "path": given.value} for name, given in step.inputs.items()}
    record = {"step": step.name, "stage": step.stage.name, "stage_version": step.stage.version, "inputs": inputs}
    output.seal({**record, "params": {}, "host": host, "figures": {"images": images, **figures}, **times})
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


def test_only_computed_photographs_take_time(world: Path) -> None:
    made(world, 10, 20, socket.gethostname(), 0.1, known=15)
    assert forecast(planned(world), 100).seconds == {"clip-filter": 200}
    assert forecast(planned(world), 100, new={"clip-filter": 3}).seconds == {"clip-filter": 6}
    assert forecast(planned(world), 100, new={"clip-filter": 0}).seconds == {"clip-filter": 0}
    made(world, 10, 20, socket.gethostname(), 0.2, known=20)  # tells no pace
    assert forecast(planned(world), 100).seconds == {"clip-filter": 200}


def test_the_plan_estimates_the_new_photographs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "RACY", 0)  # the files are new, and their digests are cached nevertheless
    (world / "clip/config.json").write_text('{"model_type": "clip"}')
    made(world, 10, 5, socket.gethostname(), 0.1)
    names = sorted(path.name for path in (world / "photos").iterdir())
    made_for = clip_filter.made_for(folder_digest(world / "clip"), "fp32", clip_filter.Params())
    KnownPhotographs(world / "volume", world / "photos", names, made_for).keep(dict.fromkeys(names[:3], b"1234"))
    said = CliRunner().invoke(cli, ["plan", str(world / "r.yaml"), "--volume", str(world / "volume")]).output
    assert "3 known, 1 new" in said
    assert "time: about 2 s on this machine for clip-filter" in said


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
    assert measure_clip(tiny_clip, find(world)[-1:], clip_filter.Params(), ON_CPU) is None


def test_the_measurement_ends_after_its_seconds(world: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)  # time passes with batches only: two seconds for each
    assert seconds_per_photograph(tiny_clip, find(world), Settings("cpu", 1), lambda: 2.0 * seen.batches) == 2
    assert (seen.batches, seen.loaders) == (3, 1)


def test_unreadable_photographs_take_no_longer(world: Path, tiny_clip: Path) -> None:
    """They make no batch after which the time could be looked at."""
    for path in (world / "photos").iterdir():
        path.write_bytes(b"no picture")
    ticks = iter(range(6))
    assert seconds_per_photograph(tiny_clip, find(world) * 100, Settings("cpu", 1), lambda: float(next(ticks))) is None


@pytest.mark.parametrize(("precision", "exact"), [("fp32", False), ("bf16", True)])
def test_the_measurement_decodes_and_computes_as_the_recipe_says(
    world: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, precision: str, exact: bool
) -> None:
    recipe = world / "r.yaml"
    recipe.write_text(recipe.read_text().replace("clip_model: clip", f"clip_model: {tiny_clip}"))
    seen = Seen(monkeypatch)
    words = [f"clip-filter.precision={precision}", f"clip-filter.exact_decode={str(exact).lower()}"]
    assert measure(planned(world, *words, "clip-filter.device=cpu", "clip-filter.workers=1"), find(world))
    assert seen.precisions == {precision}
    assert {cover is None for cover in seen.covers} == {exact}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--measure", "-n", "vases"], "--measure runs CLIP on this machine, but the plan is for the cluster"),
        (["--inputs-from", ".", "-n", "vases"], "--inputs-from . is a folder of this machine"),
        (["--measure", "--json"], "which --json doesn't print"),
    ],
)
def test_no_option_of_plan_is_dropped(world: Path, words: list[str], says: str) -> None:
    refused = CliRunner().invoke(cli, ["plan", str(world / "r.yaml"), "--volume", str(world / "volume"), *words])
    assert isinstance(refused.exception, ConfigError)
    assert says in str(refused.exception)


class Seen:
    """What the measurement did: the batches, the loaders, the precisions, and the sizes at which JPEGs were decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches = self.loaders = 0
        self.precisions: set[str] = set()
        self.covers: set[int | None] = set()
        encode, start, decode = clip.ClipModel.encode_images, Loader.__iter__, loader.open_image

        def encoded(model: clip.ClipModel, pixels: Tensor) -> Tensor:
            self.batches += 1
            self.precisions.add(model.precision)
            return encode(model, pixels)

        def started(one: Loader) -> Generator[Batch, None, None]:
            self.loaders += 1
            return start(one)

        def decoded(path: Path, cover: int | None = None) -> Image:
            self.covers.add(cover)
            return decode(path, cover)

        monkeypatch.setattr(clip.ClipModel, "encode_images", encoded)
        monkeypatch.setattr(Loader, "__iter__", started)
        monkeypatch.setattr(loader, "open_image", decoded)


def find(world: Path) -> list[ImageFile]:
    return sorted(find_images(world / "photos"), key=lambda item: "broken" in item.name)
