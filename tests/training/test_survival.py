"""Training resumes after kills, stops, incomplete checkpoints and exhausted GPU memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FolderOutput, RecordingProgress
from tests.training.conftest import OPTIONS, TINY, grpo_params, losses, sft_params
from vasevqa.errors import ConfigError, GpuMemoryError, Interrupted
from vasevqa.spec import StageCall
from vasevqa.stages import grpo, sft
from vasevqa.training import checkpoints, trainer

STEPS = 24


def start(qwen: Path, dataset: Path, output: Path) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        "jobs.sft",
        "--model",
        str(qwen),
        "--dataset-dir",
        str(dataset),
        "--output-dir",
        str(output),
        f"--max-steps={STEPS}",
    ]
    for name, value in {**TINY, **OPTIONS}.items():
        words.append(
            f"--{'' if value is not False else 'no-'}{name.replace('_', '-')}"
            + ("" if isinstance(value, bool) else f"={value}")
        )
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_checkpoint(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not (folder / f"training/checkpoint-{step}/trainer_state.json").exists():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trainers(folder: Path) -> list[str]:
    """Return the training processes that have a file below `folder` open."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
            opened = (
                [str(link.readlink()) for link in (entry / "fd").iterdir()]
                if "vasevqa.training.swift.worker" in words
                else []
            )
        except OSError:
            continue
        if any(str(folder) in name for name in opened):
            found.append(words)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, qwen: Path, dataset: Path) -> dict[int, float]:
    folder = tmp_path_factory.mktemp("undisturbed") / "sft"
    process = start(qwen, dataset, folder)
    assert process.wait(180) == 0, process.stdout.read() if process.stdout else ""
    return losses(folder)


def test_training_finishes_after_a_kill_within_a_checkpoint_and_a_stop(
    tmp_path: Path, qwen: Path, dataset: Path, undisturbed: dict[int, float]
) -> None:
    folder = tmp_path / "sft"
    first = start(qwen, dataset, folder)
    until_checkpoint(first, folder, 8)
    first.kill()
    first.wait(30)
    deadline = time.monotonic() + 20
    while trainers(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not trainers(folder), "the training still runs after its stage ended"
    newest = checkpoints.checkpoints(folder / "training")[-1].path
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])  # a kill during writing leaves such a checkpoint

    second = start(qwen, dataset, folder)
    until_checkpoint(second, folder, int(newest.name.split("-")[1]) + 4)
    second.send_signal(signal.SIGTERM)
    said = second.communicate(timeout=60)[0]
    assert second.returncode == 75, said
    assert f"{newest.name} is incomplete" in said
    assert "resuming from checkpoint-" in said
    stopped = checkpoints.checkpoints(folder / "training")[-1]
    assert stopped.problem is None
    state = json.loads((stopped.path / "trainer_state.json").read_text())
    assert state["global_step"] == stopped.step

    third = start(qwen, dataset, folder)
    said = third.communicate(timeout=180)[0]
    assert third.returncode == 0, said
    assert f"resuming from checkpoint-{stopped.step}" in said
    summary = json.loads((folder / "training_summary.json").read_text())
    assert (summary["steps"], summary["attempts"][-1]["from_step"]) == (STEPS, stopped.step)
    curve = losses(folder)
    assert sorted(curve) == list(range(1, STEPS + 1))
    assert curve == pytest.approx(undisturbed, rel=1e-3)
    assert not (folder / "training" / checkpoints.ASIDE).exists()


def train_without_memory(
    folder: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, **environ: Any
) -> RecordingProgress:
    for name, value in environ.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(trainer, "CHILD", "tests.training.oom_child")
    progress = RecordingProgress()
    sft.run(
        StageCall(
            sft_params(max_steps=8),
            sft.SftOptions(**OPTIONS),
            {"model": qwen, "dataset": dataset},
            FolderOutput(folder),
            progress,
        ),
    )
    return progress


def test_after_an_out_of_memory_error_training_resumes_with_smaller_batches(
    tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = train_without_memory(tmp_path / "sft", qwen, dataset, monkeypatch, OOM_FROM_STEP=3, OOM_ROWS=2)
    summary = json.loads((tmp_path / "sft/training_summary.json").read_text())
    walked = [
        (rung["batch_size"], rung["accumulation"], rung["gradient_checkpointing"], rung["from_step"])
        for rung in summary["attempts"]
    ]
    assert walked == [(4, 1, False, 0), (4, 1, True, 3), (2, 2, True, 3)]
    assert [rung["outcome"] == "done" for rung in summary["attempts"]] == [False, False, True]
    assert sorted(losses(tmp_path / "sft")) == list(range(1, 9))
    assert sum("memory ran out" in note for note in progress.notes) == 2


def test_if_smaller_batches_do_not_help_the_error_gives_advice(
    tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        trainer, "rungs", lambda batch, accumulation, processes, checkpointing: [trainer.BatchPlan(1, 4, True)]
    )
    with pytest.raises(GpuMemoryError, match="max_pixels"):
        train_without_memory(
            tmp_path / "sft", qwen, dataset, monkeypatch, OOM_FROM_STEP=0, OOM_ROWS=0, OOM_IN_A_LIBRARY=1
        )


def test_a_checkpoint_can_be_chosen_to_resume_from(tmp_path: Path, qwen: Path, dataset: Path) -> None:
    first, second = FolderOutput(tmp_path / "first"), FolderOutput(tmp_path / "second")
    inputs = {"model": qwen, "dataset": dataset}
    sft.run(StageCall(sft_params(max_steps=8), sft.SftOptions(**OPTIONS), inputs, first, RecordingProgress()))
    progress = RecordingProgress()
    by_hand = {**inputs, "resume": first.root / "training/checkpoint-4"}
    sft.run(StageCall(sft_params(max_steps=8), sft.SftOptions(**OPTIONS), by_hand, second, progress))
    assert progress.notes[0] == "resuming from checkpoint-4"
    assert sorted(losses(second.root)) == [5, 6, 7, 8]
    assert losses(second.root) == pytest.approx(
        {step: loss for step, loss in losses(first.root).items() if step > 4}, rel=1e-3
    )


def test_another_training_in_the_same_folder_is_refused(tmp_path: Path, qwen: Path, dataset: Path) -> None:
    output, inputs = FolderOutput(tmp_path / "sft"), {"model": qwen, "dataset": dataset}
    sft.run(StageCall(sft_params(max_steps=4), sft.SftOptions(**OPTIONS), inputs, output, RecordingProgress()))
    before = (output.root / "training_summary.json").read_bytes()
    with pytest.raises(ConfigError, match=r"different learning_rate \(0.01, not 0.02\)"):
        sft.run(
            StageCall(
                sft_params(max_steps=4, learning_rate=0.02),
                sft.SftOptions(**OPTIONS),
                inputs,
                output,
                RecordingProgress(),
            )
        )
    assert (output.root / "training_summary.json").read_bytes() == before


def test_grpo_resumes_after_a_kill(tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.Training._tell

    def kill_after_three(self: trainer.Training, log: Path, at: int) -> int:
        read = real(self, log, at)
        if self.seen >= 3 and not killed:
            killed.append(os.getpid())
            for entry in Path("/proc").iterdir():
                if (
                    entry.name.isdigit()
                    and (entry / "stat").exists()
                    and (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
                ):
                    words = (entry / "cmdline").read_text()
                    if "vasevqa.training.swift.worker" in words:
                        os.kill(int(entry.name), signal.SIGKILL)
        return read

    killed: list[int] = []
    monkeypatch.setattr(trainer.Training, "_tell", kill_after_three)
    output, inputs = FolderOutput(tmp_path / "grpo"), {"model": qwen, "dataset": dataset}
    params = grpo_params(max_steps=6, save_steps=2, max_completion_length=4)
    with pytest.raises(Interrupted, match="SIGKILL"):
        grpo.run(StageCall(params, grpo.GrpoOptions(**OPTIONS), inputs, output, RecordingProgress()))
    progress = RecordingProgress()
    grpo.run(StageCall(params, grpo.GrpoOptions(**OPTIONS), inputs, output, progress))
    summary = json.loads((output.root / "training_summary.json").read_text())
    assert progress.notes[0] == f"resuming from checkpoint-{summary['attempts'][0]['from_step']}"
    assert summary["attempts"][0]["from_step"] in (2, 4)
    assert sorted(losses(output.root)) == [1, 2, 3, 4, 5, 6]


def test_smaller_batches_keep_the_global_batch_size() -> None:
    for batch, accumulation, processes in ((8, 2, 1), (4, 4, 2), (6, 1, 3), (1, 16, 4)):
        for rung in trainer.rungs(batch, accumulation, processes, False):
            assert rung.batch_size * rung.accumulation * processes == batch * accumulation
    ladder = trainer.rungs(8, 1, 1, False)
    assert [(rung.batch_size, rung.gradient_checkpointing) for rung in ladder] == [
        (8, False),
        (8, True),
        (4, True),
        (2, True),
        (1, True),
    ]
    with pytest.raises(Exception, match="can't share"):
        trainer.rungs(1, 3, 2, True)
