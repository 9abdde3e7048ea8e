"""Artifacts of an earlier version stay valid: all steps of the demo in kept_volume.json are up to date."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import vase_name
from vasevqa.artifacts.contents import RECORD
from vasevqa.artifacts.digests import DigestCache, fingerprint
from vasevqa.artifacts.volume import Volume
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import Plan, make_plan
from vasevqa.pipeline.recipe import load_recipe

KEPT: dict[str, Any] = json.loads(Path(__file__).with_name("kept_volume.json").read_text())

# The files that a plan looks for in an input: photographs with a label, by vase.
FILES = {"quality": [f"{label}/{vase_name(10 * label + vase, 0)}" for label in (0, 1) for vase in range(3)]}


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A volume that an earlier version of vasevqa wrote.

    The repository keeps the record of each artifact without its list of files, and the names of the inputs. The content
    of the inputs is too large for the repository, so the stat cache holds the digests of the inputs.
    """
    found = Volume(tmp_path.resolve())
    for given in KEPT["inputs"].values():
        path = found.root / "inputs" / given["name"]
        for kept in FILES.get(given["name"], ["kept"]):
            file = path if path.suffix else path / kept
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("kept")
        DigestCache(found.cache).digest(path)  # this creates the table
        with contextlib.closing(sqlite3.connect(found.cache / "digests.sqlite")) as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO trees VALUES (?, ?, ?)", (os.fspath(path), fingerprint(path), given["digest"])
            )
    for record in KEPT["artifacts"]:
        folder = found.artifact(record["step"], record["key"]).path
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(json.dumps({"files": {}, **record}))
    return found


def plan(volume: Volume, *overrides: str) -> Plan:
    recipe = volume.root / "recipe.yaml"
    recipe.write_text(KEPT["recipe"])
    inputs = [f"{name}={volume.root / 'inputs' / given['name']}" for name, given in KEPT["inputs"].items()]
    return make_plan(load_recipe(recipe, PIPELINE, overrides, inputs), PIPELINE, volume)


def test_all_steps_are_up_to_date_on_an_older_volume(volume: Volume) -> None:
    planned = plan(volume)
    assert {step.name: step.reasons for step in planned.steps if not step.hit} == {}
    assert {(step.name, step.artifact.key) for step in planned.steps} == {
        (record["step"], record["key"]) for record in KEPT["artifacts"]
    }


def test_a_changed_parameter_is_a_miss_on_an_older_volume(volume: Volume) -> None:
    missing = [step.name for step in plan(volume, "sft.lora_rank=16").steps if not step.hit]
    assert missing == ["sft", "merge-sft", "grpo", "merge-grpo", "evaluate"]


def test_the_digests_of_content_have_not_changed(tmp_path: Path) -> None:
    for name in ("photos/b/2.jpg", "photos/a.jpg", "photos/Ä.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    digests = DigestCache(tmp_path / ".cache")
    assert {name: digests.digest(tmp_path / name) for name in ("photos", "photos/a.jpg")} == KEPT["digests"]
