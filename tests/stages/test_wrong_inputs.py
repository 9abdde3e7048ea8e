"""Wrong inputs: a stage reports any wrong input in one sentence, with exit code 2 or 3, before it starts its work."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.training.conftest import make_dataset
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.runtime.command import command
from vasevqa.sample.tiny_qwen import make_tiny_qwen
from vasevqa.spec import Stage

STAGES: dict[str, Stage] = {step.stage.name: step.stage for step in PIPELINE.steps}


def noise(path: Path, size: int = 4096) -> Path:
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def photographs(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number, 80, 90)).save(folder / f"F{number // 2}_{number % 2 + 1}.jpg")
    return folder


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@dataclass(frozen=True)
class Wrong:
    """A wrong input: the function that makes it, and its kind."""

    make: Callable[[Path], Path]
    of: str  # folder, file or neither


def _empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def _empty_file(path: Path) -> Path:
    path.touch()
    return path


def _noise_inside(path: Path) -> Path:
    path.mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "trainer_state.json",
        "sft.jsonl",
        "grpo.jsonl",
        "eval.jsonl",
        "1.jpg",
        "a.json",
        "b.csv",
    ):
        noise(path / name)
    for label in "01":
        (path / label).mkdir()
        noise(path / label / "F1_1.jpg")
    return path


WRONG = {
    "an empty folder": Wrong(_empty_folder, "folder"),
    "photographs": Wrong(photographs, "folder"),
    "a folder of noise": Wrong(_noise_inside, "folder"),
    "an empty file": Wrong(_empty_file, "file"),
    "a file of noise": Wrong(noise, "file"),
    "a pipe": Wrong(pipe, "neither"),
    "a device": Wrong(lambda path: Path("/dev/zero"), "neither"),
    "nothing": Wrong(lambda path: path, "neither"),
    "a name that is too long": Wrong(lambda path: path.with_name("x" * 300), "neither"),
}
# Combinations that are valid. An earlier step may be skipped, so any folder can replace its output; and some inputs are
# photographs.
FITS = {
    ("classify", "images", "photographs"),
    ("clip-filter", "images", "photographs"),
    ("select-views", "images", "photographs"),
    ("select-views", "classified", "an empty folder"),
    ("select-views", "classified", "photographs"),
    ("select-views", "classified", "a folder of noise"),
    ("build-dataset", "images", "photographs"),
    ("build-dataset", "accepted", "an empty folder"),
    ("build-dataset", "accepted", "photographs"),
    ("build-dataset", "accepted", "a folder of noise"),
    ("grpo", "system", "an empty file"),
}
CASES = [
    (name, known.name, kind)
    for name, stage in STAGES.items()
    for known in stage.inputs
    for kind in WRONG
    if (name, known.name, kind) not in FITS
]


@dataclass(frozen=True)
class Call:
    """A valid call of a stage: its inputs, and flags that keep the work small."""

    inputs: Mapping[str, Path]
    flags: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> dict[str, Call]:
    """A valid call of each stage."""
    root = tmp_path_factory.mktemp("right")
    images = photographs(root / "images")
    labelled = root / "labelled"
    for label in "01":
        photographs(labelled / label)
    annotations = root / "annotations.json"
    annotations.write_text(json.dumps([{"id": f"F{number}", "shape": "kylix"} for number in range(3)]))
    qwen = root / "qwen"
    make_tiny_qwen(qwen)
    dataset = make_dataset(root / "dataset")
    shutil.copy(dataset / "grpo.jsonl", dataset / "eval.jsonl")
    cpu = ("--device", "cpu")
    return {
        "train-classifier": Call({"data": labelled}, (*cpu, "--weights", "none", "--arch", "resnet18")),
        "classify": Call({"images": images, "model": root / "none.pth"}, cpu),
        "clip-filter": Call({"images": images, "clip_model": tiny_clip}, cpu),
        "select-views": Call({"images": images, "clip_model": tiny_clip}, cpu),
        "build-dataset": Call({"images": images, "annotations": annotations}, ("--views", "best")),
        "sft": Call({"model": qwen, "dataset": dataset}, (*cpu, "--torch-dtype", "float32")),
        "merge": Call({"model": qwen, "adapters": root}, ()),
        "grpo": Call({"model": qwen, "dataset": dataset}, (*cpu, "--torch-dtype", "float32")),
        "evaluate": Call(
            {"base": qwen, "dataset": dataset}, (*cpu, "--torch-dtype", "float32", "--max-new-tokens", "4")
        ),
        "to-megatron": Call({"model": qwen}),
    }


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("name", "given", "kind"), CASES)
def test_a_wrong_input_of_any_stage_is_reported_in_one_sentence(
    name: str, given: str, kind: str, right: dict[str, Call], tmp_path: Path
) -> None:
    stage, call = STAGES[name], right[name]
    wrong = WRONG[kind].make(tmp_path / "given")
    inputs = {**call.inputs, given: wrong}
    words = [word for known in stage.inputs if known.name in inputs for word in (known.flag, str(inputs[known.name]))]
    ended = CliRunner().invoke(command(stage), [*words, stage.output_flag, str(tmp_path / "out"), *call.flags])
    said = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    # to-megatron checks for CUDA before it reads anything.
    assert ended.exit_code in ((2, 3, 5) if name == "to-megatron" else (2, 3)), ended.output
    assert len(said) == 1, ended.output
    assert "bug" not in said[0]
    assert "Traceback" not in ended.output
    if WRONG[kind].of not in STAGES[name].input(given).kind:
        assert str(wrong)[:100] in said[0]
        assert ended.exit_code == 2
