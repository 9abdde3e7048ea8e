"""`vasevqa doctor` on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import containers
from tests.backends.test_kubernetes_api import server
from tests.backends.test_kubernetes_launch import Told
from tests.pipeline.kit import ROOT, Kit
from vasevqa.artifacts.volume import Volume
from vasevqa.backends.checks import Finding
from vasevqa.pipeline import doctor
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.requirements import requirements_of, stages_of

CPU = ("train-classifier", "classify", "clip-filter", "sft")  # what asks for GPUs unless it is told otherwise
ON_CPU = tuple(word for step in CPU for word in ("--set", f"{step}.device=cpu"))
TWO = "inputs: {images: photos, quality_data: photos}\nto: classify\n"


def look(
    tmp_path: Path, text: str, *words: str, code: int, env: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    out = (
        Kit(tmp_path / f"kit-{len(list(tmp_path.iterdir()))}")
        .call("doctor", recipe, "--json", *words, check=code, env=env)
        .stdout
    )
    return {found["what"]: found for found in map(json.loads, out.splitlines())}


def devices(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, *there: str, engine: str = "") -> list[Finding]:
    """What is found of a machine with these devices."""
    (folder / "photos").mkdir(exist_ok=True)
    (folder / "r.yaml").write_text(text)
    dev = folder / f"dev-{len(list(folder.iterdir()))}"
    dev.mkdir()
    for name in there:
        (dev / name).touch()
    monkeypatch.setattr(doctor, "DEV", dev)
    recipe = load_recipe(folder / "r.yaml", PIPELINE)
    return list(doctor._devices(requirements_of(recipe, PIPELINE), engine))


def test_a_recipe_that_can_run_here_is_fine(tmp_path: Path) -> None:
    for name in ("photos", "quality"):
        (tmp_path / name).mkdir()
    found = look(tmp_path, "inputs: {images: photos, quality_data: quality}\nto: classify\n", *ON_CPU, code=0)
    assert found["recipe"]["text"] == "r: train-classifier, classify"
    assert found["input images"]["state"] == found["space"]["state"] == "ok"


def test_the_worst_line_is_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "model").mkdir()
    found = look(tmp_path, "inputs: {images: photos, model: model, annotations: photos}\nto: sft\n", *ON_CPU, code=2)
    assert "does not name it" in found["input quality_data"]["text"]
    assert "config.json" in found["input model"]["text"]
    assert "does not exist" in look(tmp_path, "inputs: {images: nowhere}\n", code=2)["recipe"]["text"]


def test_what_a_recipe_asks_for() -> None:
    root = ROOT / "vasevqa/recipes"
    whole = requirements_of(load_recipe(root / "vase.yaml", PIPELINE, here=False), PIPELINE)
    assert list(whole.stages) == list(PIPELINE.names)
    assert whole.copies == {"images": 1, "model": 3}
    assert whole.models == ("clip_model", "model")
    demo = stages_of(PIPELINE, root / "demo.yaml")
    assert "to-megatron" not in demo
    assert demo.count("merge") == 1


def test_gpus_that_a_step_will_end_without_are_missed_here_and_the_step_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [found] = devices(tmp_path, TWO, monkeypatch)
    assert (found.state, found.code) == ("bad", 5)
    assert found.text.startswith(
        "0 here, 1 asked for by train-classifier, classify; run it on a machine with GPUs, or set `device: cpu`"
    )
    [found] = devices(tmp_path, TWO, monkeypatch, "nvidia0", "nvidiactl")
    assert (found.state, found.code, found.text) == ("ok", 0, "1 here, 1 asked for")
    [found] = devices(tmp_path, f"{TWO}steps: {{classify: {{resources: {{gpus: 2}}}}}}\n", monkeypatch, "nvidia0")
    assert found.text.startswith("1 here, 2 asked for by classify;")


def test_steps_on_the_cpu_miss_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        devices(
            tmp_path, f"{TWO}steps: {{train-classifier: {{device: cpu}}, classify: {{device: cpu}}}}\n", monkeypatch
        )
        == []
    )
    [found] = devices(tmp_path, f"{TWO}steps: {{classify: {{device: cpu}}}}\n", monkeypatch)
    assert "asked for by train-classifier;" in found.text
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


def test_an_engine_elsewhere_is_asked_for_images_and_not_for_gpus(tmp_path: Path) -> None:
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


def test_only_images_that_no_registry_can_have_must_be_here(tmp_path: Path) -> None:
    containers.engine()
    (tmp_path / "photos").mkdir()
    cluster = tmp_path / "cluster.yaml"
    words = ("--backend", "docker", "--cluster", str(cluster), *ON_CPU)
    cluster.write_text("tag: no-such-tag\nimages: {classify: registry.invalid/me/classify:1}\n")
    found = look(tmp_path, TWO, *words, code=69)
    assert (
        "`make image STAGE=train-classifier` builds it" in found["image vasevqa/train-classifier:no-such-tag"]["text"]
    )
    assert found["image registry.invalid/me/classify:1"]["state"] == "not checked"
    cluster.write_text(
        "tag: no-such-tag\nregistry: registry.invalid/me\nimages: {classify: vasevqa/classify:no-such-tag}\n"
    )
    found = look(tmp_path, TWO, *words, code=0)
    assert {finding["state"] for what, finding in found.items() if what.startswith("image ")} == {"not checked"}


def test_doctor_and_plan_agree_on_a_recipe_that_replaces_steps(tmp_path: Path) -> None:
    """What replaced steps would have read is asked of nobody: not of the user, nor of the machine."""
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


def test_an_input_that_a_step_needs_is_missed_once(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    found = look(tmp_path, "inputs: {images: photos, train-classifier: photos}\nto: select-views\n", code=5)
    assert found["input clip_model"]["text"].startswith("clip-filter needs it, and the recipe does not name it")
    assert "input quality_data" not in found
