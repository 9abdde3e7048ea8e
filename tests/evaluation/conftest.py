"""A tiny model to evaluate, and the call of evaluate with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.evaluation.generation import Answer
from vasevqa.sample.tiny_qwen import make_tiny_qwen
from vasevqa.spec import StageCall
from vasevqa.stages import evaluate

SHAPES = ("lekythos", "kylix", "krater")
SMALL: dict[str, Any] = {
    "torch_dtype": "float32",
    "max_new_tokens": 6,
    "max_pixels": 12544,
    "bootstrap": 50,
    "blind": False,
}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen"
    make_tiny_qwen(folder)
    return folder


def run(
    output: Path, inputs: Mapping[str, Path], options: Mapping[str, Any] | None = None, **params: Any
) -> tuple[dict[str, Any], RecordingProgress]:
    progress = RecordingProgress()
    evaluate.run(
        StageCall(
            evaluate.EvaluateParams(**{**SMALL, **params}),
            evaluate.EvaluateOptions(**{"device": "cpu", "batch_size": 4, **(options or {})}),
            inputs,
            FolderOutput(output),
            progress,
        ),
    )
    return json.loads((output / "evaluation.json").read_text()), progress


class Copying:
    """A model that answers every question with the truth."""

    def __init__(self, *ignored: object) -> None:
        pass

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        return [Answer(row["solution"]) for row in rows]
