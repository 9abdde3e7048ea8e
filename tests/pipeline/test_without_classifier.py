"""A recipe without labels: both steps of the classifier are skipped, and clip-filter takes the photographs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pictures
from tests.pipeline.kit import ROOT
from vasevqa.artifacts.volume import Volume
from vasevqa.errors import ConfigError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.requirements import requirements_of

SKIPPED = "skip: [train-classifier, classify]\n"


@pytest.fixture
def world(tmp_path: Path, tiny_clip: Path) -> Path:
    pictures.vases(tmp_path / "photos", 3, 2)
    (tmp_path / "clip").symlink_to(tiny_clip)
    return tmp_path


def write(world: Path, skip: str = SKIPPED, inputs: str = "") -> Path:
    recipe = world / "recipe.yaml"
    steps = "steps: {clip-filter: {threshold: -2}}\n"
    recipe.write_text(f"inputs: {{images: photos, clip_model: clip{inputs}}}\nto: select-views\n{skip}{steps}")
    return recipe


def vasevqa(*words: str | Path, code: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "vasevqa.cli", *map(str, words)], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_clip_filter_reads_the_photographs(world: Path) -> None:
    plan = make_plan(load_recipe(write(world), PIPELINE), PIPELINE, Volume(world / "volume"))
    assert [step.name for step in plan.steps] == ["clip-filter", "select-views"]
    assert plan.steps[0].inputs["images"].path == world / "photos"
    assert plan.skipped == {
        "train-classifier": "skipped: no step needs its result",
        "classify": "skipped: passes through its images",
    }
    asked = requirements_of(load_recipe(write(world), PIPELINE), PIPELINE)
    assert (set(asked.stages), asked.missing) == ({"clip-filter", "select-views"}, {})


@pytest.mark.parametrize(
    ("skip", "says"),
    [
        ("skip: [train-classifier]\n", "classify would lack its result; skip classify too"),
        ("skip: [sft]\n", "merge-sft would lack its result"),
    ],
)
def test_a_step_whose_result_is_needed_can_not_be_skipped(world: Path, skip: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_recipe(write(world, skip), PIPELINE)


def test_a_step_whose_reader_is_replaced_can_be_skipped(world: Path) -> None:
    (world / "sorted/1").mkdir(parents=True)
    recipe = load_recipe(write(world, "skip: [train-classifier]\n", ", classify: sorted"), PIPELINE)
    plan = make_plan(recipe, PIPELINE, Volume(world / "volume"))
    assert [step.name for step in plan.steps] == ["clip-filter", "select-views"]


def test_a_recipe_without_labels_is_planned_checked_and_run(world: Path) -> None:
    recipe, volume = write(world), ("--volume", world / "volume", "--device", "cpu")
    planned = vasevqa("plan", recipe, *volume)
    assert "train-classifier  skip  skipped: no step needs its result" in planned
    found = [json.loads(line) for line in vasevqa("doctor", recipe, *volume, "--json").splitlines()]
    assert [line["what"] for line in found if line["state"] == "bad"] == []
    said = vasevqa("run", recipe, *volume)
    assert "accepted 6 of 6 images" in said
    assert "best views of 3 vases out of 6 images" in said
    assert "Nothing to do" in vasevqa("run", recipe, *volume)
