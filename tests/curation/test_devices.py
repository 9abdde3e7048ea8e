"""A missing device is an error. Another device is never used instead."""

from __future__ import annotations

import pytest
import torch

from vasevqa.curation.devices import resolve_device
from vasevqa.errors import ConfigError, DeviceError


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_cpu_and_auto_select_the_cpu_without_cuda() -> None:
    assert resolve_device("cpu").type == resolve_device("auto").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_missing_gpu_ends_with_exit_code_5(name: str) -> None:
    with pytest.raises(DeviceError) as error:
        resolve_device(name)
    assert error.value.exit_code == 5
    assert name in str(error.value)


def test_auto_without_cuda_on_a_step_with_gpus_ends_with_exit_code_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASEVQA_GPUS", "1")
    with pytest.raises(DeviceError):
        resolve_device("auto")
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "mps:0", "cuda:-1"])
def test_unknown_names_are_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError):
        resolve_device(name)
