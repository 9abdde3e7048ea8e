"""The real chain with real ms-swift on the tiny model: sft, merge, grpo with a user's reward, merge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fakes import FolderOutput, RecordingProgress
from tests.training.conftest import OPTIONS, grpo_params, losses, sft_params
from vasevqa.errors import GateError
from vasevqa.spec import StageCall
from vasevqa.stages import grpo, merge, sft
from vasevqa.training import merge as merging

PLAIN_REWARD = """
def external_vase_acc(responses, references):
    pairs = zip(responses, references)
    return [sum(word in answer for word in 'aeiou') / 5 + 0.1 * (answer.strip() == truth) for answer, truth in pairs]
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, qwen: Path, dataset: Path) -> tuple[Path, RecordingProgress]:
    output, progress = FolderOutput(tmp_path_factory.mktemp("chain") / "sft"), RecordingProgress()
    sft.run(
        StageCall(
            sft_params(num_train_epochs=4),
            sft.SftOptions(**OPTIONS),
            {"model": qwen, "dataset": dataset},
            output,
            progress,
        )
    )
    return output.root, progress


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, qwen: Path, tuned: tuple[Path, RecordingProgress]) -> Path:
    output = FolderOutput(tmp_path_factory.mktemp("chain") / "merged")
    merge.run(
        StageCall(
            merge.MergeParams(),
            merge.MergeOptions(device="cpu"),
            {"model": qwen, "adapters": tuned[0]},
            output,
            RecordingProgress(),
        ),
    )
    return output.root


def test_fine_tuning_learns(tuned: tuple[Path, RecordingProgress]) -> None:
    folder, progress = tuned
    summary = json.loads((folder / "training_summary.json").read_text())
    curve = losses(folder)
    assert sorted(curve) == list(range(1, 13))
    assert summary["last_loss"] < summary["first_loss"] / 2
    assert summary["eval_loss"] < summary["first_loss"] / 2
    assert summary["adapter_norm"] > 0.1
    metrics = [event for event in progress.events if event["event"] == "metrics"]
    assert [event["step"] for event in metrics if "loss" in event] == list(range(1, 13))
    assert all(
        {"learning_rate", "seconds_left", "tokens_per_second"} <= set(event) for event in metrics if "loss" in event
    )
    assert list((folder / "training/runs").glob("events*")), "no TensorBoard log"
    assert not [path for path in folder.rglob("*") if path.is_symlink()]


def test_the_merged_model_gives_the_outputs_of_base_and_adapter(qwen: Path, merged: Path) -> None:
    report = json.loads((merged / "merge_report.json").read_text())
    assert report["passed"]
    assert report["max_difference"] < 1e-3
    assert report["adapter_norm"] > 0.1
    before, after = load_file(qwen / "model.safetensors"), load_file(merged / "model.safetensors")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if "visual" in name], "the frozen vision tower changed"
    assert not (merged / ".merging").exists()


def test_a_wrongly_merged_weight_is_detected(
    tmp_path: Path, qwen: Path, tuned: tuple[Path, RecordingProgress], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = merging.export

    def wrong(base: Path, adapter: Path, folder: Path, dtype: str) -> None:
        real(base, adapter, folder, dtype)
        from safetensors.torch import save_file

        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in sorted(tensors) if name.endswith("down_proj.weight") and "visual" not in name)
        tensors[name] = tensors[name] * 1.5
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(merging, "export", wrong)
    output = FolderOutput(tmp_path / "merged")
    with pytest.raises(GateError, match="logits differ by"):
        merge.run(
            StageCall(
                merge.MergeParams(),
                merge.MergeOptions(device="cpu"),
                {"model": qwen, "adapters": tuned[0]},
                output,
                RecordingProgress(),
            ),
        )
    assert json.loads((output.root / "merge_report.json").read_text())["max_difference"] > 1e-3
    assert not (output.root / "model.safetensors").exists()


def test_in_bfloat16_the_most_likely_tokens_are_compared_and_the_chosen_checkpoint_is_used(
    tmp_path: Path, qwen: Path, tuned: tuple[Path, RecordingProgress]
) -> None:
    output = FolderOutput(tmp_path / "merged")
    params = merge.MergeParams(checkpoint="4", torch_dtype="bfloat16", agreement=0.5)
    merge.run(
        StageCall(
            params, merge.MergeOptions(device="cpu"), {"model": qwen, "adapters": tuned[0]}, output, RecordingProgress()
        )
    )
    report = json.loads((output.root / "merge_report.json").read_text())
    assert (report["checkpoint"], report["torch_dtype"], report["tolerance"]) == ("checkpoint-4", "bfloat16", None)
    assert report["agreement"] >= 0.5
    assert {tensor.dtype for tensor in load_file(output.root / "model.safetensors").values()} == {torch.bfloat16}


def test_a_complete_model_passes_through_the_merge(tmp_path: Path, qwen: Path, merged: Path) -> None:
    output, progress = FolderOutput(tmp_path / "same"), RecordingProgress()
    merge.run(
        StageCall(
            merge.MergeParams(), merge.MergeOptions(device="cpu"), {"model": qwen, "adapters": merged}, output, progress
        )
    )
    assert (output.root / "model.safetensors").read_bytes() == (merged / "model.safetensors").read_bytes()
    assert json.loads((output.root / "merge_report.json").read_text())["passed_through"]
    assert "whole model" in progress.summaries[-1][0]


def test_grpo_rewards_with_a_users_function_and_merges_again(tmp_path: Path, merged: Path, dataset: Path) -> None:
    plugin, system = tmp_path / "mine.py", tmp_path / "system.txt"
    plugin.write_text(PLAIN_REWARD)
    system.write_text("You are a curator of Greek vases.")
    output, progress = FolderOutput(tmp_path / "grpo"), RecordingProgress()
    inputs = {"model": merged, "dataset": dataset, "plugin": plugin, "system": system}
    grpo.run(StageCall(grpo_params(max_steps=5, save_steps=3), grpo.GrpoOptions(**OPTIONS), inputs, output, progress))
    summary = json.loads((output.root / "training_summary.json").read_text())
    assert summary["reward_spread"] > 0
    assert summary["adapter_norm"] > 0
    completions = [json.loads(line) for line in (output.root / "training/completions.jsonl").read_text().splitlines()]
    answers = [answer for row in completions for answer in row["completion"]]
    assert len(answers) >= 5 * 8
    first = completions[0]
    assert "curator of Greek vases" in first["prompt"][0]
    name = next(key for key in first if "acc" in key.lower() or "external" in key.lower())
    expected = [sum(letter in answer for letter in "aeiou") / 5 for answer in first["completion"]]
    assert first[name] == pytest.approx(expected, abs=0.11)
    assert any(event.get("reward") is not None for event in progress.events)
    again = FolderOutput(tmp_path / "merged")
    merge.run(
        StageCall(
            merge.MergeParams(checkpoint="last"),
            merge.MergeOptions(device="cpu"),
            {"model": merged, "adapters": output.root},
            again,
            RecordingProgress(),
        ),
    )
    report = json.loads((again.root / "merge_report.json").read_text())
    assert (report["passed"], report["checkpoint"]) == (True, "checkpoint-5")


def test_a_full_training_writes_a_model_that_passes_through_the_merge(
    tmp_path: Path, qwen: Path, dataset: Path
) -> None:
    output = FolderOutput(tmp_path / "full")
    params = sft_params(tuner_type="full", max_steps=2, learning_rate=0.001, save_steps=2)
    sft.run(
        StageCall(params, sft.SftOptions(**OPTIONS), {"model": qwen, "dataset": dataset}, output, RecordingProgress())
    )
    same = FolderOutput(tmp_path / "same")
    merge.run(
        StageCall(
            merge.MergeParams(),
            merge.MergeOptions(device="cpu"),
            {"model": qwen, "adapters": output.root},
            same,
            RecordingProgress(),
        ),
    )
    before, after = load_file(qwen / "model.safetensors"), load_file(same.root / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in after)
    assert not list(same.root.glob("optimizer*"))
    assert json.loads((same.root / "merge_report.json").read_text()) == {
        "passed_through": True,
        "checkpoint": "checkpoint-2",
    }


def test_two_processes_share_one_training(tmp_path: Path, qwen: Path, dataset: Path) -> None:
    output = FolderOutput(tmp_path / "two")
    params = sft_params(max_steps=3, batch_size=2, gradient_accumulation_steps=2, save_steps=3)
    sft.run(
        StageCall(
            params,
            sft.SftOptions(**OPTIONS, nproc_per_node=2),
            {"model": qwen, "dataset": dataset},
            output,
            RecordingProgress(),
        ),
    )
    summary = json.loads((output.root / "training_summary.json").read_text())
    assert (summary["processes"], summary["attempts"][0]["accumulation"]) == (2, 1)
    steps = [
        json.loads(line).get("global_step/max_steps")
        for line in (output.root / "training/logging.jsonl").read_text().splitlines()
        if '"loss"' in line
    ]
    assert [step for step in steps if step] == ["1/3", "2/3", "3/3"], "a step was logged by both processes"
