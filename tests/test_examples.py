"""The README's commands, run as they stand there on a small drawn sample."""

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
from vasevqa.sample.tiny_qwen import make_tiny_qwen

ROOT = Path(__file__).parent.parent
# What makes a documented call small enough for a test: a tiny architecture instead of downloaded weights.
SMALLER = {
    "--arch resnet50 --weights imagenet": "--arch resnet18 --weights none --image-size 32 --epochs 1 --device cpu"
}


def stage_commands() -> list[str]:
    """Every `python -m jobs...` line of the README, in order."""
    found = re.findall(r"^python -m jobs\..*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [
        command for command in found if "to_megatron" not in command
    ]  # needs CUDA; tests/training/test_to_megatron.py


TRAINING = (
    "--device cpu --torch-dtype float32 --max-length 256 --max-pixels 3136 --batch-size 4 --gradient-accumulation-steps"
    " 1 --max-steps 2 --dataloader-num-workers 0 --no-gradient-checkpointing"
)


def smaller(command: str, stage: str) -> str:
    """The documented call of a stage with small settings; a random model finds no image good, so thresholds are made
    lenient.
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


def test_the_documented_stage_commands_work_one_after_the_other(tiny_clip: Path, tmp_path: Path) -> None:
    pictures.vases(tmp_path / "photos", 4, 3)
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
    commands = stage_commands()
    assert len(commands) == 12
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in commands:
        words = [sys.executable, *shlex.split(smaller(command, command.split()[2].removeprefix("jobs.")))[1:]]
        result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
    assert len(list((tmp_path / "filtered_vases/best_views").iterdir())) == 4
    assert (tmp_path / "filtered_vases/filtering_stats.json").is_file()
    assert (tmp_path / "evaluation/comparison.md").is_file()
    assert "| metric | mine |" in (tmp_path / "comparison/comparison.md").read_text()
    assert (tmp_path / "merged-grpo/model.safetensors").is_file()


@pytest.mark.parametrize(
    "name", ["reward", "plan", "run", "status", "logs", "cancel", "clean", "report", "recipe", "repro", "sample"]
)
def test_every_command_of_the_readme_exists(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "vasevqa.cli", name, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: vasevqa {name}")
