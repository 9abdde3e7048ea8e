"""The estimate of a run's space counts checkpoints and merged models."""

from __future__ import annotations

from pathlib import Path

from vasevqa.artifacts.volume import Volume
from vasevqa.models import check_model
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import Plan, make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.selection import Selection
from vasevqa.pipeline.space import needed
from vasevqa.training.estimate import checkpoint_bytes
from vasevqa.training.params import TrainingParams


def plan_of(folder: Path, text: str) -> Plan:
    (folder / "r.yaml").write_text(text)
    recipe = load_recipe(folder / "r.yaml", PIPELINE)
    return make_plan(recipe, PIPELINE, Volume(folder / "volume"), Selection(last="merge-sft"))


def test_checkpoints_and_merged_models_are_counted(tmp_path: Path, qwen: Path) -> None:
    (tmp_path / "model").symlink_to(qwen)
    (tmp_path / "data").mkdir()
    text = "inputs: {model: model, build-dataset: data}\nskip: [grpo, merge-grpo, evaluate, to-megatron]\n"
    spaces = {space.step: space for space in needed(plan_of(tmp_path, text))}
    model = check_model(tmp_path / "model")
    params = load_recipe(tmp_path / "r.yaml", PIPELINE).steps["sft"].params
    assert isinstance(params, TrainingParams)
    one = checkpoint_bytes(model, params)
    assert spaces["sft"].written == one
    assert spaces["sft"].free == one * (params.save_total_limit + 1)
    assert spaces["merge-sft"].written == 2 * model.parameters
    text = f"{text}steps: {{sft: {{tuner_type: full}}}}\n"  # a full model is linked
    full = {space.step for space in needed(plan_of(tmp_path, text))}
    assert full == {"sft"}
