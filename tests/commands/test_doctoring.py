"""`vasevqa doctor` on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.pipeline.kit import Kit
from vasevqa.commands import doctoring
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import load_recipe


def look(tmp_path: Path, text: str, *words: str, code: int) -> dict[str, dict[str, Any]]:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    out = Kit(tmp_path / f"kit-{len(list(tmp_path.iterdir()))}").call("doctor", recipe, "--json", *words, check=code).stdout
    return {found["what"]: found for found in map(json.loads, out.splitlines())}


def test_a_recipe_that_can_run_here_is_fine(tmp_path: Path) -> None:
    for name in ("photos", "quality"):
        (tmp_path / name).mkdir()
    found = look(tmp_path, "inputs: {images: photos, quality_data: quality}\nto: classify\n", code=0)
    assert found["recipe"]["text"] == "r: train-classifier, classify"
    assert found["input images"]["state"] == found["space"]["state"] == "ok"


def test_the_worst_line_is_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "model").mkdir()
    found = look(tmp_path, "inputs: {images: photos, model: model, annotations: photos}\nto: sft\n", code=2)
    assert "names none" in found["input quality_data"]["text"]
    assert "config.json" in found["input model"]["text"]
    assert "does not exist" in look(tmp_path, "inputs: {images: nowhere}\n", code=2)["recipe"]["text"]


def test_what_a_recipe_asks_for() -> None:
    root = Path(__file__).parent.parent.parent / "vasevqa/recipes"
    whole = doctoring.wanted(load_recipe(root / "vase.yaml", PIPELINE, here=False))
    assert list(whole.stages) == list(PIPELINE.names)
    assert whole.copies == {"images": 1, "model": 3}
    assert whole.models == ("clip_model", "model")
    demo = doctoring.stages_of(root / "demo.yaml")
    assert "to-megatron" not in demo
    assert demo.count("merge") == 1
