"""A wheel in a new environment. This finds errors that an editable install hides, such as a missing data file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.stages.test_build_dataset import picture

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment in which the wheel is installed.

    It uses the dependencies of the present environment, but not the editable install of vasevqa there.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    source = folder / "source"  # a copy, so that the build writes nothing into the working tree
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("vasevqa", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", folder, source], check=True)
    [wheel] = folder.glob("vasevqa-*.whl")
    venv.create(folder / "fresh", symlinks=True)
    python = folder / "fresh/bin/python"
    subprocess.run([*pip, "--python", python, "install", *options, wheel], check=True)
    [site] = (folder / "fresh/lib").glob("python3*/site-packages")
    # A line in a .pth file adds a folder, but ignores the .pth files in this folder.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "fresh/bin"


def call(folder: Path, *words: str | Path) -> str:
    """Run a command outside the source tree, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, words)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_wheel_plans_runs_a_stage_and_writes_a_report(installed: Path, tmp_path: Path) -> None:
    python, vasevqa = installed / "python", installed / "vasevqa"
    where = call(tmp_path, python, "-c", "import jobs, vasevqa; print(vasevqa.__file__, jobs.__file__)")
    assert where.count(str(installed.parent)) == 2
    (tmp_path / "views").mkdir()
    for number in range(4):
        picture(number).save(tmp_path / f"views/0000000{number}-0000-4000-8000-000000000000_front_ac001001.jpg")
    vases = [f"0000000{number}-0000-4000-8000-000000000000" for number in range(4)]
    (tmp_path / "vases.json").write_text(json.dumps([{"vase_id": vase, "shape": "kylix"} for vase in vases]))
    (tmp_path / "recipe.yaml").write_text(
        "inputs: {select-views: views, clip-filter: views, annotations: vases.json}\n"
        "steps: {sft: {extra_args: {weight_decay: 0.01}}}\n"  # this needs the packaged list of arguments
        "to: build-dataset\n"
    )
    assert "build-dataset     run " in call(tmp_path, vasevqa, "plan", "recipe.yaml", "--volume", "volume")
    assert "rows for SFT" in call(tmp_path, vasevqa, "run", "recipe.yaml", "--volume", "volume")
    [rows] = (tmp_path / "volume/artifacts/build-dataset").glob("*/sft.jsonl")
    assert "kylix" in rows.read_text()
    assert "up to date" in call(tmp_path, vasevqa, "plan", "recipe.yaml", "--volume", "volume")
    report = Path(call(tmp_path, vasevqa, "report", "--volume", "volume").split("Report: ")[1].strip())
    assert "build-dataset" in report.read_text()


def test_modules_that_clients_call_in_an_image_keep_their_names(installed: Path, tmp_path: Path) -> None:
    """A client may be newer or older than the image. Both use `python -m vasevqa.transfer` and `vasevqa.cli:main`."""
    call(tmp_path, installed / "python", "-m", "vasevqa.transfer", "--wait", "0")
    assert "Usage: vasevqa" in call(
        tmp_path,
        installed / "python",
        "-c",
        "from vasevqa.cli import main; import sys; sys.argv[1:] = ['--help']; main()",
    )


def test_the_wheel_holds_the_page_of_review(installed: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.resources as found; print(found.files('vasevqa.review').joinpath('page.html').read_text())"
    )
    assert call(tmp_path, installed / "python", "-c", program).startswith("<!doctype html>")
