"""`vasevqa doctor` on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import containers, pictures
from tests.backends.test_kubernetes_api import server
from tests.backends.test_kubernetes_launch import Told
from tests.pipeline.kit import ROOT, Kit
from vasevqa.artifacts.volume import Volume
from vasevqa.backends.checks import Finding
from vasevqa.cli import cli
from vasevqa.errors import DataError
from vasevqa.pipeline import doctor
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.requirements import requirements_of, stages_of

CPU = ("train-classifier", "classify", "clip-filter", "sft")  # steps that request GPUs by default
ON_CPU = tuple(word for step in CPU for word in ("--set", f"{step}.device=cpu"))
TWO = "inputs: {images: photos, quality_data: photos}\nto: classify\n"


def look(
    tmp_path: Path, text: str, *words: str, code: int, env: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    if (tmp_path / "photos").is_dir():
        pictures.save(tmp_path / "photos/a.jpg", 1)
        for label in ("0", "1"):
            for vase in range(3):
                pictures.save(tmp_path / f"photos/{label}/F{label}{vase}_front.jpg", 10 * int(label) + vase)
    out = (
        Kit(tmp_path / f"kit-{len(list(tmp_path.iterdir()))}")
        .call("doctor", recipe, "--json", *words, check=code, env=env)
        .stdout
    )
    return {found["what"]: found for found in map(json.loads, out.splitlines())}


def devices(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, *there: str, engine: str = "") -> list[Finding]:
    """Return the findings about a machine with these devices."""
    (folder / "photos").mkdir(exist_ok=True)
    (folder / "r.yaml").write_text(text)
    dev = folder / f"dev-{len(list(folder.iterdir()))}"
    dev.mkdir()
    for name in there:
        (dev / name).touch()
    monkeypatch.setattr(doctor, "DEV", dev)
    recipe = load_recipe(folder / "r.yaml", PIPELINE)
    return list(doctor._devices(requirements_of(recipe, PIPELINE), engine))


def test_a_recipe_that_can_run_here_has_no_bad_finding(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    found = look(tmp_path, TWO, *ON_CPU, code=0)
    assert found["recipe"]["text"] == "r: train-classifier, classify"
    assert found["input images"]["state"] == found["space"]["state"] == "ok"


def test_an_input_that_a_step_cant_use_is_a_bad_finding(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    pictures.save(tmp_path / "quality/good/a.jpg", 1)
    found = look(tmp_path, "inputs: {images: photos, quality_data: quality}\nto: classify\n", *ON_CPU, code=3)
    assert found["input quality_data"]["state"] == "ok"
    assert "has no folder '0'" in found["step train-classifier"]["text"]
    assert "--" not in found["step train-classifier"]["text"]


def test_an_unusable_upload_is_refused_before_the_cluster_is_contacted(tmp_path: Path) -> None:
    pictures.save(tmp_path / "photos/a.jpg", 1)
    pictures.save(tmp_path / "quality/good/a.jpg", 1)
    (tmp_path / "r.yaml").write_text("inputs: {images: photos, quality_data: quality}\nto: classify\n")
    refused = CliRunner().invoke(cli, ["submit", str(tmp_path / "r.yaml"), "--upload", "-n", "vases"])
    assert isinstance(refused.exception, DataError)
    assert "has no folder '0'" in str(refused.exception)


def test_the_exit_code_is_the_code_of_the_worst_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "t.csv").write_text("image,shape\na.jpg,kylix\n")
    found = look(tmp_path, "inputs: {images: photos, model: model, annotations: t.csv}\nto: sft\n", *ON_CPU, code=2)
    assert "does not give it" in found["input quality_data"]["text"]
    assert "config.json" in found["input model"]["text"]
    assert "does not exist" in look(tmp_path, "inputs: {images: nowhere}\n", code=2)["recipe"]["text"]


def test_the_requirements_of_a_recipe() -> None:
    root = ROOT / "vasevqa/recipes"
    whole = requirements_of(load_recipe(root / "vase.yaml", PIPELINE, here=False), PIPELINE)
    assert list(whole.stages) == list(PIPELINE.names)
    assert whole.copies == {"images": 1, "model": 3}
    assert whole.models == ("clip_model", "model")
    demo = stages_of(PIPELINE, root / "demo.yaml")
    assert "to-megatron" not in demo
    assert demo.count("merge") == 1


def test_missing_gpus_are_reported_with_the_steps_that_need_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [found] = devices(tmp_path, TWO, monkeypatch)
    assert (found.state, found.code) == ("bad", 5)
    assert found.text.startswith(
        "too few for train-classifier, classify: this machine has 0, the recipe asks for 1; run the recipe on a machine"
    )
    [found] = devices(tmp_path, TWO, monkeypatch, "nvidia0", "nvidiactl")
    assert (found.state, found.code, found.text) == ("ok", 0, "this machine has 1, the recipe asks for 1")
    [found] = devices(tmp_path, f"{TWO}steps: {{classify: {{resources: {{gpus: 2}}}}}}\n", monkeypatch, "nvidia0")
    assert found.text.startswith("too few for classify: this machine has 1, the recipe asks for 2;")


def test_steps_on_the_cpu_need_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        devices(
            tmp_path, f"{TWO}steps: {{train-classifier: {{device: cpu}}, classify: {{device: cpu}}}}\n", monkeypatch
        )
        == []
    )
    [found] = devices(tmp_path, f"{TWO}steps: {{classify: {{device: cpu}}}}\n", monkeypatch)
    assert "too few for train-classifier:" in found.text
    demo = load_recipe(ROOT / "vasevqa/recipes/demo.yaml", PIPELINE, here=False)
    assert list(doctor._devices(requirements_of(demo, PIPELINE))) == []


def test_gpus_that_cant_be_counted_are_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = devices(tmp_path, TWO, monkeypatch, "dxg")
    assert (found.state, found.code) == ("not checked", 0)
    assert "WSL" in found.text
    for engine in ("tcp://gpus.example.org:2376", "ssh://me@gpus.example.org"):
        [found] = devices(tmp_path, TWO, monkeypatch, engine=engine)
        assert (found.state, found.code) == ("not checked", 0)
    [found] = devices(tmp_path, TWO, monkeypatch, engine="unix:///var/run/docker.sock")
    assert found.code == 5


def test_a_remote_engine_is_checked_for_images_and_not_for_gpus(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    told = Told(("/_ping", b"OK"), ("/version", {"Version": "27.0.1", "ApiVersion": "1.47"}), ("/images/json", []))
    with server(told) as port:
        found = look(
            tmp_path,
            TWO,
            "--backend",
            "docker",
            code=69,
            env={"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "VASEVQA_IMAGE_TAG": "1"},
        )
    assert found["engine"]["text"] == "Docker 27.0.1"
    assert found["image vasevqa/classify:1"]["state"] == "bad"
    assert found["GPUs"]["state"] == "not checked"


def test_only_images_without_a_registry_must_be_on_this_machine(tmp_path: Path) -> None:
    containers.engine()
    (tmp_path / "photos").mkdir()
    cluster = tmp_path / "cluster.yaml"
    words = ("--backend", "docker", "--cluster", str(cluster), *ON_CPU)
    cluster.write_text("tag: no-such-tag\nimages: {classify: registry.invalid/me/classify:1}\n")
    found = look(tmp_path, TWO, *words, code=69)
    assert (
        "build it with `make image STAGE=train-classifier`"
        in found["image vasevqa/train-classifier:no-such-tag"]["text"]
    )
    assert found["image registry.invalid/me/classify:1"]["state"] == "not checked"
    cluster.write_text(
        "tag: no-such-tag\nregistry: registry.invalid/me\nimages: {classify: vasevqa/classify:no-such-tag}\n"
    )
    found = look(tmp_path, TWO, *words, code=0)
    assert {finding["state"] for what, finding in found.items() if what.startswith("image ")} == {"not checked"}


def test_doctor_and_plan_agree_on_a_recipe_that_replaces_steps(tmp_path: Path) -> None:
    """The inputs of replaced steps are not required, and neither are the GPUs of these steps."""
    (tmp_path / "views").mkdir()
    (tmp_path / "views/a.jpg").write_text("a")
    (tmp_path / "ann.json").write_text("[]")
    text = "inputs: {clip-filter: views, select-views: views, annotations: ann.json}\nto: build-dataset\n"
    found = look(tmp_path, text, code=0)
    assert found["recipe"]["text"] == "r: build-dataset"
    assert {name for name in found if name.startswith("input ")} == {
        "input clip-filter",
        "input select-views",
        "input annotations",
    }
    recipe = load_recipe(tmp_path / "r.yaml", PIPELINE)
    planned = make_plan(recipe, PIPELINE, Volume(tmp_path / "volume"))
    assert [step.name for step in planned.steps] == list(requirements_of(recipe, PIPELINE).stages)


def test_a_missing_input_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    found = look(tmp_path, "inputs: {images: photos, train-classifier: photos}\nto: select-views\n", code=5)
    assert found["input clip_model"]["text"].startswith("clip-filter needs this input, and the recipe does not give it")
    assert "input quality_data" not in found
