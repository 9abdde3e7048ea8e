"""The adapters that merge refuses and the adapters that it merges. peft writes them for the tiny model."""

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

from tests.training.adapters import CONFIG, TARGET, TENSORS, make_adapter, run
from tests.training.conftest import sft_call
from vasevqa.errors import ConfigError, DataError, GateError, VaseError
from vasevqa.sample.tiny_qwen import make_tiny_qwen
from vasevqa.stages import sft
from vasevqa.training import adapter as adapters
from vasevqa.training import merge as merging
from vasevqa.training import merged


@pytest.fixture
def given(tmp_path: Path, plain: Path) -> Path:
    """A copy of the adapter, which a test may damage."""
    return Path(shutil.copytree(plain, tmp_path / "given"))


def rename(folder: Path, change: Callable[[str], str]) -> None:
    save_file({change(name): tensor for name, tensor in load_file(folder / TENSORS).items()}, folder / TENSORS)


def keep(folder: Path, wanted: Callable[[str], bool]) -> None:
    save_file({name: tensor for name, tensor in load_file(folder / TENSORS).items() if wanted(name)}, folder / TENSORS)


def configure(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def older(name: str) -> str:
    return name.replace(".model.language_model.layers.", ".model.layers.")


def weights(base: Path, merged: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return load_file(base / "model.safetensors"), load_file(merged / "model.safetensors")


SUFFIXES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("targets", [SUFFIXES, r"^(model(?=\.).*\.(q_proj|k_proj|v_proj|o_proj|.*_proj))$"])
def test_names_of_an_adapter_from_an_older_transformers_are_translated(
    targets: Any, tmp_path: Path, qwen: Path, given: Path
) -> None:
    """The weights equal those of the adapter with the present names. The frozen vision tower doesn't change."""
    tensors = load_file(given / TENSORS)
    rename(given, older)
    configure(given, target_modules=targets)
    report, progress = run(qwen, given, tmp_path / "merged")
    assert (report["passed"], report["weights"]["targets"], report["weights"]["changed"]) == (True, 14, 14)
    assert len(report["translated_names"]) == 28
    assert any("older versions of transformers" in note for note in progress.notes)
    assert "28 older names translated" in progress.summaries[-1][0]
    before, after = weights(qwen, tmp_path / "merged")
    for name in before:
        stem = "base_model.model." + name.replace("model.layers", "model.language_model.layers").removesuffix(".weight")
        expected = before[name]
        if f"{stem}.lora_A.weight" in tensors:
            expected = expected + 2 * tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
        torch.testing.assert_close(after[name], expected)
    assert not (tmp_path / "merged/.adapter").exists()


def nan(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    name = max(tensors)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, folder / TENSORS)


def truncate(folder: Path) -> None:
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-9])


def note_training(folder: Path, **noted: Any) -> None:
    (folder / "args.json").write_text(json.dumps({"lora_rank": 4, "lora_alpha": 8.0, **noted}))


def unlike(folder: Path) -> None:
    note_training(folder)
    configure(folder, lora_alpha=16)


def both_spellings(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    name = min(tensors)
    save_file({**tensors, older(name): tensors[name].clone()}, folder / TENSORS)


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "names that nobody knows": (
        lambda folder: rename(folder, lambda name: name.replace(".model.language_model.", ".model.text.")),
        r"tensors that neither tiny-qwen nor .* knows \(28, such as base_model\.model\.model\.text\.layers\.0\.",
    ),
    "another architecture": (
        lambda folder: rename(folder, lambda name: name.replace(".model.language_model.layers.", ".transformer.h.")),
        r"such as base_model\.model\.transformer\.h\.0",
    ),
    "half the layers": (
        lambda folder: keep(folder, lambda name: ".layers.0." in name),
        r"lacks 14 of the 28 tensors .*\.layers\.1\.",
    ),
    "one tensor less": (
        lambda folder: keep(folder, lambda name: "layers.1.self_attn.q_proj.lora_B" not in name),
        r"lacks 1 of the 28 tensors .*\.layers\.1\.self_attn\.q_proj\.lora_B\.weight",
    ),
    "a target without tensors": (
        lambda folder: keep(folder, lambda name: "v_proj" not in name),
        r"lacks 4 of the 28 tensors .*v_proj",
    ),
    "no tensors at all": (lambda folder: keep(folder, lambda name: False), "lacks 28 of the 28 tensors"),
    "a rank in quotes": (lambda folder: configure(folder, r="16"), "r is '16', not a number"),
    "no rank": (lambda folder: configure(folder, r=None), "r is None, not a number"),
    "an alpha in quotes": (lambda folder: configure(folder, lora_alpha="8"), "lora_alpha is '8', not a number"),
    "a rank_pattern of texts": (
        lambda folder: configure(folder, rank_pattern={"q_proj": "4"}),
        "rank_pattern of q_proj is '4', not a number",
    ),
    "a rank_pattern that is a list": (
        lambda folder: configure(folder, rank_pattern=["q_proj"]),
        "rank_pattern is not a mapping",
    ),
    "another rank": (lambda folder: configure(folder, r=8), "says rank 8, but .* has rank 4"),
    "alpha changed after the training": (unlike, r"says lora_alpha 16, but the adapter was trained with 8"),
    "numbers that are not finite": (nan, "not finite .*lora_B"),
    "a file cut short": (truncate, "not a complete safetensors file"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "holds no adapter_config.json"),
    "another kind of adapter": (lambda folder: configure(folder, peft_type="IA3"), "type IA3"),
    "biases that peft doesn't save": (lambda folder: configure(folder, bias="lora_only"), "bias: lora_only"),
    "PiSSA": (lambda folder: configure(folder, init_lora_weights="pissa"), "init_lora_weights: pissa"),
    "a whole model beside it": (
        lambda folder: save_file({}, folder / "model.safetensors"),
        "holds an adapter and a whole model",
    ),
    "two spellings of one name": (both_spellings, "two spellings of one name"),
    "targets that the base lacks": (
        lambda folder: configure(folder, target_modules=["c_attn"]),
        "doesn't fit its base model",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_an_adapter_that_would_be_partly_ignored_is_refused_with_the_reason(
    what: str, tmp_path: Path, qwen: Path, given: Path
) -> None:
    spoil, said = SPOILED[what]
    spoil(given)
    with pytest.raises(DataError, match=said):
        run(qwen, given, tmp_path / "merged")
    assert not (tmp_path / "merged/merge_report.json").exists()


def test_another_base_model_is_refused(tmp_path: Path, qwen: Path, given: Path) -> None:
    """One base has other sizes. Another base has the same sizes and other weights."""
    config = json.loads((qwen / CONFIG.replace("adapter_", "")).read_text())
    assert config["text_config"]["hidden_size"] == 64
    configure(given, r=4)
    tensors = load_file(given / TENSORS)
    name = next(name for name in tensors if "down_proj.lora_A" in name)
    save_file({**tensors, name: torch.zeros(4, 128)}, given / TENSORS)
    with pytest.raises(DataError, match=r"different base model .* has shape \[4, 128\] instead of \[4, 256\]"):
        run(qwen, given, tmp_path / "merged")
    save_file(tensors, given / TENSORS)
    make_tiny_qwen(tmp_path / "other", seed=5)
    note_training(given, model=str(qwen))
    with pytest.raises(ConfigError, match="was not trained on"):
        run(tmp_path / "other", given, tmp_path / "merged")
    run(Path(shutil.copytree(qwen, tmp_path / "same")), given, tmp_path / "merged")


def test_swapped_adapters_are_refused(tmp_path: Path, qwen: Path, plain: Path) -> None:
    """The merge after grpo gets the adapter of sft. The record of the training shows the mistake, even if its base was
    moved.
    """
    run(qwen, plain, tmp_path / "merged")
    checkpoint = tmp_path / "sft/training/checkpoint-4"
    shutil.copytree(plain, checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    from vasevqa import models

    noted = {"lora_alpha": 8.0, "model": "/gone", "weights_of_model": models.fingerprint(qwen)}
    (tmp_path / "sft/training_settings.json").write_text(json.dumps(noted))
    with pytest.raises(ConfigError, match=r"was not trained on .*, but on /gone"):
        run(tmp_path / "merged", checkpoint, tmp_path / "again")
    assert run(qwen, checkpoint, tmp_path / "once")[0]["passed"]


def test_a_zero_adapter_is_reported(tmp_path: Path, qwen: Path) -> None:
    zero = make_adapter(qwen, tmp_path / "zero", size=0.0)
    report, progress = run(qwen, zero, tmp_path / "merged")
    before, after = weights(qwen, tmp_path / "merged")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (report["weights"]["changed"], report["weights"]["zero"]) == (0, 14)
    assert "zero adapter: the merged model is its base" in progress.summaries[-1][0]


KINDS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "rslora, patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "biases": {"bias": "all"},
    "the vision tower too": {"target_modules": ["gate_proj", "qkv"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_lora_are_merged(kind: str, tmp_path: Path, qwen: Path) -> None:
    report, _ = run(qwen, make_adapter(qwen, tmp_path / "adapter", **KINDS[kind]), tmp_path / "merged")
    counted = report["weights"]
    assert report["passed"]
    assert counted["changed"] == counted["targets"] > 0
    assert bool(counted["replaced"]) == (kind == "biases")


def test_modules_to_save_with_tied_embeddings(tmp_path: Path, qwen: Path) -> None:
    """The tiny model ties lm_head to its embeddings. If both are saved, they become separate. If only one is saved, the
    model can't represent this.
    """
    both = make_adapter(qwen, tmp_path / "both", modules_to_save=["lm_head", "embed_tokens"])
    report, _ = run(qwen, both, tmp_path / "merged")
    assert report["weights"]["replaced"] == 2
    after = load_file(tmp_path / "merged/model.safetensors")
    saved = load_file(both / TENSORS)
    torch.testing.assert_close(after["lm_head.weight"], saved["base_model.model.lm_head.weight"])
    one = make_adapter(qwen, tmp_path / "one", modules_to_save=["lm_head"])
    with pytest.raises(DataError, match="both or neither in modules_to_save"):
        run(qwen, one, tmp_path / "merged-one")


WRONG_MERGES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], None]] = {
    "unchanged": lambda after, before: after.update(before),
    "one target left out": lambda after, before: after.update({TARGET: before[TARGET]}),
    "another scale": lambda after, before: after.update({TARGET: 2 * after[TARGET] - before[TARGET]}),
    "another tensor changed": lambda after, before: after.update({OTHER: before[OTHER] * 1.01}),
}
OTHER = "visual.blocks.0.norm1.weight"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_merge_is_detected_in_each_tensor(
    dtype: str, tmp_path: Path, qwen: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison of the answers would not detect the mistake, because the tolerances of this test accept all
    answers.
    """
    report, _ = run(qwen, plain, tmp_path / "right", torch_dtype=dtype, agreement=0)
    assert report["weights"]["changed"] == report["weights"]["targets"] == 14
    folder, file = tmp_path / "wrong", tmp_path / "right/model.safetensors"
    shutil.copytree(tmp_path / "right", folder)
    right = load_file(file)
    before = {name: tensor.to(right[name].dtype) for name, tensor in load_file(qwen / "model.safetensors").items()}
    read = adapters.read(plain, qwen)
    for what, spoil in WRONG_MERGES.items():
        tensors = dict(right)
        spoil(tensors, before)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        complaints = merged.compare(read, qwen, folder, getattr(torch, dtype)).complaints
        assert len(complaints) == (14 if what == "unchanged" else 1), what
        assert any((OTHER if "another tensor" in what else TARGET).split(".")[-2] in told for told in complaints), what

    monkeypatch.setattr(merging, "export", lambda base, adapter, target, dtype: shutil.copytree(folder, target))
    with pytest.raises(GateError, match=r"not the sum of base and adapter: .*visual\.blocks\.0\.norm1\.weight should"):
        run(qwen, plain, tmp_path / "refused", torch_dtype=dtype, agreement=0, tolerance=1000)
    assert not (tmp_path / "refused/model.safetensors").exists()


def test_a_training_from_an_adapter_checks_the_adapter(tmp_path: Path, qwen: Path, given: Path, dataset: Path) -> None:
    def start(error: type[VaseError], said: str, resume: Path | None = None, **params: Any) -> None:
        inputs = {"model": qwen, "dataset": dataset} | ({"resume": resume} if resume else {})
        with pytest.raises(error, match=said):
            sft.run(sft_call(inputs, tmp_path / "o", **params))

    right = {"lora_rank": 4, "lora_alpha": 8}
    start(ConfigError, "has lora_rank 4, not 16; set lora_rank to 4", given, lora_rank=16, lora_alpha=8)
    start(ConfigError, "has lora_alpha 8, not 9", extra_args={"adapters": [str(given)]}, lora_rank=4, lora_alpha=9)
    start(ConfigError, "holds no adapter_model", extra_args={"adapters": str(tmp_path)}, **right)
    start(ConfigError, "lora_bias: lora_only", extra_args={"lora_bias": "lora_only"})
    start(ConfigError, "name both, or neither", extra_args={"modules_to_save": ["all-embedding"]})
    rename(given, older)
    start(DataError, "merge the adapter first", given, **right)
    start(DataError, "merge the adapter first", extra_args={"adapters": str(given)}, **right)
    keep(given, lambda name: ".layers.0." in name)
    start(DataError, "lacks 14 of the 28", given, **right)


def test_the_scale_of_an_adapter_can_differ_per_module(tmp_path: Path, qwen: Path) -> None:
    folder = make_adapter(
        qwen, tmp_path / "a", use_rslora=True, rank_pattern={"q_proj": 9}, alpha_pattern={"v_proj": 3}
    )
    pairs = adapters.read(folder, qwen).pairs
    scales = {name.rpartition(".")[2]: pair.scale for name, pair in pairs.items()}
    assert scales["k_proj"] == pytest.approx(8 / 4**0.5)
    assert scales["q_proj"] == pytest.approx(8 / 9**0.5)
    assert scales["v_proj"] == pytest.approx(3 / 4**0.5)
