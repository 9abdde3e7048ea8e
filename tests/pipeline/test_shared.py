"""The settings at the top of a recipe. Every step with such a parameter uses the setting."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from tests import pictures
from vasevqa.artifacts.volume import Volume
from vasevqa.errors import ConfigError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import Recipe, load_recipe, recipe_schema
from vasevqa.pipeline.requests import RecipeRequest

INPUTS = "inputs: {images: photos, quality_data: quality, clip_model: clip, annotations: photos}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures.vases(tmp_path / "photos", 3, 2)
    for label in (0, 1):
        pictures.vases(tmp_path / f"quality/{label}", 3, 2, first=100 * (label + 1))
    (tmp_path / "clip").mkdir()
    return tmp_path


def load(folder: Path, text: str, *overrides: str, device: str | None = None) -> Recipe:
    (folder / "recipe.yaml").write_text(INPUTS + text)
    return RecipeRequest(folder / "recipe.yaml", overrides, device=device).load(PIPELINE)


def devices(recipe: Recipe) -> dict[str, str]:
    return {
        name: settings.options.device
        for name, settings in recipe.steps.items()
        if "device" in type(settings.options).model_fields
    }


def test_the_device_of_a_step_overrides_the_shared_device(folder: Path) -> None:
    found = devices(load(folder, "device: cpu\nsteps: {sft: {device: 'cuda:1'}}\n"))
    assert len(found) == 10
    assert found.pop("sft") == "cuda:1"
    assert set(found.values()) == {"cpu"}


def test_the_device_option_overrides_the_recipe_but_not_set(folder: Path) -> None:
    text = "device: 'cuda:0'\nsteps: {sft: {device: 'cuda:1'}}\n"
    assert set(devices(load(folder, text, device="cpu")).values()) == {"cpu"}
    found = devices(load(folder, text, "sft.device=cuda:2", device="cpu"))
    assert (found["sft"], found["grpo"]) == ("cuda:2", "cpu")


def test_the_command_line_is_passed_on_to_another_machine(folder: Path) -> None:
    request = RecipeRequest(folder / "r.yaml", ("sft.seed=1",), ("images=photos",), device="cpu")
    assert request.to_args() == ["--device", "cpu", "--set", "sft.seed=1", "--input", "images=photos"]
    assert request.with_absolute_inputs().device == "cpu"


def test_patterns_and_headings_reach_the_steps_that_read_names_and_tables(folder: Path) -> None:
    text = "name_pattern: id_view\nvase_column: Nr\ncolumns: {shape: Form 1, date: Wann}\n"
    text += "steps: {build-dataset: {columns: {date: Zeit}}, train-classifier: {name_pattern: folder/view}}\n"
    steps = load(folder, text).steps
    assert steps["select-views"].params.name_pattern == "id_view"  # type: ignore[attr-defined]
    assert steps["train-classifier"].params.name_pattern == "folder/view"  # type: ignore[attr-defined]
    assert steps["build-dataset"].params.columns == {  # type: ignore[attr-defined]
        "vase_id": "Nr",
        "shape": "Form 1",
        "date": "Zeit",
    }


def test_the_recipe_that_a_run_stores_loads_to_the_same_values(folder: Path, tmp_path: Path) -> None:
    recipe = load(folder, "device: 'cuda:0'\nvase_column: Nr\n", "sft.device=cuda:2", device="cpu")
    kept = tmp_path / "kept.yaml"
    kept.write_text(recipe.text)
    again = load_recipe(kept, PIPELINE)
    assert again == recipe
    assert again.text == recipe.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("device: gpu\n", "line 2: device: there is no such device; use auto, cpu, cuda or cuda:N (got 'gpu')."),
        ("steps:\n  sft: {device: gpu}\n", "line 3: sft.device: there is no such device"),
        ("name_pattern: {a: b}\n", "line 2: name_pattern: "),
        ("vase_column: [Nr]\n", "line 2: `vase_column` must be the heading of a column"),
        (
            "vase_column: Nr\ncolumns: {vase_id: Inv}\n",
            "line 2: `vase_column` is 'Nr', but `vase_id` in `columns` is 'Inv'",
        ),
        ("columns: {shpe: Form}\n", "line 2: columns: there is no field 'shpe'. Did you mean 'shape'?"),
        ("columns: 7\n", "line 2: `columns` must be a mapping"),
        ("steps:\n  build-dataset:\n    columns: {shpe: Form}\n", "line 4: columns: there is no field 'shpe'"),
        ("vase_colum: Nr\n", "Did you mean 'vase_column'?"),
        ("steps:\n  clip-filter: {threshold: '0,15'}\n", "(got '0,15'); write 0.15, with a point."),
    ],
)
def test_a_mistake_is_reported_with_the_key_in_the_recipe(folder: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(folder, text)
    assert says in str(error.value)
    assert "--" not in str(error.value)


def test_a_mistake_on_the_command_line_is_reported_with_its_option(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--device gpu: device: there is no such device"):
        load(folder, "device: cpu\n", device="gpu")
    with pytest.raises(ConfigError, match=r"^--set clip-fliter.threshold=1: there is no step 'clip-fliter'"):
        load(folder, "steps: {sft: {}}\n", "clip-fliter.threshold=1")
    with pytest.raises(ConfigError, match=r"^--set clip-filter.threshold=0,15: .*write 0.15, with a point"):
        load(folder, "steps: {sft: {}}\n", "clip-filter.threshold=0,15")
    with pytest.raises(ConfigError, match=r"line 3, with --set sft\.extra_args\.lr=1: "):
        load(folder, "steps:\n  sft: {extra_args: {lora_rank: 4}}\n", "sft.extra_args.lr=1")


def test_a_plan_names_the_key_in_the_recipe_instead_of_a_flag(folder: Path) -> None:
    recipe = load(folder, "name_pattern: '('\nto: select-views\n")
    with pytest.raises(ConfigError, match=r"^`name_pattern` is not a regular expression"):
        make_plan(recipe, PIPELINE, Volume(folder / "volume"))


def test_recipes_without_shared_settings_keep_their_keys(folder: Path) -> None:
    def keys(text: str) -> dict[str, str]:
        planned = make_plan(load(folder, text + "to: select-views\n"), PIPELINE, Volume(folder / "volume"))
        return {step.name: step.artifact.key for step in planned.steps}

    assert keys("device: cpu\n") == keys("") == keys("steps: {select-views: {}}\n")
    steps = "{select-views: {name_pattern: UUID_view_ac}, train-classifier: {name_pattern: UUID_view_ac}}"
    assert keys("name_pattern: UUID_view_ac\n") == keys(f"steps: {steps}\n") != keys("")


def test_the_schema_contains_the_shared_settings(folder: Path) -> None:
    schema = recipe_schema(PIPELINE)
    jsonschema.Draft202012Validator.check_schema(schema)
    good = "device: cpu\nname_pattern: [id_view, folder/view]\nvase_column: Nr\ncolumns: {shape: Form}\n"
    jsonschema.validate(yaml.safe_load(INPUTS + good), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(INPUTS + "vase_column: 7\n"), schema)
