"""Recipes: before anything runs, an error names the line and suggests the most similar correct word."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from vasevqa.errors import ConfigError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import load_recipe, recipe_schema

GOOD = """\
name: test
inputs:
  images: photos
  quality_data: quality
  clip_model: clip
steps:
  clip-filter:
    threshold: 0.15
    batch_size: 64
    resources: {gpus: 2, memory: 12Gi}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photos", "quality", "clip"):
        (tmp_path / name).mkdir()
    return tmp_path


def load(folder: Path, text: str, *overrides: str, inputs: tuple[str, ...] = ()):
    (folder / "recipe.yaml").write_text(text)
    return load_recipe(folder / "recipe.yaml", PIPELINE, overrides, inputs)


def test_parameters_options_and_resources_are_separated(folder: Path) -> None:
    recipe = load(folder, GOOD)
    settings = recipe.steps["clip-filter"]
    assert settings.params.threshold == 0.15  # type: ignore[attr-defined]
    assert settings.options.batch_size == 64  # type: ignore[attr-defined]
    assert (settings.resources.gpus, settings.resources.memory) == (2, "12Gi")
    assert recipe.inputs["images"] == str(folder / "photos")


def test_the_recipe_that_a_run_stores_loads_to_the_same_values(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = load(folder, GOOD, "clip-filter.threshold=0.3", "classify.batch_size=8")
    elsewhere = tmp_path_factory.mktemp("run") / "recipe.yaml"
    elsewhere.write_text(recipe.text)
    again = load_recipe(elsewhere, PIPELINE)
    assert again == recipe
    assert again.text == recipe.text
    assert again.steps["clip-filter"].params.threshold == 0.3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (("threshold: 0.15", "treshold: 0.15"), 8, "'threshold'"),
        (("  clip-filter:", "  clip-fliter:"), 7, "'clip-filter'"),
        (("steps:", "stpes:"), 6, "'steps'"),
        (("  images: photos", "  imges: photos"), 3, "'images'"),
        (("threshold: 0.15", "threshold: high"), 8, "clip-filter.threshold"),
        (("threshold: 0.15", "threshold: 7"), 8, "less than or equal to 2"),
        (("memory: 12Gi", "memory: lots"), 10, "memory"),
        (("gpus: 2", "gpu: 2"), 10, "'gpus'"),
        (("  images: photos", "  images: nowhere"), 3, "does not exist"),
        (("batch_size: 64", "threshold: 0.2"), 9, "second time"),
        (("batch_size: 64", "batch_size: [64"), 10, "not valid YAML"),
        (("name: test", "name: &a test"), 1, "anchors"),
        (("name: test", "skip: [train-classifier]"), 1, "can't be skipped"),
        (("name: test", "skip: [clasify]"), 1, "'classify'"),
        (("name: test", "to: nowhere"), 1, "no step 'nowhere'"),
    ],
)
def test_a_mistake_is_reported_with_its_line(folder: Path, change: tuple[str, str], line: int, says: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(ConfigError) as error:
        load(folder, GOOD.replace(*change))
    assert f"line {line}" in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "says"), [("", "empty"), ("- a\n- b\n", "mapping"), ("just words", "mapping")])
def test_a_file_that_is_no_recipe_is_refused(folder: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(folder, text)
    with pytest.raises(ConfigError, match="no recipe"):
        load_recipe(folder / "none.yaml", PIPELINE)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("clip-filter.treshold=1", "'threshold'"),
        ("clip-fliter.threshold=1", "'clip-filter'"),
        ("threshold=1", "step.parameter=value"),
        ("clip-filter.threshold=x", "--set clip-filter.threshold=x"),
    ],
)
def test_a_wrong_override_is_quoted(folder: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(folder, GOOD, override)
    assert says in str(error.value)


def test_an_input_from_the_command_line(folder: Path) -> None:
    (folder / "other").mkdir()
    assert load(folder, GOOD, inputs=(f"images={folder / 'other'}",)).inputs["images"] == str(folder / "other")
    with pytest.raises(ConfigError, match="name=path"):
        load(folder, GOOD, inputs=("images",))


def test_hub_ids_are_accepted_only_for_models(folder: Path) -> None:
    assert (
        load(folder, GOOD.replace("clip_model: clip", "clip_model: openai/clip-vit-base-patch32@main")).inputs[
            "clip_model"
        ]
        == "openai/clip-vit-base-patch32@main"
    )
    with pytest.raises(ConfigError, match="does not exist"):
        load(folder, GOOD.replace("images: photos", "images: openai/photos"))


def test_the_schema_agrees_with_the_loader(folder: Path) -> None:
    schema = recipe_schema(PIPELINE)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(GOOD), schema)
    for path in (Path(__file__).parent.parent.parent / "vasevqa/recipes").glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    for wrong in (
        ("threshold: 0.15", "treshold: 0.15"),
        ("threshold: 0.15", "threshold: high"),
        ("gpus: 2", "gpu: 2"),
        ("steps:", "stpes:"),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(GOOD.replace(*wrong)), schema)


@pytest.mark.parametrize("blank", ["inputs:", "inputs: {}", "name: x", "steps:", "steps: {clip-filter: }"])
def test_empty_values_in_the_recipe_are_filled_from_the_command_line(blank: str, folder: Path) -> None:
    recipe = load(folder, blank + "\n", "clip-filter.resources.gpus=2", inputs=(f"images={folder / 'photos'}",))
    assert recipe.inputs == {"images": str(folder / "photos")}
    assert recipe.steps["clip-filter"].resources.gpus == 2


@pytest.mark.parametrize(
    ("text", "overrides", "inputs", "says"),
    [
        ("inputs: [a]\n", (), ("images=photos",), "--input images=photos: `inputs` is not a mapping in the recipe"),
        ("inputs: [a]\n", (), (), "line 1: `inputs` must be a mapping"),
        ("inputs: 0\n", (), (), "line 1: `inputs` must be a mapping"),
        (
            "steps: [a]\n",
            ("clip-filter.seed=1",),
            (),
            "--set clip-filter.seed=1: `steps` is not a mapping in the recipe",
        ),
        ("steps: {clip-filter: no}\n", (), (), "line 1: the settings of clip-filter must be a mapping"),
        (
            "name: x\n",
            ("clip-filter.seed=2024-13-45",),
            (),
            "--set clip-filter.seed=2024-13-45: '2024-13-45' is not a plain",
        ),
        ("name: x\n", ("clip-filter.seed=0x_",), (), "--set clip-filter.seed=0x_: '0x_' is not a plain value"),
        ("name: x\n", ("clip-filter.seed=" + "[" * 5000,), (), "--set clip-filter.seed=[["),
        ("name: x\n", ("clip-filter.seed=*a",), (), "--set clip-filter.seed=*a, line 1: recipes can't have anchors"),
        ("inputs: {images: ~nobody_here/p}\n", (), (), "line 1: the input 'images' does not exist at"),
        (
            "name: x\n",
            (),
            ("images=~nobody_here/p",),
            "--input images=~nobody_here/p: the input 'images' does not exist",
        ),
    ],
)
def test_an_unreadable_value_is_reported_in_one_sentence(
    text: str, overrides: tuple[str, ...], inputs: tuple[str, ...], says: str, folder: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        load(folder, text, *overrides, inputs=inputs)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
