"""What is found before minutes of loading: models, rows, GPUs, disks, arguments."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scripts import list_swift_arguments
from tests.fakes import FolderOutput, RecordingProgress
from tests.training.conftest import OPTIONS, grpo_params, sft_params, write_rows
from vasevqa import models
from vasevqa.errors import ConfigError, DataError, DeviceError, GpuMemoryError, StorageError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.runtime.command import command
from vasevqa.spec import StageCall
from vasevqa.stages import grpo, merge, sft
from vasevqa.training import checkpoints, estimate, extra_args
from vasevqa.training.swift import arguments as swift
from vasevqa.training.swift import environment, worker


@pytest.fixture
def model(tmp_path: Path, qwen: Path) -> Path:
    shutil.copytree(qwen, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def rows(tmp_path: Path, dataset: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "rows")
    return tmp_path / "rows"


def attempt(tmp_path: Path, model: Path, rows: Path, **options: Any) -> None:
    sft.run(
        StageCall(
            sft_params(),
            sft.SftOptions(**{**OPTIONS, **options}),
            {"model": model, "dataset": rows},
            FolderOutput(tmp_path / "out"),
            RecordingProgress(),
        ),
    )


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def split_in_shards(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


BROKEN_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (lambda model: (model / "config.json").unlink(), r"no config\.json"),
    "broken configuration": (lambda model: (model / "config.json").write_text("{"), "not valid JSON"),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "holds no weights"),
    "weights cut short": (lambda model: shorten(model / "model.safetensors"), "no complete safetensors file"),
    "a missing shard": (split_in_shards, "lacks 1 of its 2 shards"),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "no tokenizer"),
    "no image processor": (lambda model: (model / "processor_config.json").unlink(), "no image processor"),
}


@pytest.mark.parametrize("what", BROKEN_MODELS)
def test_an_incomplete_model(what: str, tmp_path: Path, model: Path, rows: Path) -> None:
    spoil, message = BROKEN_MODELS[what]
    spoil(model)
    with pytest.raises((ConfigError, DataError), match=message):
        attempt(tmp_path, model, rows)
    assert not (tmp_path / "out/training_summary.json").exists()


BROKEN_ROWS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda rows: (rows / "sft.jsonl").unlink(), r"no sft\.jsonl"),
    "no rows": (lambda rows: (rows / "sft.jsonl").write_text("\n"), "holds no rows"),
    "broken JSON": (lambda rows: (rows / "sft.jsonl").open("a").write('{"messages": ['), "line 13 is not valid JSON"),
    "a caption row": (
        lambda rows: write_rows(rows / "sft.jsonl", [{"images": ["images/00.jpg"], "caption": "x"}]),
        "would drop it",
    ),
    "a missing image": (lambda rows: (rows / "images/03.jpg").unlink(), r"line 4 names the image images/03\.jpg"),
    "broken validation rows": (lambda rows: (rows / "val.jsonl").write_text("[]\n"), r"val\.jsonl, line 1"),
}


@pytest.mark.parametrize("what", BROKEN_ROWS)
def test_an_unreadable_dataset(what: str, tmp_path: Path, qwen: Path, rows: Path) -> None:
    spoil, message = BROKEN_ROWS[what]
    spoil(rows)
    with pytest.raises(DataError, match=message):
        attempt(tmp_path, qwen, rows)


def test_a_reward_needs_solutions(tmp_path: Path, qwen: Path, rows: Path) -> None:
    write_rows(
        rows / "grpo.jsonl", [{"messages": [{"role": "user", "content": "<image>?"}], "images": ["images/00.jpg"]}]
    )
    with pytest.raises(DataError, match="has no 'solution'"):
        grpo.run(
            StageCall(
                grpo_params(),
                grpo.GrpoOptions(**OPTIONS),
                {"model": qwen, "dataset": rows},
                FolderOutput(tmp_path / "out"),
                RecordingProgress(),
            ),
        )


def test_a_device_that_is_not_there(tmp_path: Path, qwen: Path, rows: Path) -> None:
    with pytest.raises(DeviceError, match="cuda:7"):
        attempt(tmp_path, qwen, rows, device="cuda:7")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_without_a_gpu_training_is_in_float32(dtype: str, tmp_path: Path, qwen: Path, rows: Path) -> None:
    given = {"model": qwen, "dataset": rows}
    with pytest.raises(ConfigError, match="set torch_dtype to float32"):
        sft.run(
            StageCall(
                sft_params(torch_dtype=dtype),
                sft.SftOptions(**{**OPTIONS, "device": "cpu"}),
                given,
                FolderOutput(tmp_path / "out"),
                RecordingProgress(),
            ),
        )


def test_a_disk_too_small_for_the_checkpoints(
    tmp_path: Path, qwen: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vasevqa.files.free_bytes", lambda folder: 30_000_000)
    with pytest.raises(StorageError, match=r"5 checkpoints need 0\.1 GB"):
        attempt(tmp_path, qwen, rows)


def test_a_gpu_too_small_is_found_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * 10**9, 16 * 10**9))
    with pytest.raises(GpuMemoryError, match="about 24 GB of GPU memory, and 10 of 16 GB are free"):
        worker._check_memory(24 * 10**9)
    worker._check_memory(9 * 10**9)


def test_the_estimate_agrees_with_what_the_7b_model_is_known_to_need() -> None:
    """Qwen2.5-VL-7B: 8.3e9 parameters; the original asks for 24 GB in SFT and 32 GB in GRPO."""
    linear = 28 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    shape = models.Model(8_292_166_656, linear, 3584, 28, 152064, 18944)
    sft_bytes = estimate.gpu_bytes(shape, sft.SftParams(), 1, True)
    assert 18e9 < sft_bytes < 30e9
    assert estimate.gpu_bytes(shape, sft.SftParams(), 2, True) > sft_bytes
    assert estimate.gpu_bytes(shape, sft.SftParams(tuner_type="full"), 1, True) > 80e9
    assert 18e9 < estimate.gpu_bytes(shape, grpo.GrpoParams(), 1, True) < 32e9


def test_the_list_of_arguments_is_ms_swifts() -> None:
    assert extra_args.NAMES.read_text() == list_swift_arguments.installed()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"weight_dekay": 0.1}', "did you mean 'weight_decay'"),
        ('["--max_grad_norn", "1"]', "did you mean 'max_grad_norm'"),
        ('{"lora_rank": 4}', "a parameter of its own"),
        ('{"output_dir": "/elsewhere"}', "the step itself"),
        ('{"push_to_hub": true}', "writes to the volume only"),
        ("[1, 2]", "comes before any --argument"),
    ],
)
def test_a_wrong_extra_argument(given: str, said: str, tmp_path: Path, qwen: Path, dataset: Path) -> None:
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


def test_a_wrong_extra_argument_is_found_in_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("steps:\n  sft:\n    extra_args: {weight_dekay: 0.1}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml, line 3: sft.extra_args: .*did you mean 'weight_decay'"):
        load_recipe(tmp_path / "recipe.yaml", PIPELINE)


def test_right_extra_arguments_reach_ms_swift(tmp_path: Path) -> None:
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


def test_only_parameters_decide_about_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def test_processes_follow_the_steps_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

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
    with pytest.raises(DeviceError, match="asks for 16 GPUs and there are 8"):
        environment.processes(options)
    with pytest.raises(DeviceError, match="nproc_per_node is 9"):
        environment.processes(sft.SftOptions(nproc_per_node=9))


def test_the_system_prompt_is_the_files_text(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("You know vases.\nAnswer shortly.\n")
    places = swift.TrainingPaths(tmp_path, tmp_path / "rows.jsonl", tmp_path / "out", system=tmp_path / "prompt.md")
    words = swift.grpo(grpo_params(), grpo.GrpoOptions(), places, swift.BatchPlan(8, 1, True))
    assert words[words.index("--system") + 1] == "You know vases.\nAnswer shortly."
    assert (
        not {word.removeprefix("--") for word in words if word.startswith("--")} - extra_args.known_arguments()["rlhf"]
    )


def test_groups_and_weights_of_grpo_must_fit() -> None:
    with pytest.raises(ValueError, match="whole groups"):
        grpo.GrpoParams(batch_size=3, gradient_accumulation_steps=1)
    with pytest.raises(ValueError, match="one number for each"):
        grpo.GrpoParams(reward_weights=[1.0])
    with pytest.raises(ValueError, match="flash attention"):
        sft.SftParams(packing=True)


def test_which_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no checkpoint"):
        checkpoints.choose(tmp_path, "last")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"12345678901")
    progress = RecordingProgress()
    with pytest.raises(DataError, match="no complete safetensors file"):
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


def test_last_best_or_a_step(tmp_path: Path) -> None:
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
    with pytest.raises(ConfigError, match="no checkpoint of step 15; there are 10, 20, 30"):
        checkpoints.choose(tmp_path / "sft", "15")
