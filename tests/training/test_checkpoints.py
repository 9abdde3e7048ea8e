"""The choice of a training's checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.errors import ConfigError, DataError
from vasevqa.spec import StageCall
from vasevqa.stages import merge
from vasevqa.training import checkpoints


def test_only_complete_checkpoints_are_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no checkpoint"):
        checkpoints.choose(tmp_path, "last")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"12345678901")
    progress = RecordingProgress()
    with pytest.raises(DataError, match="not a complete safetensors file"):
        merge.run(
            StageCall(
                merge.MergeParams(),
                merge.MergeOptions(device="cpu"),
                {"model": tmp_path, "adapters": tmp_path},
                FolderOutput(tmp_path / "o"),
                progress,
            ),
        )


def fake_checkpoint(folder: Path, step: int, **state: Any) -> None:
    checkpoint = folder / f"training/checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))


def test_the_last_the_best_or_a_given_checkpoint_is_used(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        fake_checkpoint(tmp_path / "sft", step, best_model_checkpoint="/elsewhere/key.partial/training/checkpoint-20")
        fake_checkpoint(
            tmp_path / "grpo",
            step,
            log_history=[{"step": 10, "reward": 0.1}, {"step": 20, "reward": 0.9}, {"step": 30, "reward": 0.5}],
        )
        fake_checkpoint(tmp_path / "blind", step)
    for training in ("sft", "grpo"):
        assert [checkpoints.choose(tmp_path / training, which).name for which in ("last", "best", "10")] == [
            "checkpoint-30",
            "checkpoint-20",
            "checkpoint-10",
        ]
    with pytest.raises(ConfigError, match="has no record of a best checkpoint"):
        checkpoints.choose(tmp_path / "blind", "best")
    for content, said in (
        ("[]", "holds no JSON object"),
        ("{", "is not valid JSON"),
        ('{"log_history": 3}', "has no record of a best checkpoint"),
        ('{"log_history": [1, "reward"]}', "has no record of a best checkpoint"),
        (None, r"checkpoint-30 holds no trainer_state\.json; copy the whole checkpoint, or choose `last` or a step"),
    ):
        state = tmp_path / "blind/training/checkpoint-30/trainer_state.json"
        state.unlink() if content is None else state.write_text(content)
        with pytest.raises((ConfigError, DataError), match=said):
            checkpoints.choose(tmp_path / "blind", "best")
        assert checkpoints.choose(tmp_path / "blind", "last").name == "checkpoint-30"
    with pytest.raises(ConfigError, match="no checkpoint of step 15; choose one of 10, 20, 30"):
        checkpoints.choose(tmp_path / "sft", "15")
