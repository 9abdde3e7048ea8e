"""Checks before the slow loading of a model: rows, GPUs, disks, arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from scripts import list_swift_arguments
from tests.training.conftest import OPTIONS, grpo_params, sft_call, sft_params, write_rows
from vasevqa import models
from vasevqa.errors import ConfigError, DataError, DeviceError, GpuMemoryError, StorageError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.runtime.command import command
from vasevqa.stages import grpo, sft
from vasevqa.training import estimate, extra_args
from vasevqa.training.swift import arguments as swift
from vasevqa.training.swift import environment, worker

BROKEN_ROWS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda rows: (rows / "sft.jsonl").unlink(), r"no sft\.jsonl"),
    "no rows": (lambda rows: (rows / "sft.jsonl").write_text("\n"), "holds no rows"),
    "broken JSON": (lambda rows: (rows / "sft.jsonl").open("a").write('{"messages": ['), "line 13 is not valid JSON"),
    "a caption row": (
        lambda rows: write_rows(rows / "sft.jsonl", [{"images": ["images/00.jpg"], "caption": "x"}]),
        "would drop the row",
    ),
    "a missing image": (lambda rows: (rows / "images/03.jpg").unlink(), r"line 4 names the image images/03\.jpg"),
    "broken validation rows": (lambda rows: (rows / "val.jsonl").write_text("[]\n"), r"val\.jsonl, line 1"),
}


@pytest.mark.parametrize("what", BROKEN_ROWS)
def test_an_unreadable_dataset_is_reported(what: str, tmp_path: Path, qwen: Path, rows: Path) -> None:
    spoil, message = BROKEN_ROWS[what]
    spoil(rows)
    with pytest.raises(DataError, match=message):
        sft.run(sft_call({"model": qwen, "dataset": rows}, tmp_path / "out"))


def test_a_missing_device_is_reported(tmp_path: Path, qwen: Path, rows: Path) -> None:
    with pytest.raises(DeviceError, match="cuda:7"):
        sft.run(sft_call({"model": qwen, "dataset": rows}, tmp_path / "out", {"device": "cuda:7"}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_without_a_gpu_training_is_in_float32(dtype: str, tmp_path: Path, qwen: Path, rows: Path) -> None:
    with pytest.raises(ConfigError, match="set torch_dtype to float32"):
        sft.run(sft_call({"model": qwen, "dataset": rows}, tmp_path / "out", torch_dtype=dtype))


def test_a_disk_that_is_too_small_for_the_checkpoints_is_reported(
    tmp_path: Path, qwen: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vasevqa.files.free_bytes", lambda folder: 30_000_000)
    with pytest.raises(StorageError, match=r"5 checkpoints need 0\.1 GB"):
        sft.run(sft_call({"model": qwen, "dataset": rows}, tmp_path / "out"))


def test_a_gpu_that_is_too_small_is_reported_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * 10**9, 16 * 10**9))
    with pytest.raises(GpuMemoryError, match="about 24 GB of GPU memory, but 10 of 16 GB are free"):
        worker._check_memory(24 * 10**9)
    worker._check_memory(9 * 10**9)


def test_the_estimate_agrees_with_the_known_memory_of_the_7b_model() -> None:
    """Qwen2.5-VL-7B has 8.3e9 parameters. The original project requests 24 GB for SFT and 32 GB for GRPO."""
    linear = 28 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    shape = models.Model(8_292_166_656, linear, 3584, 28, 152064, 18944)
    sft_bytes = estimate.gpu_bytes(shape, sft.SftParams(), 1, True)
    assert 18e9 < sft_bytes < 30e9
    assert estimate.gpu_bytes(shape, sft.SftParams(), 2, True) > sft_bytes
    assert estimate.gpu_bytes(shape, sft.SftParams(tuner_type="full"), 1, True) > 80e9
    assert 18e9 < estimate.gpu_bytes(shape, grpo.GrpoParams(), 1, True) < 32e9


def test_the_list_of_arguments_is_the_list_of_ms_swift() -> None:
    assert extra_args.NAMES.read_text() == list_swift_arguments.installed()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"weight_dekay": 0.1}', "did you mean 'weight_decay'"),
        ('["--max_grad_norn", "1"]', "did you mean 'max_grad_norm'"),
        ('{"lora_rank": 4}', "set the parameter `lora_rank` of the step instead"),
        ('{"output_dir": "/elsewhere"}', "the step itself"),
        ('{"push_to_hub": true}', "writes only to the volume"),
        ("[1, 2]", "there is no --argument before the value"),
    ],
)
def test_a_wrong_extra_argument_is_refused(given: str, said: str, tmp_path: Path, qwen: Path, dataset: Path) -> None:
    words = [
        "--model",
        str(qwen),
        "--dataset-dir",
        str(dataset),
        "--output-dir",
        str(tmp_path / "o"),
        "--extra-args",
        given,
    ]
    result = CliRunner().invoke(command(sft.STAGE), words)
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "o").exists()


def test_a_wrong_extra_argument_in_the_recipe_is_reported_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("steps:\n  sft:\n    extra_args: {weight_dekay: 0.1}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml, line 3: sft.extra_args: .*did you mean 'weight_decay'"):
        load_recipe(tmp_path / "recipe.yaml", PIPELINE)


def test_valid_extra_arguments_reach_ms_swift(tmp_path: Path) -> None:
    paths = swift.TrainingPaths(tmp_path, tmp_path / "rows.jsonl", tmp_path / "out")
    params, options = sft_params(extra_args={"weight_decay": 0.01}), sft.SftOptions(**OPTIONS)
    words = swift.sft(params, options, paths, swift.BatchPlan(2, 3, True))
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given["--weight_decay"] == "0.01"
    assert (
        given["--per_device_train_batch_size"],
        given["--gradient_accumulation_steps"],
        given["--gradient_checkpointing"],
    ) == ("2", "3", "true")
    assert (given["--fp16"], given["--bf16"], given["--eval_strategy"]) == ("false", "false", "no")
    unknown = {word.removeprefix("--") for word in words[::2]} - extra_args.known_arguments()["sft"]
    assert not unknown


def test_only_parameters_decide_the_size_of_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAX_PIXELS", "784")
    monkeypatch.setenv("IMAGE_MAX_TOKEN_NUM", "4")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    settings = environment.ChildSettings(tmp_path, "cpu", max_pixels=401408, volume=tmp_path / "volume")
    environ = environment.child(settings)
    assert environ["MAX_PIXELS"] == "401408"
    assert "IMAGE_MAX_TOKEN_NUM" not in environ
    assert environ["https_proxy"] == "http://proxy.example:3128"
    assert (environ["ROOT_IMAGE_DIR"], environ["CUDA_VISIBLE_DEVICES"]) == (str(tmp_path), "")
    assert environ["HF_HOME"].startswith(str(tmp_path / "volume")) or "HF_HOME" in __import__("os").environ


def test_the_number_of_processes_follows_the_gpus_of_the_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    options, two = sft.SftOptions(), environment.ChildSettings(tmp_path, gpus=2)
    assert environment.processes(options) == 8
    monkeypatch.setenv("VASEVQA_GPUS", "2")
    assert environment.processes(options) == 2
    assert environment.processes(sft.SftOptions(nproc_per_node=4)) == 4
    assert environment.processes(sft.SftOptions(cuda_visible_devices="5,6")) == 2
    assert environment.processes(sft.SftOptions(device="cuda:3", nproc_per_node=1)) == 1
    assert environment.child(two)["CUDA_VISIBLE_DEVICES"] == "0,1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,7")
    assert environment.child(two)["CUDA_VISIBLE_DEVICES"] == "3,4"
    monkeypatch.setenv("VASEVQA_GPUS", "16")
    with pytest.raises(DeviceError, match="asks for 16 GPUs, but there are 8"):
        environment.processes(options)
    with pytest.raises(DeviceError, match="nproc_per_node is 9"):
        environment.processes(sft.SftOptions(nproc_per_node=9))


def test_the_system_prompt_is_the_text_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("You know vases.\nAnswer shortly.\n")
    places = swift.TrainingPaths(tmp_path, tmp_path / "rows.jsonl", tmp_path / "out", system=tmp_path / "prompt.md")
    words = swift.grpo(grpo_params(), grpo.GrpoOptions(), places, swift.BatchPlan(8, 1, True))
    assert words[words.index("--system") + 1] == "You know vases.\nAnswer shortly."
    assert (
        not {word.removeprefix("--") for word in words if word.startswith("--")} - extra_args.known_arguments()["rlhf"]
    )


def test_groups_and_weights_of_grpo_must_match() -> None:
    with pytest.raises(ValueError, match="must be a multiple of num_generations"):
        grpo.GrpoParams(batch_size=3, gradient_accumulation_steps=1)
    with pytest.raises(ValueError, match="one number for each"):
        grpo.GrpoParams(reward_weights=[1.0, 0.5])
    with pytest.raises(ValueError, match="flash attention"):
        sft.SftParams(packing=True)
