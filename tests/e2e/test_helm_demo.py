"""The curation half of the demo with the real images. Only `helm install` starts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.inside import CHART, Site, command, site_in, until
from tests.pipeline.kit import ROOT
from vasevqa.artifacts.volume import Volume
from vasevqa.backends.cluster import Cluster
from vasevqa.pipeline.runs import all_runs

STAGES = ("launcher", "train-classifier", "classify", "clip-filter", "select-views")


@pytest.fixture
def real_site() -> Iterator[Site]:
    """A namespace that uses the images of `make images`, which are loaded into the cluster."""
    images = {stage: Cluster().image(stage) for stage in STAGES}
    if (
        os.environ.get("VASEVQA_E2E_LOAD") and "VASEVQA_IMAGE_TAG" not in os.environ
    ):  # an image with a given tag is already in the cluster
        command(*os.environ["VASEVQA_E2E_LOAD"].split(), *images.values())
    yield from site_in(images)


def demo_inputs(volume: Path) -> None:
    """The demo's photographs and models. If `make demo` was run here before, its files are used, and its classifier is
    not trained again.
    """
    folder = volume / "inputs"
    made = Path(os.environ.get("VASEVQA_E2E_DEMO", ROOT / "demo/inputs"))
    if not made.is_dir():
        subprocess.run([sys.executable, "-m", "vasevqa.cli", "sample", str(made), "--models"], check=True, cwd=ROOT)
    for name in ("photos", "quality", "models/tiny-clip"):
        shutil.copytree(made / name, folder / name)
    for record in (made.parent / "artifacts/train-classifier").glob("*/artifact.json"):
        shutil.copytree(record.parent, volume / "artifacts/train-classifier" / record.parent.name)
    for path in volume.rglob("*"):  # pods have another uid than this process
        path.chmod(0o777 if path.is_dir() else 0o644)


@pytest.mark.timeout(1500)
def test_helm_install_alone_runs_the_curation_of_the_demo(real_site: Site) -> None:
    site = real_site
    demo_inputs(site.volume)
    recipe = yaml.safe_load((ROOT / "vasevqa/recipes/demo.yaml").read_text())
    recipe["inputs"] = {
        "images": "inputs/photos",
        "quality_data": "inputs/quality",
        "clip_model": "inputs/models/tiny-clip",
    }
    recipe |= {"to": "select-views"}
    site.add_volume("it-vasevqa")
    path = site.folder / "demo.yaml"
    path.write_text(yaml.safe_dump(recipe))
    site.helm(
        "install", "it", CHART, "--set", f"volume.storageClass=,tag={Cluster().tag}", "--set-file", f"recipe={path}"
    )
    until(lambda: site.launchers() and site.launchers()[0]["status"].get("conditions"), "the run to end", 1200)
    log = site.kubectl("logs", "-l", "app.kubernetes.io/component=launcher", "--tail=-1")
    [job] = site.launchers()
    assert job["status"].get("succeeded") == 1, log
    [run] = all_runs(Volume(site.volume))
    assert set(run.artifacts()) == {"train-classifier", "classify", "clip-filter", "select-views"}
    assert {event["step"] for event in run.events.read() if event["event"] == "step-started"} >= {
        "classify",
        "clip-filter",
        "select-views",
    }
    report = json.loads((run.artifacts()["clip-filter"] / "filtering_report.json").read_text())
    assert report
    assert "<html" in run.report.read_text()
    assert run.backend_settings["backend"] == "kubernetes"
    site.helm("uninstall", "it")
    until(lambda: not site.names("jobs,pods,roles"), "the removal of Jobs, pods and roles", 120)
    assert site.names("persistentvolumeclaims") == {"it-vasevqa"}
