"""The content of inputs is checked before anything runs. A wrong input ends with exit code 2 or 3."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests import pictures
from vasevqa.errors import ConfigError, DataError, VaseError
from vasevqa.pipeline import doctor
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.doctor import VolumeQuestion, volume_findings
from vasevqa.pipeline.inspection import inside_of, look_inside, refuse_unusable
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.requests import RecipeRequest
from vasevqa.pipeline.requirements import StageCheck, requirements_of
from vasevqa.pipeline.selection import Selection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for vase in range(4):
        for view in range(3):
            pictures.save(tmp_path / f"photos/Vase {vase}/IMG_{view}.jpg", 10 * vase + view)
    (tmp_path / "photos/notes.txt").touch()
    rows = [f"Vase {vase};amphora" for vase in range(3)]
    (tmp_path / "table.csv").write_text("\n".join(["Gefäß;Form", *rows]))
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/config.json").write_text('{"model_type": "clip"}')
    return tmp_path


def look(folder: Path, inputs: str = "", text: str = "", last: str = "build-dataset") -> dict[str, str]:
    given = {"images": "photos", "annotations": "table.csv", "clip_model": "clip"}
    given |= dict(pair.split("=") for pair in inputs.split())
    skip = "" if "train-classifier" in given else "skip: [train-classifier, classify]\n"
    (folder / "recipe.yaml").write_text(f"inputs: {json.dumps(given)}\n{skip}{text}")
    recipe = load_recipe(folder / "recipe.yaml", PIPELINE)
    return dict(look_inside(recipe, inside_of(recipe, requirements_of(recipe, PIPELINE, Selection(last=last)))))


def test_the_content_of_the_inputs_is_shown(folder: Path) -> None:
    found = look(folder)
    assert list(found) == ["clip_model", "images", "annotations"]
    assert found["images"] == "12 photographs (1 other file: 1 .txt), 4 vases, 3 views each"
    assert found["annotations"] == "3 of 4 vases annotated, by 3 rows"
    assert found["clip_model"].endswith("clip is a CLIP model")
    (folder / "photos/Vase 1/IMG_0.jpg").unlink()
    assert look(folder)["images"].endswith("4 vases, 2 to 3 views each")
    assert list(look(folder, last="clip-filter")) == ["clip_model", "images"]


def qwen(folder: Path) -> None:
    (folder / "clip/config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "clip/model.safetensors").write_bytes(b"x" * 2000)


def no_photographs(folder: Path) -> None:
    for path in (folder / "photos").rglob("*.jpg"):
        path.rename(path.with_suffix(".raw"))


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", "a")


def one_row(folder: Path) -> None:
    (folder / "table.csv").write_text("Gefäß;Form\nVase 1;kylix\n")


def unknown_headings(folder: Path) -> None:
    (folder / "table.csv").write_text("A;B\n1;2\n")


@pytest.mark.parametrize(
    ("prepare", "inputs", "text", "kind", "says"),
    [
        (qwen, "", "", ConfigError, "holds a model of type 'qwen2_5_vl', not clip"),
        (no_photographs, "", "", DataError, "There is no photograph in .*12 .raw"),
        (zipped, "images=photos.zip", "", ConfigError, "photos.zip is a file"),
        (one_row, "", "", DataError, "needs at least 3 vases with annotations, and there is 1"),
        (unknown_headings, "", "", DataError, "table.csv: .* names no column"),
        (None, "train-classifier=table.csv", "", DataError, "table.csv is not a PyTorch checkpoint"),
        (None, "", "columns: {shape: Farm}", ConfigError, "no table has the column 'Farm'"),
        (None, "", "name_pattern: '('", ConfigError, r"^`name_pattern` is not a regular expression"),
        (None, "", "name_pattern: '(?P<vase>X)(?P<view>Y)'", ConfigError, "matches none of 12 names"),
    ],
)
def test_a_wrong_input_is_reported(
    folder: Path, prepare: object, inputs: str, text: str, kind: type[VaseError], says: str
) -> None:
    if callable(prepare):
        prepare(folder)
    with pytest.raises(kind, match=says) as error:
        look(folder, inputs, text)
    assert "--" not in str(error.value)


def test_device_cpu_is_refused_for_a_step_that_needs_cuda(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text("inputs: {merge-grpo: clip}\ndevice: cpu\n")
    with pytest.raises(ConfigError, match=r"write `skip: \[to-megatron\]`"):
        loaded = load_recipe(recipe, PIPELINE)
        inside_of(loaded, requirements_of(loaded, PIPELINE, Selection(only=("to-megatron",))))


def test_doctor_reports_the_same_for_a_volume(folder: Path) -> None:
    checks = {"build-dataset": StageCheck({"seed": 1}, {"images": "images"})}
    question = VolumeQuestion(
        {"images": "photos", "annotations": "table.csv", "clip_model": "clip"},
        ("clip_model",),
        {"images": 1},
        checks=checks,
    )
    assert VolumeQuestion.from_json(question.to_json()).inputs == question.inputs
    assert VolumeQuestion.from_json(question.to_json()).checks == checks
    found = {one.what: one for one in volume_findings(PIPELINE, folder, question)}
    assert found["input images"].text == "12 photographs (1 other file: 1 .txt), 4 vases, 3 views each"
    assert found["input annotations"].text == "3 of 4 vases annotated, by 3 rows"
    no_photographs(folder)
    qwen(folder)
    found = {one.what: one for one in volume_findings(PIPELINE, folder, question)}
    assert (found["input images"].code, found["input clip_model"].code) == (3, 2)


@pytest.mark.parametrize("remote", ["classifier_weights", "quality_data"])
def test_an_input_on_the_volume_counts_as_given_beside_one_that_is_uploaded(tmp_path: Path, remote: str) -> None:
    """Both sides look at their own inputs: this machine before the upload, and a pod at the volume."""
    for label in ("0", "1"):
        for vase in range(3):
            pictures.save(tmp_path / f"labelled/{label}/F{label}{vase}_front.jpg", 10 * int(label) + vase)
    (tmp_path / "resnet.pth").write_bytes(b"x")
    given = {"images": "labelled", "quality_data": "labelled", "classifier_weights": "resnet.pth"}
    given[remote] = "on-the-volume"
    path = tmp_path / "r.yaml"
    path.write_text(
        f"inputs: {json.dumps(given)}\nsteps: {{train-classifier: {{weights: file}}}}\nto: train-classifier\n"
    )
    request = RecipeRequest(path)
    recipe = request.load(PIPELINE, here=False)
    asked = requirements_of(recipe, PIPELINE)
    here = {name: request.beside(value) for name, value in asked.inputs.items()}
    refuse_unusable(PIPELINE, recipe, asked, here)
    found = list(doctor._to_be_uploaded(PIPELINE, here, doctor._question(asked, recipe)))
    (tmp_path / "volume").mkdir()
    (tmp_path / "labelled").rename(tmp_path / "volume/on-the-volume")
    question = VolumeQuestion({remote: "on-the-volume"}, (), {}, checks=asked.checks)
    found += volume_findings(PIPELINE, tmp_path / "volume", question)
    assert not [one.text for one in found if one.what == "step train-classifier"]


def test_an_input_that_the_recipe_lacks_is_missing_wherever_the_others_are(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "inputs: {images: far, quality_data: far}\nsteps: {train-classifier: {weights: file}}\nto: train-classifier\n"
    )
    recipe = load_recipe(path, PIPELINE, here=False)
    with pytest.raises(ConfigError, match="add the input `classifier_weights`"):
        refuse_unusable(PIPELINE, recipe, requirements_of(recipe, PIPELINE), {})
