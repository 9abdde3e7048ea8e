"""`vasevqa recipe my.yaml` explains that recipe."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from vasevqa.cli import cli

TEXT = """\
inputs: {images: photos, clip_model: models/clip, classify: sorted}
device: cpu
skip: [train-classifier]
to: select-views
steps: {clip-filter: {threshold: 0.15, resources: {gpus: 0}}}
"""


def explain(tmp_path: Path, *words: str) -> list[str]:
    (tmp_path / "mine.yaml").write_text(TEXT)
    result = CliRunner().invoke(cli, ["recipe", str(tmp_path / "mine.yaml"), *words])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_recipe_shows_the_steps_their_inputs_and_the_changed_values(tmp_path: Path) -> None:
    lines = explain(tmp_path)
    assert lines[0] == "mine: runs clip-filter, select-views"
    assert "  inputs.images: photos" in lines
    assert "train-classifier: skipped: no step needs its result" in lines
    assert "classify: replaced by the input sorted" in lines
    at = lines.index("clip-filter: CLIP quality filter: keeps complete, undamaged vases.")
    assert lines[at + 1] == "  reads images from inputs.classify, clip_model from inputs.clip_model"
    assert lines[at + 2].startswith("  threshold: 0.15  # minimum score of accepted images")
    assert lines[at + 2].endswith("(default: None)")
    assert lines[at + 3].startswith("  device: 'cpu'  # ")
    assert lines[at + 4] == "  resources: {'gpus': 0}"
    assert not [line for line in lines if line.startswith(("  batch_size", "  seed"))]


def test_with_to_only_the_steps_up_to_this_step_are_shown(tmp_path: Path) -> None:
    assert explain(tmp_path, "--to", "clip-filter")[0] == "mine: runs clip-filter"


def test_without_a_recipe_every_step_is_described() -> None:
    lines = CliRunner().invoke(cli, ["recipe"]).output.splitlines()
    assert any(line.startswith("to-megatron: ") for line in lines)
    assert any(line.startswith("  batch_size: 32") for line in lines)
