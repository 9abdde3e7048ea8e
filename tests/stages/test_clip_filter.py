"""clip-filter as a user calls it: analyse, threshold, sort, go on after a kill, merge into what is there."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.curation import embeddings
from vasevqa.errors import ConfigError, DataError, DeviceError
from vasevqa.spec import StageCall
from vasevqa.stages import clip_filter
from vasevqa.stages.clip_filter import Options, Params

ROOT = Path(__file__).parent.parent.parent
CPU = Options(device="cpu", batch_size=4)


def filtered(folder: Path, model: Path, out: Path, params: Params | None = None) -> dict[str, Any]:
    clip_filter.run(
        StageCall(
            params or Params(precision="fp32"),
            CPU,
            {"images": folder, "clip_model": model},
            FolderOutput(out),
            RecordingProgress(),
        ),
    )
    loaded: dict[str, Any] = json.loads((out / "filtering_report.json").read_text())
    return loaded


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    pictures.vases(tmp_path / "photos/louvre", 3, 2)
    pictures.vases(tmp_path / "photos/berlin", 3, 2, first=3)
    pictures.save(tmp_path / "photos/louvre/same.jpg", 7)
    pictures.save(tmp_path / "photos/berlin/same.jpg", 8)
    (tmp_path / "photos/empty.jpg").touch()
    (tmp_path / "photos/text.png").write_text("not an image")
    return tmp_path / "photos"


def test_every_image_is_accepted_or_rejected_or_quarantined_once(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    report = filtered(photos, tiny_clip, tmp_path / "out")
    accepted, rejected = tree(tmp_path / "out/accepted"), tree(tmp_path / "out/rejected")
    every = {path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")} - {"empty.jpg"}
    assert accepted | rejected == every
    assert not accepted & rejected
    assert {"louvre/same.jpg", "berlin/same.jpg"} <= every
    assert {row["name"]: row["reason"] for row in report["quarantined"]} == {
        "empty.jpg": "empty (zero bytes)",
        "text.png": "not an image",
    }
    for row in report["images"]:
        assert row["score"] == pytest.approx(row["high_similarity"] - row["low_similarity"], abs=1e-9)
        assert row["accepted"] == (row["score"] >= report["threshold"]) == (row["name"] in accepted)
        assert row["decided_by"] in report["prompts"]["high" if row["accepted"] else "low"]
    scores = [row["score"] for row in report["images"]]
    assert report["threshold"] == pytest.approx(np.percentile(scores, 25))
    assert "moderate" in report["threshold_source"]
    assert (photos / "louvre/same.jpg").read_bytes() == (
        tmp_path / "out" / ("accepted" if "louvre/same.jpg" in accepted else "rejected") / "louvre/same.jpg"
    ).read_bytes()
    assert (tmp_path / "out/score_histogram.png").read_bytes().startswith(b"\x89PNG")


def test_embeddings_are_kept_for_later_steps(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    report = filtered(photos, tiny_clip, tmp_path / "out")
    stored = embeddings.load(tmp_path / "out" / embeddings.FILE)
    assert stored is not None
    assert stored[0] == [row["name"] for row in report["images"]]
    assert stored[2].shape == (len(stored[0]), 16)
    assert not (tmp_path / "out" / embeddings.PARTS).exists()


def test_an_own_threshold_is_taken(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    assert filtered(photos, tiny_clip, tmp_path / "all", Params(threshold=-2))["statistics"]["count"] == 14
    assert len(tree(tmp_path / "all/accepted")) == 14
    filtered(photos, tiny_clip, tmp_path / "none", Params(threshold=2))
    assert len(tree(tmp_path / "none/rejected")) == 14


def test_an_image_changes_sides_with_the_threshold_and_users_files_stay(
    photos: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    filtered(photos, tiny_clip, out, Params(threshold=-2))
    pictures.save(out / "rejected/of the user.jpg", 99)
    filtered(photos, tiny_clip, out, Params(threshold=2))
    assert tree(out / "accepted") == set()
    assert tree(out / "rejected") == {
        row["name"] for row in json.loads((out / "filtering_report.json").read_text())["images"]
    } | {"of the user.jpg"}


def test_a_second_folder_is_merged_in(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    pictures.vases(tmp_path / "more", 2, 1, first=50)
    filtered(photos, tiny_clip, tmp_path / "out", Params(threshold=-2))
    report = filtered(tmp_path / "more", tiny_clip, tmp_path / "out", Params(threshold=-2))
    assert len(tree(tmp_path / "out/accepted")) == 16
    assert len(report["images"]) == 2
    assert len(report["earlier_images"]) == 14


def test_analysing_needs_no_output_and_is_the_same_for_a_seed(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    def analysis(seed: int, output: FolderOutput | None = None) -> RecordingProgress:
        progress = RecordingProgress()
        params = Params(analyze_only=True, sample_size=6, seed=seed, precision="fp32")
        clip_filter.run(StageCall(params, CPU, {"images": photos, "clip_model": tiny_clip}, output, progress))
        return progress

    first = analysis(1)
    assert first.notes == analysis(1).notes
    assert first.notes != analysis(2).notes
    text = "\n".join(first.notes)
    for word in ("mean", "std", "median", "conservative", "moderate", "balanced", "aggressive", "strict"):
        assert word in text
    analysis(1, FolderOutput(tmp_path / "out"))
    assert tree(tmp_path / "out") == {"analysis.json", "score_histogram.png"}


def test_nothing_to_do_is_an_error(tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image"):
        filtered(tmp_path / "empty", tiny_clip, tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.jpg").write_text("x")
    with pytest.raises(DataError, match="not an image"):
        filtered(tmp_path / "bad", tiny_clip, tmp_path / "out")


def test_a_device_that_is_not_there_is_no_reason_to_use_another(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cuda:7"):
        clip_filter.run(
            StageCall(
                Params(),
                Options(device="cuda:7"),
                {"images": photos, "clip_model": tiny_clip},
                FolderOutput(tmp_path / "out"),
                RecordingProgress(),
            ),
        )
    with pytest.raises(ConfigError, match="gpu"):
        clip_filter.run(
            StageCall(
                Params(),
                Options(device="gpu"),
                {"images": photos, "clip_model": tiny_clip},
                FolderOutput(tmp_path / "out"),
                RecordingProgress(),
            ),
        )


def test_killed_while_scoring_it_goes_on_and_embeds_nothing_twice(tiny_clip: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    pictures.vases(photos, 60, 5)  # more than one part of embeddings
    words = [
        "--input-dir",
        str(photos),
        "--clip-model",
        str(tiny_clip),
        "--output-dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--json-events",
    ]
    parts = tmp_path / "out" / embeddings.PARTS
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.clip_filter", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    ) as stage:
        while not list(parts.glob("*.safetensors")):
            assert stage.poll() is None, "it must be killed before it ends"
            select.select([], [], [], 0.005)
        stage.send_signal(signal.SIGKILL)
    again = subprocess.run([sys.executable, "-m", "jobs.clip_filter", *words], capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 0, again.stderr
    notes = [json.loads(line)["text"] for line in again.stdout.splitlines() if '"event": "note"' in line]
    assert any("not embedded again" in note for note in notes)
    undisturbed = filtered(photos, tiny_clip, tmp_path / "undisturbed")
    report = json.loads((tmp_path / "out/filtering_report.json").read_text())
    assert [(row["name"], row["accepted"]) for row in report["images"]] == [
        (row["name"], row["accepted"]) for row in undisturbed["images"]
    ]
    np.testing.assert_allclose(
        [row["score"] for row in report["images"]], [row["score"] for row in undisturbed["images"]], atol=1e-5
    )
    assert tree(tmp_path / "out/accepted") == tree(tmp_path / "undisturbed/accepted")


def test_an_edited_photograph_is_embedded_again(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    before = {row["name"]: row["score"] for row in filtered(photos, tiny_clip, tmp_path / "out")["images"]}
    pictures.save(photos / "louvre/same.jpg", 12345)
    os.utime(photos / "louvre/same.jpg", (1, 1))
    after = {row["name"]: row["score"] for row in filtered(photos, tiny_clip, tmp_path / "out")["images"]}
    assert {name for name in before if before[name] != after[name]} == {"louvre/same.jpg"}


def on_terminal(words: list[str], answers: str) -> tuple[int, str]:
    """Run clip-filter on a pseudo-terminal and type `answers`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "jobs.clip_filter", *words])
    text = b""
    os.write(terminal, answers.encode())
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:
            break
        if not block:
            break
        text += block
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode()


def test_the_menu_on_a_terminal(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    words = [
        "--input-dir",
        str(photos),
        "--clip-model",
        str(tiny_clip),
        "--output-dir",
        str(tmp_path / "out"),
        "--interactive",
    ]
    code, text = on_terminal(words, "4\n3\n-2\n")
    assert code == 0, text
    assert "quick look at 100 samples" in text
    assert len(tree(tmp_path / "out/accepted")) == 14


def test_the_menu_without_a_terminal_is_refused(photos: Path, tiny_clip: Path) -> None:
    words = ["--input-dir", str(photos), "--clip-model", str(tiny_clip), "--output-dir", "unused", "--interactive"]
    result = subprocess.run(
        [sys.executable, "-m", "jobs.clip_filter", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 2
    assert "needs a terminal" in result.stderr
