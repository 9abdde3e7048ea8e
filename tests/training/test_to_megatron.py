"""to-megatron without CUDA: the real ms-swift, Megatron and bridge, and a stand-in for transformer-engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.errors import ConfigError, DataError, GateError
from vasevqa.runtime.command import command
from vasevqa.spec import StageCall
from vasevqa.stages import to_megatron
from vasevqa.training import export


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate CUDA and transformer-engine."""
    monkeypatch.setattr(export, "check_machine", lambda: None)
    monkeypatch.setattr(export, "CHILD", "tests.training.megatron_standin_child")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, qwen: Path) -> Path:
    """The tiny Qwen in bfloat16, the type of real models."""
    folder = tmp_path_factory.mktemp("models") / "half"
    shutil.copytree(qwen, folder)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    return folder


def run(output: Path, **inputs: Path) -> dict[str, Any]:
    to_megatron.run(
        StageCall(
            to_megatron.ConversionParams(),
            to_megatron.ConversionOptions(device="cpu"),
            inputs,
            FolderOutput(output),
            RecordingProgress(),
        ),
    )
    found: dict[str, Any] = json.loads((output / "conversion_report.json").read_text())
    return found


@pytest.mark.usefixtures("standin")
def test_a_conversion_and_its_reverse_are_bit_exact(tmp_path: Path, half: Path) -> None:
    there = run(tmp_path / "mcore", model=half)
    assert there["passed"]
    assert there["mean_difference"] < 1e-3
    assert there["max_difference"] < 1e-2
    assert (there["tokens_that_differ"], there["agreement"]) == (0, 1)
    assert (tmp_path / "mcore/latest_checkpointed_iteration.txt").is_file()
    assert list((tmp_path / "mcore/iter_0000001").glob("*.distcp"))
    back = run(tmp_path / "back", model=half, mcore=tmp_path / "mcore")
    assert back["tensors_identical"] == back["tensors"] > 50
    before = load_file(half / "model.safetensors")
    after = {
        name: tensor
        for file in (tmp_path / "back").glob("model*.safetensors")
        for name, tensor in load_file(file).items()
    }
    assert set(before) <= set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("standin")
def test_a_changed_weight_is_detected(tmp_path: Path, half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMPER", "1")
    with pytest.raises(GateError, match="answers differently"):
        run(tmp_path / "mcore", model=half)
    report = json.loads((tmp_path / "mcore/conversion_report.json").read_text())
    assert report["agreement"] < 0.5
    assert report["max_difference"] > 1
    assert not list((tmp_path / "mcore").rglob("*.distcp"))


@pytest.mark.usefixtures("standin")
def test_a_folder_without_a_megatron_checkpoint_is_refused(tmp_path: Path, half: Path) -> None:
    with pytest.raises(DataError, match="is not a Megatron checkpoint"):
        run(tmp_path / "back", model=half, mcore=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_the_conversion_ends_before_loading(tmp_path: Path, half: Path) -> None:
    result = CliRunner().invoke(command(to_megatron.STAGE), ["--model", str(half), "--output-dir", str(tmp_path / "o")])
    assert result.exit_code == 5
    assert "needs CUDA, but this machine has none" in result.output
    assert "Traceback" not in result.output


def test_without_transformer_engine_the_conversion_ends_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="the package transformer_engine, which is not installed"):
        export.check_machine()
