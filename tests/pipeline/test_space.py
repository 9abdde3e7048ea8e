"""`vasevqa run` refuses a run for which the volume is too small, before anything runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from vasevqa import files
from vasevqa.artifacts.volume import Volume
from vasevqa.cli import cli
from vasevqa.errors import StorageError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.space import refuse_too_little

CLIP = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with a size of two mebibytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def photographs(folder: Path, count: int, side: int = 592) -> Path:
    """Photographs of about one mebibyte each, and a larger file that no step copies."""
    folder.mkdir()
    for number in range(count):
        Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(folder / f"vase{number}_1.png")
    (folder / "notes.bin").write_bytes(bytes(8 << 20))
    return folder


def test_a_run_whose_photographs_do_not_fit_is_refused_before_it_starts(small_disk: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "photos", 3)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"inputs: {{images: photos, clip_model: {CLIP}}}\nskip: [train-classifier, classify]\nto: clip-filter\n"
    )
    result = CliRunner().invoke(cli, ["run", str(recipe), "--volume", str(small_disk)])
    assert isinstance(result.exception, StorageError)
    assert str(result.exception) == (
        f"The volume {small_disk} has 2 MiB free, but the missing steps need at least 3 MiB (clip-filter 3 MiB); free"
        " some space (`vasevqa clean` lists what can be removed), or use a larger volume."
    )
    assert not (small_disk / "runs").exists()


def test_photographs_that_an_earlier_attempt_copied_are_not_counted_again(small_disk: Path, tmp_path: Path) -> None:
    images = photographs(tmp_path / "photos", 2, side=550)  # 0.9 MiB
    (tmp_path / "r.yaml").write_text(
        f"inputs: {{images: photos, clip_model: {CLIP}}}\nskip: [train-classifier, classify]\nto: clip-filter\n"
    )
    planned = make_plan(load_recipe(tmp_path / "r.yaml", PIPELINE), PIPELINE, Volume(small_disk))
    refuse_too_little(planned)
    files.copy(images / "vase0_1.png", small_disk / "other.png")
    with pytest.raises(StorageError, match="has 1 MiB free, but the missing steps need at least 2 MiB"):
        refuse_too_little(planned)
    partial = planned.steps[0].artifact.partial
    partial.mkdir(parents=True)
    (small_disk / "other.png").rename(partial / "vase0_1.png")
    refuse_too_little(planned)
