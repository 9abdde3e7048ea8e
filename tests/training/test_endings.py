"""How a process with ms-swift ended reaches the stage: the class of the error, and its sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vasevqa import errors
from vasevqa.dataset.row_checks import CheckedRows
from vasevqa.errors import HostMemoryError, Interrupted, TransientStorageError, VaseError
from vasevqa.training import export, trained_rows, trainer
from vasevqa.training.params import ConversionOptions
from vasevqa.training.swift.messages import TrainingTask, WorkerResult, ended, result_of

CHILD = "tests.training.failing_child"
ENDINGS: list[tuple[str, type[VaseError], str]] = [
    ("storage", TransientStorageError, r"/volume/x: .*\(ESTALE\)"),
    ("told storage", TransientStorageError, r"^Could not read /volume/x: the storage is ill \(ESTALE\)\.$"),
    ("memory", HostMemoryError, "memory does not suffice"),
    ("stopped", Interrupted, "was stopped before .*; run the same command again to resume"),
    ("killed", Interrupted, "was killed by SIGKILL; run the same command again to resume"),
]


@pytest.mark.parametrize(
    "kind",
    [
        errors.ConfigError,
        errors.DataError,
        errors.DeviceError,
        errors.GateError,
        errors.GpuMemoryError,
        HostMemoryError,
        errors.StorageError,
        Interrupted,
        TransientStorageError,
    ],
)
def test_the_class_and_the_sentence_survive_the_file(tmp_path: Path, kind: type[VaseError]) -> None:
    task = tmp_path / "spec.json"
    WorkerResult.of(kind("It failed.")).write(result_of(task))
    raised = ended(task, kind.exit_code, "The training").raised()
    assert (type(raised), str(raised)) == (kind, "It failed.")


def test_a_success_and_a_bug_are_no_error(tmp_path: Path) -> None:
    assert ended(tmp_path / "spec.json", 0, "The training") == WorkerResult(0)
    bug = ended(tmp_path / "spec.json", 1, "The training")
    assert (bug.exit_code, bug.raised()) == (1, None)
    assert "exit code 1" in bug.message


@pytest.mark.parametrize(("ending", "kind", "said"), ENDINGS)
def test_the_stage_gets_the_error_of_the_process_that_counts_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, kind: type[VaseError], said: str
) -> None:
    monkeypatch.setattr(trained_rows, "CHILD", CHILD)
    environ = {**os.environ, "WORKER": "lengths", "ENDING": ending}
    rows = CheckedRows(tmp_path / "sft.jsonl", [1], [])
    reading = trained_rows.Reading("sft", [], environ, tmp_path, tmp_path)
    with pytest.raises(kind, match=said) as caught:
        trained_rows._count([rows], reading, lambda: None)
    assert type(caught.value) is kind


@pytest.mark.parametrize(("ending", "kind", "said"), ENDINGS)
def test_the_stage_gets_the_error_of_the_process_that_converts(
    monkeypatch: pytest.MonkeyPatch, ending: str, kind: type[VaseError], said: str
) -> None:
    monkeypatch.setattr(export, "CHILD", CHILD)
    monkeypatch.setenv("WORKER", "megatron_worker")
    monkeypatch.setenv("ENDING", ending)
    with pytest.raises(kind, match=said) as caught:
        export._child(["--model", "/m"], ConversionOptions(device="cpu"))
    assert type(caught.value) is kind


@pytest.mark.parametrize(("ending", "kind", "said"), ENDINGS)
def test_the_stage_gets_the_error_of_the_process_that_trains(
    tmp_path: Path, ending: str, kind: type[VaseError], said: str
) -> None:
    spec = tmp_path / "spec.json"
    TrainingTask("sft", []).write(spec)
    environ = {**os.environ, "WORKER": "worker", "ENDING": ending}
    code = subprocess.run([sys.executable, "-m", CHILD, str(spec)], env=environ, check=False).returncode
    stage = cast(trainer.Training, cast(Any, SimpleNamespace(folder=tmp_path)))
    with pytest.raises(kind, match=said) as caught:
        trainer.Training._fail(stage, ended(spec, code, "The training"))
    assert type(caught.value) is kind
