"""The README's commands, run without changes on a small drawn sample."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pictures
from vasevqa.folders import SUFFIXES
from vasevqa.sample.tiny_qwen import make_tiny_qwen

ROOT = Path(__file__).parent.parent
# Changes that make a documented call small enough for a test: a tiny architecture replaces downloaded weights.
SMALLER = {
    "--arch resnet50 --weights imagenet": "--arch resnet18 --weights none --image-size 32 --epochs 1 --device cpu"
}


def stage_commands() -> list[str]:
    """Return every `python -m jobs...` command of the README, in order."""
    found = re.findall(r"^python -m jobs\..*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [
        command for command in found if "to_megatron" not in command
    ]  # needs CUDA; tests/training/test_to_megatron.py


def in_docker() -> list[list[str]]:
    """The stage and words of every `docker run` line of the README, with the paths that the same call has outside."""
    lines = re.findall(r"^docker run .* vasevqa/(.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [shlex.split(line.replace("/data/", "")) for line in lines]


def to_run(commands: list[str]) -> list[str]:
    """The commands that no test runs in a container: tests/images/test_chain.py runs the `docker run` lines."""
    if os.environ.get("VASEVQA_NO_DOCKER") == "1":
        return commands
    return [
        command
        for command in commands
        if [command.split()[2].removeprefix("jobs.").replace("_", "-"), *shlex.split(command)[3:]] not in in_docker()
    ]


TRAINING = (
    "--device cpu --torch-dtype float32 --max-length 256 --max-pixels 3136 --batch-size 4 --gradient-accumulation-steps"
    " 1 --max-steps 2 --dataloader-num-workers 0 --no-gradient-checkpointing"
)


def smaller(command: str, stage: str) -> str:
    """Return the documented call of a stage with small settings. The thresholds are low, because a random model rejects
    all images.
    """
    for long, short in SMALLER.items():
        command = command.replace(long, short)
    command = command.replace("--threshold 0.15", "--threshold=-2")
    if stage in ("sft", "grpo"):
        return command.replace("--max-completion-length 256", "--max-completion-length 4") + " " + TRAINING
    if stage == "evaluate":
        small = command.partition("    #")[0].replace(" --sentence-model models/all-MiniLM-L6-v2", "")
        return small + " --device cpu --torch-dtype float32 --max-new-tokens 4 --max-pixels 3136"
    if stage == "merge":
        return command + " --device cpu"
    return command + " --confidence-threshold 0" if stage == "classify" else command


def test_the_readme_names_every_suffix_of_a_photograph() -> None:
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if '"no image in' in line)
    assert {word.rstrip(",") for word in re.findall(r"\.[a-z0-9]+(?=[ ,])", line)} == SUFFIXES


@pytest.mark.timeout(900)
def test_the_documented_stage_commands_work_one_after_the_other(tiny_clip: Path, tmp_path: Path) -> None:
    commands = stage_commands()
    assert len(commands) == 12
    whole = to_run(commands) == commands
    for folder in ("photos", *(() if whole else ("images3/1",))):
        pictures.vases(tmp_path / folder, 4, 3)
    for label in (0, 1):
        pictures.vases(tmp_path / f"quality/{label}", 5, 2, first=100 * label)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/clip-vit-base-patch32").symlink_to(tiny_clip)
    make_tiny_qwen(tmp_path / "models/Qwen2.5-VL-7B-Instruct")
    ids = sorted({path.name.split("_")[0] for path in (tmp_path / "photos").rglob("*.jpg")})
    (tmp_path / "annotations.json").write_text(
        json.dumps([{"vase_id": name, "shape": "kylix", "fabric": "Attic"} for name in ids])
    )
    (tmp_path / "captions").mkdir()
    for name, text in (("captions/mine.json", "A kylix."), ("truth.json", "An Attic kylix.")):
        (tmp_path / name).write_text(
            json.dumps([{"images": ["a.jpg"], "caption": text}, {"images": ["b.jpg"], "caption": text}])
        )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in to_run(commands):
        words = [sys.executable, *shlex.split(smaller(command, command.split()[2].removeprefix("jobs.")))[1:]]
        result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
    assert "| metric | mine |" in (tmp_path / "comparison/comparison.md").read_text()
    if whole:
        assert len(list((tmp_path / "filtered_vases/best_views").iterdir())) == 4
        assert (tmp_path / "evaluation/comparison.md").is_file()
        assert (tmp_path / "merged-grpo/model.safetensors").is_file()


def test_outside_containers_the_stages_are_called_alike() -> None:
    inside = [words for words in in_docker() if words[0] != "launcher"]
    outside = [
        [command.split()[2].removeprefix("jobs.").replace("_", "-"), *shlex.split(command)[3:]]
        for command in stage_commands()
    ]
    assert [words for words in inside if words not in outside] == []
    assert len(to_run(stage_commands())) < len(outside) or os.environ.get("VASEVQA_NO_DOCKER") == "1"


@pytest.mark.parametrize(
    "name",
    [
        "reward",
        "plan",
        "run",
        "status",
        "logs",
        "cancel",
        "clean",
        "verify",
        "report",
        "recipe",
        "repro",
        "sample",
        "init",
        "models",
    ],
)
def test_every_command_of_the_readme_exists(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "vasevqa.cli", name, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: vasevqa {name}")
