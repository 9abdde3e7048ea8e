"""clip-filter: analysis, threshold, sorting, resuming after a kill, and merging into an existing folder."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.curation import embeddings
from vasevqa.errors import ConfigError, DataError, DeviceError
from vasevqa.runtime.flags import validate
from vasevqa.sample.catalogue import invent
from vasevqa.sample.photographing import Shot, photograph
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


def test_the_users_threshold_is_used(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    assert filtered(photos, tiny_clip, tmp_path / "all", Params(threshold=-2))["statistics"]["count"] == 14
    assert len(tree(tmp_path / "all/accepted")) == 14
    filtered(photos, tiny_clip, tmp_path / "none", Params(threshold=2))
    assert len(tree(tmp_path / "none/rejected")) == 14


def test_a_new_threshold_moves_images_and_keeps_the_users_files(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    filtered(photos, tiny_clip, out, Params(threshold=-2))
    pictures.save(out / "rejected/of the user.jpg", 99)
    filtered(photos, tiny_clip, out, Params(threshold=2))
    assert tree(out / "accepted") == set()
    assert tree(out / "rejected") == {
        row["name"] for row in json.loads((out / "filtering_report.json").read_text())["images"]
    } | {"of the user.jpg"}


def test_a_second_folder_is_merged_into_the_output(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    pictures.vases(tmp_path / "more", 2, 1, first=50)
    filtered(photos, tiny_clip, tmp_path / "out", Params(threshold=-2))
    report = filtered(tmp_path / "more", tiny_clip, tmp_path / "out", Params(threshold=-2))
    assert len(tree(tmp_path / "out/accepted")) == 16
    assert len(report["images"]) == 2
    assert len(report["earlier_images"]) == 14


def test_the_analysis_needs_no_output_and_is_reproducible_with_a_seed(
    photos: Path, tiny_clip: Path, tmp_path: Path
) -> None:
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


def test_an_input_without_usable_images_is_an_error(tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image"):
        filtered(tmp_path / "empty", tiny_clip, tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.jpg").write_text("x")
    with pytest.raises(DataError, match="not an image"):
        filtered(tmp_path / "bad", tiny_clip, tmp_path / "out")


def test_a_missing_device_is_not_replaced_by_another_device(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
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
    with pytest.raises(ConfigError, match=r"^--device: there is no such device; use auto, .*got 'gpu'"):
        validate(Options, {"device": "gpu"})


def test_after_a_kill_scoring_resumes_and_embeds_no_image_twice(tiny_clip: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    pictures.vases(photos, 60, 5)  # the embeddings have more than one part
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
            assert stage.poll() is None, "the stage ended before it was killed"
            select.select([], [], [], 0.005)
        stage.send_signal(signal.SIGKILL)
    again = subprocess.run([sys.executable, "-m", "jobs.clip_filter", *words], capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 0, again.stderr
    notes = [json.loads(line)["text"] for line in again.stdout.splitlines() if '"event": "note"' in line]
    assert any("already embedded by an earlier attempt" in note for note in notes)
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
    before = {
        row["name"]: row["high_similarity"] - row["low_similarity"]
        for row in filtered(photos, tiny_clip, tmp_path / "out")["images"]
    }
    pictures.save(photos / "louvre/same.jpg", 12345)
    os.utime(photos / "louvre/same.jpg", (1, 1))
    after = {
        row["name"]: row["high_similarity"] - row["low_similarity"]
        for row in filtered(photos, tiny_clip, tmp_path / "out")["images"]
    }
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


def test_the_menu_is_refused_without_a_terminal(photos: Path, tiny_clip: Path) -> None:
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


def test_draft_decoding_keeps_the_order_of_the_scores(tiny_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        rng = random.Random(number)
        vase = invent(rng)
        (folder / f"{number}.jpg").write_bytes(photograph(vase, Shot(rng.uniform(0, 360), None, number, 500)))
    scores = []
    for exact in (False, True):
        report = filtered(folder, tiny_clip, tmp_path / str(exact), Params(precision="fp32", exact_decode=exact))
        scores.append({row["name"]: row["high_similarity"] - row["low_similarity"] for row in report["images"]})
    names = sorted(scores[0])
    assert spearmanr([scores[0][name] for name in names], [scores[1][name] for name in names])[0] >= 0.995
