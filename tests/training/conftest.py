"""A tiny Qwen2.5-VL and a small dataset with pictures, made once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes import FolderOutput, RecordingProgress
from tests.training.adapters import make_adapter
from vasevqa.sample.tiny_qwen import make_tiny_qwen
from vasevqa.spec import StageCall
from vasevqa.stages import grpo, sft
from vasevqa.training import trained_rows

TINY: dict[str, Any] = {
    "torch_dtype": "float32",
    "max_length": 512,
    "max_pixels": 12544,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0.01,
    "logging_steps": 1,
    "save_steps": 4,
    "eval_steps": 4,
}
OPTIONS: dict[str, Any] = {"device": "cpu", "dataloader_num_workers": 0, "gradient_checkpointing": False}
COLORS = {"lekythos": (40, 30, 24), "amphora": (200, 104, 54)}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_dataset(folder: Path) -> Path:
    """Write sixteen pictures in two colours. The colour shows the shape, so a model can learn the answer."""
    (folder / "images").mkdir(parents=True)
    rows, questions = [], []
    for number in range(16):
        shape = list(COLORS)[number % 2]
        name = f"images/{number:02}.jpg"
        Image.new("RGB", (112, 112), COLORS[shape]).save(folder / name)
        user = {"role": "user", "content": "<image>What is the shape of this vase?"}
        rows.append(
            {
                "messages": [user, {"role": "assistant", "content": shape}],
                "images": [name],
                "vase_id": str(number),
                "attribute": "shape",
            }
        )
        questions.append(
            {"messages": [user], "images": [name], "solution": shape, "attribute": "shape", "vase_id": str(number)}
        )
    write_rows(folder / "sft.jsonl", rows[:12])
    write_rows(folder / "val.jsonl", rows[12:])
    write_rows(folder / "grpo.jsonl", questions[:8])
    return folder


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen"
    assert make_tiny_qwen(folder)
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset") / "rows")


@pytest.fixture
def rows(tmp_path: Path, dataset: Path) -> Path:
    """A copy of the dataset, which a test may damage."""
    return Path(shutil.copytree(dataset, tmp_path / "rows"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, qwen: Path) -> Path:
    """An adapter of the tiny model that changes every target."""
    return make_adapter(qwen, tmp_path_factory.mktemp("adapters") / "plain")


@pytest.fixture(scope="session", autouse=True)
def _counted_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The trainings of the tests share the counted lengths of rows, like trainings on one volume."""
    shared = tmp_path_factory.mktemp("row-lengths")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_rows, "cache_folder", lambda output: shared)
        yield


def sft_params(**changes: Any) -> sft.SftParams:
    return sft.SftParams.model_validate({**TINY, **changes})


def grpo_params(**changes: Any) -> grpo.GrpoParams:
    return grpo.GrpoParams.model_validate(
        {
            **{name: value for name, value in TINY.items() if name != "eval_steps"},
            "batch_size": 8,
            "learning_rate": 0.001,
            "max_completion_length": 12,
            **changes,
        }
    )


def sft_call(
    inputs: Mapping[str, Path], output: Path, options: Mapping[str, Any] | None = None, **params: Any
) -> StageCall[Any, Any]:
    return StageCall(
        sft_params(**params),
        sft.SftOptions(**{**OPTIONS, **(options or {})}),
        inputs,
        FolderOutput(output),
        RecordingProgress(),
    )


def grpo_call(inputs: Mapping[str, Path], output: Path, **params: Any) -> StageCall[Any, Any]:
    return StageCall(
        grpo_params(**params), grpo.GrpoOptions(**OPTIONS), inputs, FolderOutput(output), RecordingProgress()
    )


def losses(folder: Path) -> dict[int, float]:
    """Return the loss by step. For a step that was logged twice, return the last loss."""
    found: dict[int, float] = {}
    for line in (folder / "training/logging.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "loss" in row and "global_step/max_steps" in row:
            found[int(row["global_step/max_steps"].split("/")[0])] = row["loss"]
    return found
