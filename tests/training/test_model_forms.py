"""Every stage that reads a model refuses an unsupported format, an incomplete model, and files that don't match."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.training.adapters import CONFIG, TARGET
from tests.training.adapters import run as merge_run
from tests.training.conftest import grpo_call, sft_call
from vasevqa import models
from vasevqa.backends.checks import BAD
from vasevqa.errors import ConfigError, DataError, VaseError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.doctor import VolumeQuestion, volume_findings
from vasevqa.stages import grpo, sft


@pytest.fixture
def model(tmp_path: Path, qwen: Path) -> Path:
    shutil.copytree(qwen, tmp_path / "model")
    return tmp_path / "model"


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def split_in_shards(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 38000000\n")


def pickle_weights(model: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def only(model: Path, files: dict[str, str]) -> None:
    shutil.rmtree(model)
    for name, text in files.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(text)


def in_eight_bits(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in sorted(tensors) if name.endswith("q_proj.weight"))
    save_file({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, model / "model.safetensors")


AWQ = {"quant_method": "awq", "bits": 4}
BNB = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FOREIGN_MODELS: dict[str, tuple[Callable[[Path], object], type[VaseError], str]] = {
    "AWQ": (lambda model: change(model / "config.json", quantization_config=AWQ), ConfigError, "quantized by awq"),
    "bitsandbytes in an inner configuration": (
        lambda model: change(model / "config.json", text_config={"quantization_config": BNB}),
        ConfigError,
        "quantized by bitsandbytes.* give the original model",
    ),
    "GPTQ of an old kind": (lambda model: (model / "quantize_config.json").write_text("{}"), ConfigError, "by gptq"),
    "eight bits that no file names": (in_eight_bits, ConfigError, r"q_proj\.weight is F8_E4M3"),
    "pickled weights": (pickle_weights, DataError, "pickled weights only.*AutoModelForImageTextToText"),
    "GGUF": (
        lambda model: (model / "model.safetensors").rename(model / "m.gguf"),
        ConfigError,
        "GGUF weights.*give the Hugging Face folder",
    ),
    "a pointer of git-lfs": (lambda model: pointer(model / "tokenizer.json"), DataError, "run `git lfs pull`"),
    "no chat template": (lambda model: (model / "chat_template.jinja").unlink(), DataError, "no chat template"),
    "an adapter": (
        lambda model: only(model, {"adapter_config.json": '{"base_model_name_or_path": "Qwen/A"}'}),
        ConfigError,
        "LoRA adapter of Qwen/A.*run `merge` with --adapters",
    ),
    "a training": (lambda model: only(model, {"training_summary.json": "{}"}), ConfigError, "run `merge`"),
    "Megatron": (
        lambda model: only(model, {"latest_checkpointed_iteration.txt": "1"}),
        ConfigError,
        "run `to-megatron` with --to-hf",
    ),
    "a cache of the hub": (
        lambda model: only(model, {"snapshots/abc/config.json": "{}"}),
        ConfigError,
        "give the folder of one revision, such as .*snapshots/abc",
    ),
    "the folder above": (lambda model: only(model, {"qwen/config.json": "{}"}), ConfigError, r"give .*/qwen\."),
    "an unfinished download": (
        lambda model: only(model, {"config.json": "{}", ".cache/huggingface/download/a.incomplete": ""}),
        DataError,
        "did not finish.*run the same download again",
    ),
    "CLIP": (
        lambda model: change(model / "config.json", model_type="clip"),
        ConfigError,
        "and give .* as clip_model",
    ),
    "a text model": (
        lambda model: (model / "config.json").write_text(
            '{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}'
        ),
        ConfigError,
        "without vision .Qwen2ForCausalLM",
    ),
    "code of its own": (
        lambda model: change(model / "config.json", model_type="internvl_chat", auto_map={"AutoConfig": "a.B"}),
        ConfigError,
        "code from the model's folder, which is never run",
    ),
    "a newer type": (
        lambda model: change(model / "config.json", model_type="qwen9_vl"),
        ConfigError,
        "needs a newer version of transformers than",
    ),
}


@pytest.mark.parametrize("what", FOREIGN_MODELS)
def test_a_model_in_an_unsupported_format_is_refused_with_a_remedy(what: str, model: Path) -> None:
    spoil, kind, message = FOREIGN_MODELS[what]
    spoil(model)
    with pytest.raises(kind, match=message):
        models.check_model(model)


@pytest.mark.parametrize("value", [None, {}])
def test_an_empty_quantization_setting_is_no_quantization(
    value: object, tmp_path: Path, model: Path, plain: Path
) -> None:
    change(model / "config.json", quantization_config=value)
    merge_run(model, plain, tmp_path / "merged")
    assert (tmp_path / "merged/model.safetensors").is_file()


def test_the_error_about_a_quantized_model_names_the_original_model(tmp_path: Path, model: Path) -> None:
    change(model / "config.json", quantization_config=AWQ)
    for name in ("Qwen2.5-VL-7B-Instruct-AWQ", "Qwen2.5-VL-7B-Instruct-GPTQ-Int4", "Qwen2.5-VL-7B-Instruct-bnb-4bit"):
        with pytest.raises(ConfigError, match=r"such as Qwen2\.5-VL-7B-Instruct\."):
            models.check_model(model.rename(tmp_path / name))
        model = tmp_path / name


def index(model: Path, weight_map: Any) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def header(model: Path, changes: dict[str, Any] | None) -> None:
    entry = changes if changes is None else {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}
    text = json.dumps({"a": entry}).encode()
    (model / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))


BROKEN_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (lambda model: (model / "config.json").unlink(), r"no config\.json"),
    "broken configuration": (lambda model: (model / "config.json").write_text("{"), "not valid JSON"),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "holds no weights"),
    "weights cut short": (lambda model: shorten(model / "model.safetensors"), "not a complete safetensors file"),
    "a missing shard": (split_in_shards, "lacks 1 of its 2 weight files"),
    "an index that is a list": (lambda model: index(model, ["model.safetensors"]), "weight_map is not a mapping"),
    "an index without files": (lambda model: index(model, {}), "weight_map is not a mapping"),
    "an index of numbers": (lambda model: index(model, {"a": 1}), "weight_map is not a mapping"),
    "weights without a type": (lambda model: header(model, {"dtype": None}), "its header has an invalid entry for a"),
    "weights without a shape": (lambda model: header(model, {"shape": ["x"]}), "its header has an invalid entry for a"),
    "weights that are a list": (lambda model: header(model, None), "not a complete safetensors file"),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "no tokenizer"),
    "no image processor": (lambda model: (model / "processor_config.json").unlink(), "no image processor"),
}


@pytest.mark.parametrize("what", BROKEN_MODELS)
def test_an_incomplete_model_is_refused(what: str, tmp_path: Path, model: Path, dataset: Path) -> None:
    spoil, message = BROKEN_MODELS[what]
    spoil(model)
    with pytest.raises((ConfigError, DataError), match=message):
        sft.run(sft_call({"model": model, "dataset": dataset}, tmp_path / "out"))
    assert not (tmp_path / "out/training_summary.json").exists()


def without(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def add(folder: Path, name: str, tensor: Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: tensor}, folder / "model.safetensors", metadata={"format": "pt"})


def deeper(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))


def nonsense(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_size"] = "wide"
    (folder / "config.json").write_text(json.dumps(config))


ASSEMBLED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a missing tensor": (
        lambda folder: without(folder, TARGET),
        r": model\.language_model\.layers\.1\.self_attn\.k_proj\.weight is missing; copy",
    ),
    "an unknown tensor": (
        lambda folder: add(folder, "model.extra.weight", torch.zeros(2)),
        "is not part of such a model; copy",
    ),
    "a tensor of another shape": (
        lambda folder: add(folder, TARGET, torch.zeros(32, 64)),
        r"k_proj\.weight has the shape \[32, 64\] instead of \[64, 64\]",
    ),
    "the configuration of a deeper model": (deeper, r"is missing \(and 11 more\)"),
    "a configuration of nonsense": (nonsense, "hidden_size is 'wide'"),
    "an adapter beside the weights": (
        lambda folder: (folder / CONFIG).write_text('{"base_model_name_or_path": "x"}'),
        "holds an adapter",
    ),
    "weights in two forms": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "model.safetensors"}}'
        ),
        "move one of the two files",
    ),
}


@pytest.mark.parametrize("what", ASSEMBLED)
def test_every_stage_checks_a_model_whose_files_do_not_match(
    what: str, tmp_path: Path, qwen: Path, model: Path, plain: Path, dataset: Path
) -> None:
    """transformers would initialise missing weights at random and continue."""
    spoil, said = ASSEMBLED[what]
    spoil(model)
    with pytest.raises(DataError, match=said):
        merge_run(model, plain, tmp_path / "merged")
    with pytest.raises(DataError, match=said):
        merge_run(qwen, model, tmp_path / "passed")
    inputs = {"model": model, "dataset": dataset}
    with pytest.raises(DataError, match=said):
        sft.run(sft_call(inputs, tmp_path / "sft"))
    with pytest.raises(DataError, match=said):
        grpo.run(grpo_call(inputs, tmp_path / "grpo"))


def test_doctor_reports_a_clip_model_in_an_unsupported_format(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "clip/pytorch_model.bin").write_bytes(b"PK")
    question = VolumeQuestion(inputs={"clip_model": "clip"}, models=["clip_model"], copies={})
    found = next(
        finding for finding in volume_findings(PIPELINE, tmp_path, question) if finding.what == "input clip_model"
    )
    assert (found.state, found.code) == (BAD, 3)
    assert "CLIPModel" in found.text
