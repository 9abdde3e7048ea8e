"""A wheel in a fresh environment: what an editable install hides, such as a data file that isn't packaged."""

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
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and this one's dependencies, which doesn't see this one's editable install."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    source = folder / "source"  # a copy, so that no build leaves anything in the working tree
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
    # A line in a .pth file adds the folder, and not what that folder's own .pth files say.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "fresh/bin"


def call(folder: Path, *words: str | Path) -> str:
    """Run a command outside of the source tree; returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, words)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_plans_runs_a_stage_and_reports(installed: Path, tmp_path: Path) -> None:
    python, vasevqa = installed / "python", installed / "vasevqa"
    where = call(tmp_path, python, "-c", "import jobs, vasevqa; print(vasevqa.__file__, jobs.__file__)")
    assert where.count(str(installed.parent)) == 2
    (tmp_path / "views").mkdir()
    for number in range(4):
        picture = Image.new("RGB", (40, 40), (60 * number, 40, 200 - 60 * number))
        picture.save(tmp_path / f"views/0000000{number}-0000-4000-8000-000000000000_front_ac001001.jpg")
    vases = [f"0000000{number}-0000-4000-8000-000000000000" for number in range(4)]
    (tmp_path / "vases.json").write_text(json.dumps([{"vase_id": vase, "shape": "kylix"} for vase in vases]))
    (tmp_path / "recipe.yaml").write_text(
        "inputs: {select-views: views, clip-filter: views, annotations: vases.json}\n"
        "steps: {sft: {extra_args: {weight_decay: 0.01}}}\n"  # checked against the packaged list of arguments
        "to: build-dataset\n"
    )
    assert "build-dataset     run " in call(tmp_path, vasevqa, "plan", "recipe.yaml", "--volume", "volume")
    assert "rows to train on" in call(tmp_path, vasevqa, "run", "recipe.yaml", "--volume", "volume")
    [rows] = (tmp_path / "volume/artifacts/build-dataset").glob("*/sft.jsonl")
    assert "kylix" in rows.read_text()
    assert "up to date" in call(tmp_path, vasevqa, "plan", "recipe.yaml", "--volume", "volume")
    report = Path(call(tmp_path, vasevqa, "report", "--volume", "volume").split("Report: ")[1].strip())
    assert "build-dataset" in report.read_text()


def test_modules_that_clients_call_in_an_image_keep_their_names(installed: Path, tmp_path: Path) -> None:
    """A client may be newer or older than the image: `python -m vasevqa.transfer` and `vasevqa.cli:main` are theirs."""
    call(tmp_path, installed / "python", "-m", "vasevqa.transfer", "--wait", "0")
    assert "Usage: vasevqa" in call(
        tmp_path,
        installed / "python",
        "-c",
        "from vasevqa.cli import main; import sys; sys.argv[1:] = ['--help']; main()",
    )
