"""Plans: the steps that would run, with reasons, after changes of parameters, inputs and selections."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import pictures
from vasevqa.artifacts.digests import DigestCache, fingerprint
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Volume
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import Plan, PlannedStep, make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.selection import Selection
from vasevqa.spec import Pipeline, Step

TEXT = "inputs: {images: photos, quality_data: quality, clip_model: clip}\n"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    labelled = [f"quality/{label}/{name}{label}.jpg" for label in (0, 1) for name in "xyz"]
    for name in ("photos/a.jpg", "clip/config.json", *labelled):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def planned(world: Path, *overrides: str, text: str = TEXT, **selection: object) -> Plan:
    (world / "recipe.yaml").write_text(text if "to:" in text else text + "to: select-views\n")
    recipe = load_recipe(world / "recipe.yaml", PIPELINE, overrides)
    return make_plan(recipe, PIPELINE, Volume(world / "volume"), Selection(**selection))  # type: ignore[arg-type]


def make(step: PlannedStep) -> None:
    """Write the step's artifact like its stage."""
    output = StageOutput(step.artifact.partial)
    output.write_text("result", step.artifact.key)
    inputs = {name: {"key": given.key, "path": given.value} for name, given in step.inputs.items()}
    output.seal(
        {
            "step": step.name,
            "stage": step.stage.name,
            "stage_version": step.stage.version,
            "params": step.params.model_dump(mode="json"),
            "inputs": inputs,
        }
    )
    step.artifact.commit("test")


def made(world: Path) -> Path:
    for step in planned(world).steps:
        make(step)
    return world


def missing(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps if not step.hit]


def reasons(plan: Plan, name: str) -> str:
    return "; ".join(next(step for step in plan.steps if step.name == name).reasons)


def test_on_an_empty_volume_all_steps_would_run_in_order(world: Path) -> None:
    plan = planned(world)
    assert missing(plan) == ["train-classifier", "classify", "clip-filter", "select-views"]
    assert "no artifact of this step exists yet" in reasons(plan, "classify")
    assert planned(made(world)).steps
    assert missing(planned(world)) == []


def test_a_changed_parameter_reruns_its_step_and_all_dependent_steps(world: Path) -> None:
    plan = planned(made(world), "clip-filter.threshold=0.2")
    assert missing(plan) == ["clip-filter", "select-views"]
    assert "threshold is 0.2, was None" in reasons(plan, "clip-filter")
    assert "images comes from clip-filter, which will run" in reasons(plan, "select-views")


def test_options_and_resources_are_not_part_of_the_key(world: Path) -> None:
    text = TEXT + "steps: {clip-filter: {batch_size: 4, device: cpu, resources: {memory: 1Gi}}}\n"
    assert missing(planned(made(world), text=text)) == []


def test_a_changed_input_is_named_as_the_reason(world: Path) -> None:
    made(world)
    (world / "photos/b.jpg").write_text("new")
    plan = planned(world)
    assert missing(plan) == ["classify", "clip-filter", "select-views"]
    assert "input images changed" in reasons(plan, "classify")


def test_renaming_a_photograph_changes_the_key_and_touching_it_does_not(world: Path) -> None:
    made(world)
    os.utime(world / "photos/a.jpg", (1, 1))
    assert missing(planned(world)) == []
    (world / "photos/a.jpg").rename(world / "photos/c.jpg")
    assert "classify" in missing(planned(world))


def test_an_input_with_the_name_of_a_step_replaces_the_step(world: Path) -> None:
    (world / "old.pth").write_text("weights")
    plan = planned(world, text="inputs: {images: photos, clip_model: clip, train-classifier: old.pth}\n")
    assert [step.name for step in plan.steps] == ["classify", "clip-filter", "select-views"]
    assert plan.steps[0].inputs["model"].value == str(world / "old.pth")
    assert "replaced" in plan.skipped["train-classifier"]


def test_a_skipped_step_passes_on_its_input(world: Path) -> None:
    (world / "old.pth").write_text("weights")
    plan = planned(
        world,
        text="skip: [classify]\ninputs: {images: photos, quality_data: quality, clip_model: clip}\n",
        last="clip-filter",
    )
    assert [step.name for step in plan.steps] == ["clip-filter"]
    assert plan.steps[0].inputs["images"].value == str(world / "photos")


def test_from_to_and_only(world: Path) -> None:
    assert missing(planned(world, last="classify")) == ["train-classifier", "classify"]
    with pytest.raises(ConfigError, match="train-classifier has no finished artifact"):
        planned(world, first="classify")
    for step in planned(world, last="classify").steps:
        make(step)
    assert missing(planned(world, first="clip-filter")) == ["clip-filter", "select-views"]
    assert missing(planned(world, only=("clip-filter",))) == ["clip-filter"]
    with pytest.raises(ConfigError, match="Did you mean 'classify'"):
        planned(world, last="clasify")


def test_refresh_is_a_miss(world: Path) -> None:
    plan = planned(made(world), refresh=("classify",))
    assert missing(plan) == ["classify"]
    assert reasons(plan, "classify") == "refresh was requested"


def test_the_error_about_a_missing_input_names_the_step_and_the_key(world: Path) -> None:
    with pytest.raises(ConfigError, match="clip-filter needs the input 'clip_model'"):
        planned(world, text="inputs: {images: photos, quality_data: quality}\n")
    assert missing(planned(world, text="to: classify\ninputs: {images: photos, quality_data: quality}\n")) == [
        "train-classifier",
        "classify",
    ]


def test_a_cycle_of_steps_is_reported(world: Path) -> None:
    stage = PIPELINE.step("classify").stage
    cyclic = Pipeline(
        (
            Step("one", stage, {"images": "two", "model": "inputs.images"}),
            Step("two", stage, {"images": "one", "model": "inputs.images"}),
        )
    )
    (world / "recipe.yaml").write_text("inputs: {images: photos}\n")
    with pytest.raises(ConfigError, match=r"one.*depend on one another"):
        make_plan(load_recipe(world / "recipe.yaml", cyclic), cyclic, Volume(world / "volume"))


def test_digests_depend_on_content_and_names_and_not_on_times(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "cache")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_text("same")
    os.utime(tmp_path / "a/x.jpg", (5, 5))
    assert cache.digest(tmp_path / "a") == cache.digest(tmp_path / "b")
    before = cache.digest(tmp_path / "a/x.jpg")
    (tmp_path / "a/x.jpg").write_text("else")
    assert cache.digest(tmp_path / "a/x.jpg") != before
    assert cache.digest(tmp_path / "a") != cache.digest(tmp_path / "b")


def test_a_second_digest_reads_no_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_text(str(number))
    monkeypatch.setattr("vasevqa.artifacts.digests.RACY", -(10**18))  # make the files look old
    first = DigestCache(tmp_path / "cache").digest(folder)
    monkeypatch.setattr("vasevqa.files.digest_file", lambda path: pytest.fail(f"{path} was read again"))
    assert DigestCache(tmp_path / "cache").digest(folder) == first


def test_a_damaged_cache_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    good = DigestCache(tmp_path / "cache").digest(tmp_path / "x")
    (tmp_path / "cache/digests.sqlite").write_bytes(b"garbage" * 1000)
    assert DigestCache(tmp_path / "cache").digest(tmp_path / "x") == good


def test_links_are_digested_like_their_targets(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x.jpg").write_text("x")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/x.jpg").symlink_to(tmp_path / "real/x.jpg")
    (tmp_path / "linked/loop").symlink_to(tmp_path / "linked")
    cache = DigestCache(tmp_path / "cache", volume=tmp_path)
    assert cache.digest(tmp_path / "linked") == cache.digest(tmp_path / "real")
    before = fingerprint(tmp_path / "linked", tmp_path)
    (tmp_path / "real/x.jpg").write_text("changed")
    assert fingerprint(tmp_path / "linked", tmp_path) != before


def test_files_of_other_programs_do_not_change_a_digest(tmp_path: Path) -> None:
    photos, model = tmp_path / "photos", tmp_path / "model"
    for file in (photos / "a.jpg", photos / "deep/b.jpg", model / "config.json", model / "iter_1/.metadata"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    cache = DigestCache(tmp_path / "cache")
    digests, marks = [cache.digest(photos), cache.digest(model)], [fingerprint(photos), fingerprint(model)]
    # the digest from the time when files of other programs were not skipped
    assert digests[0] == "33a2aa4e4c5fed267b465c07453d209e369b2d7414e956039857bd16cc9da81d"
    for name in (
        ".DS_Store",
        "deep/._b.jpg",
        "Thumbs.db",
        "deep/desktop.ini",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB.jpg",
        ".thumbnails/x.png",
        "__MACOSX/deep/._b.jpg",
        ".ipynb_checkpoints/a.jpg",
        ".cache/huggingface/download/config.json.metadata",
    ):
        for folder in (photos, model):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("not the user's")
    assert [cache.digest(photos), cache.digest(model)] == digests
    assert [fingerprint(photos), fingerprint(model)] == marks
    (model / "iter_1/.metadata").write_text("another checkpoint")  # this file is hidden, but Megatron's loader reads it
    assert cache.digest(model) != digests[1]


def test_a_link_out_of_the_input_is_checked_before_it_is_followed(tmp_path: Path) -> None:
    photos, blobs = tmp_path / "photos", tmp_path / "blobs"
    photos.mkdir()
    blobs.mkdir()
    (blobs / "secret.jpg").write_text("one")
    (blobs / "weights").write_text("one")
    (photos / "out.jpg").symlink_to(blobs / "secret.jpg")
    (photos / "outdir").symlink_to("/")
    (photos / "model.safetensors").symlink_to(blobs / "weights")
    cache = DigestCache(tmp_path / "cache")
    before = cache.digest(photos)  # the digest reads no other folder
    (blobs / "secret.jpg").write_text("another")
    assert cache.digest(photos) == before
    (photos / "out.jpg").unlink()
    assert cache.digest(photos) != before  # curation lists the refused link
    before = cache.digest(photos)
    (blobs / "weights").write_text("another")  # a hub's cache has such links
    assert cache.digest(photos) != before


def test_unusable_names_and_labels_are_reported_before_anything_runs(world: Path) -> None:
    for number in range(4):
        pictures.save(world / f"photos/IMG_{number:04}.jpg", number)
    with pytest.raises(DataError, match=r"IMG_0000.jpg, IMG_0001.jpg, IMG_0002.jpg\).*own-vase"):
        planned(world)
    assert planned(world, "select-views.unmatched=own-vase").steps
    with pytest.raises(ConfigError, match="matches none of 5 names"):
        planned(world, "select-views.name_pattern=folder/view")
    (world / "quality/0").rename(world / "quality/kylix")
    with pytest.raises(DataError, match="1 and kylix, and it is not clear"):
        planned(world, "select-views.unmatched=own-vase")
