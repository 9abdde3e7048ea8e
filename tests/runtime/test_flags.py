"""In a run, messages of a stage name the recipe's keys. Flags of other programs stay unchanged."""

from __future__ import annotations

import pytest

from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.runtime.flags import in_recipe


@pytest.mark.parametrize(
    ("step", "message", "told"),
    [
        ("clip-filter", "No image; check --input-dir.", "No image; check the input `images`."),
        ("classify", "No image; check --source-dir, twice.", "No image; check the input `images`, twice."),
        ("clip-filter", "Set --device cpu, or go.", "Set `device: cpu`, or go."),
        ("clip-filter", "--threshold 0.1500 keeps 3%", "`threshold` 0.1500 keeps 3%"),
        ("build-dataset", "--views all needs --accepted-dir; go.", "`views: all` needs the input `accepted`; go."),
        ("train-classifier", "give --weights none.", "give `weights: none`."),
        ("sft", "run `merge` with --adapters /a/b", "run `merge` with --adapters /a/b"),
        ("clip-filter", "a folder called x--device or --devices", "a folder called x--device or --devices"),
    ],
)
def test_flags_are_replaced_by_recipe_keys(step: str, message: str, told: str) -> None:
    assert in_recipe(PIPELINE.step(step).stage, message) == told
