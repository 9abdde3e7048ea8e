"""The plan says how many photographs are known from earlier runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import pictures
from vasevqa import files
from vasevqa.artifacts import digests
from vasevqa.artifacts.known import KnownPhotographs
from vasevqa.artifacts.volume import Volume
from vasevqa.cli import cli
from vasevqa.curation.classifier import model_file
from vasevqa.model_formats import folder_digest
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.growth import growth
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.selection import Selection
from vasevqa.stages import build_dataset, classify, clip_filter


def test_the_plan_counts_known_and_new_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "RACY", 0)  # the files are new, and their digests are cached nevertheless
    photos, volume = tmp_path / "photos", Volume(tmp_path / "volume")
    pictures.vases(photos, 3, 2)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/config.json").write_text("{}")
    (tmp_path / "r.yaml").write_text(
        "inputs: {images: photos, clip_model: clip}\nskip: [train-classifier, classify]\nto: select-views\n"
    )

    def said() -> dict[str, str]:
        planned = make_plan(load_recipe(tmp_path / "r.yaml", PIPELINE), PIPELINE, volume)
        return {name: grown.said() for name, grown in growth(planned).items()}

    assert said() == {}
    names = sorted(path.name for path in photos.iterdir())
    made_for = clip_filter.made_for(folder_digest(tmp_path / "clip"), "fp32", clip_filter.Params())
    KnownPhotographs(volume.root, photos, names, made_for).keep(dict.fromkeys(names[:4], b"1234"))
    assert said() == {"clip-filter": "4 known, 2 new"}
    (tmp_path / "clip/config.json").write_text('{"other": 1}')
    assert said() == {}


def test_a_classifier_is_known_by_the_file_that_classify_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "RACY", 0)
    pictures.vases(tmp_path / "photos", 3, 2)
    (tmp_path / "trained").mkdir()
    model_file(tmp_path / "trained").write_bytes(b"weights")
    (tmp_path / "trained/metrics.json").write_text("{}")
    (tmp_path / "r.yaml").write_text("inputs: {images: photos, train-classifier: trained}\nto: classify\n")
    volume = Volume(tmp_path / "volume")
    made_for = classify.made_for(files.digest_file(model_file(tmp_path / "trained")), "fp32", classify.Params())
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())
    recipe = load_recipe(tmp_path / "r.yaml", PIPELINE)
    make_plan(recipe, PIPELINE, volume)
    KnownPhotographs(volume.root, tmp_path / "photos", names, made_for).keep(dict.fromkeys(names[:5], b"12345678"))
    found = growth(make_plan(recipe, PIPELINE, volume))
    assert {name: grown.said() for name, grown in found.items()} == {"classify": "5 known, 1 new"}
    printed = CliRunner().invoke(cli, ["plan", str(tmp_path / "r.yaml"), "--volume", str(volume.root), "--json"])
    assert [(row["step"], row["known"], row["new"]) for row in map(json.loads, printed.stdout.splitlines())] == [
        ("classify", 5, 1)
    ]


def test_the_plan_counts_sketched_photographs_of_build_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "RACY", 0)
    views, volume = tmp_path / "views", Volume(tmp_path / "volume")
    pictures.vases(views / "best_views", 3, 2)
    (tmp_path / "a.csv").write_text("vase_id,fabric\n")
    (tmp_path / "r.yaml").write_text(
        "inputs: {images: views, annotations: a.csv}\nto: build-dataset\n"
        "skip: [train-classifier, classify, clip-filter, select-views]\n"
    )

    def said() -> dict[str, str]:
        only = Selection(only=("build-dataset",))
        planned = make_plan(load_recipe(tmp_path / "r.yaml", PIPELINE), PIPELINE, volume, only)
        return {name: grown.said() for name, grown in growth(planned).items()}

    assert said() == {}
    names = sorted(path.name for path in (views / "best_views").iterdir())
    known = KnownPhotographs(volume.root, views / "best_views", names, build_dataset.made_for())
    known.keep(dict.fromkeys(names[:5], b"1234"))
    assert said() == {"build-dataset": "5 known, 1 new"}
