"""A sample is either complete or missing: after kills and stops, with samples of older code, and in folders with other
files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from vasevqa.cli import cli
from vasevqa.errors import ConfigError
from vasevqa.sample import dataset
from vasevqa.sample.dataset import Settings, draw_sample

SMALL = Settings(vases=3, views=2, quality_vases=2, seed=1, size=96)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a sample except the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != dataset.LOCK
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a drawing without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    draw_sample(folder, SMALL)
    return contents(folder)


def test_a_killed_drawing_leaves_no_complete_sample_and_can_be_repeated(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from vasevqa.sample.dataset import Settings,"
        " draw_sample\ndraw_sample(Path(sys.argv[1]), Settings(3, 2, 2, 1, 96), lambda what, done, total:"
        " os.kill(os.getpid(), signal.SIGKILL) if done == 5 else None)"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / "s"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((tmp_path / "s").rglob("*.jpg"))
    assert not (tmp_path / "s" / dataset.MARKER).exists()
    assert not (tmp_path / "s/photos").exists()
    assert draw_sample(tmp_path / "s", SMALL)
    assert contents(tmp_path / "s") == whole


def test_a_stop_during_the_final_move_leaves_no_complete_sample(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, moved = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal moved
        moved += dataset.STAGING in str(source) and dataset.STAGING not in str(target)
        if moved == 9:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "s", SMALL)
    monkeypatch.undo()
    assert (tmp_path / "s/photos").exists()
    assert not (tmp_path / "s" / dataset.MARKER).exists()
    assert draw_sample(tmp_path / "s", SMALL, lambda *step: pytest.fail("existing drawings must only be moved"))
    assert contents(tmp_path / "s") == whole


def test_a_sample_by_older_code_is_replaced_and_other_files_stay(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "s"
    draw_sample(folder, SMALL)
    marker = json.loads((folder / dataset.MARKER).read_text())
    (folder / "photos/london/old_front_ac001001.jpg").write_bytes(b"drawn by version 0")
    (folder / "photos/london/mine.jpg").write_bytes(b"a user's")
    (folder / dataset.MARKER).write_text(
        json.dumps({**marker, "version": 0, "files": [*marker["files"], "photos/london/old_front_ac001001.jpg"]})
    )
    assert draw_sample(folder, SMALL)
    assert contents(folder) == {**whole, "photos/london/mine.jpg": b"a user's"}


def test_files_that_block_a_sample_are_reported(tmp_path: Path, whole: dict[str, bytes]) -> None:
    draw_sample(tmp_path / "s", SMALL)
    with pytest.raises(ConfigError, match="seed = 1, not 2"):
        draw_sample(tmp_path / "s", Settings(vases=3, views=2, quality_vases=2, seed=2, size=96))
    assert contents(tmp_path / "s") == whole
    (tmp_path / "mine/photos").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds other files"):
        draw_sample(tmp_path / "mine", SMALL)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        draw_sample(tmp_path / "file", SMALL)
    (tmp_path / "s" / dataset.MARKER).write_text("{")
    with pytest.raises(ConfigError, match="can't be read"):
        draw_sample(tmp_path / "s", SMALL)


def test_the_command(tmp_path: Path) -> None:
    command = ["sample", str(tmp_path / "s"), "--vases", "2", "--views", "1", "--quality-vases", "10", "--size", "96"]
    first = CliRunner().invoke(cli, command)
    assert (first.exit_code, "drew 2 vases" in first.output) == (0, True), first.output
    assert "found 2 vases" in CliRunner().invoke(cli, command).output
    assert CliRunner().invoke(cli, [*command, "--views", "7"]).exit_code == 2
    ended = subprocess.run(
        [sys.executable, "-m", "vasevqa.cli", *command, "--seed", "9"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "seed = 0, not 9" in ended.stderr
    assert "Traceback" not in ended.stderr
