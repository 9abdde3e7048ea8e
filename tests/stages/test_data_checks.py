"""clip-filter's data checks: columns of its report, and limits that reject."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa import files
from vasevqa.curation.reports import DataChecks, FilteringReport
from vasevqa.errors import ConfigError
from vasevqa.runtime.flags import validate
from vasevqa.spec import StageCall
from vasevqa.stages.clip_filter import Options, Params

COLUMNS = list(DataChecks.model_fields)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(6):
        pictures.save(folder / f"{number}.jpg", number, (320, 240))
    pictures.photo(2, (320, 240)).filter(ImageFilter.GaussianBlur(1)).save(folder / "twin.jpg")
    pictures.save(folder / "small.jpg", 70, (90, 100))
    Image.new("RGB", (320, 240), "white").save(folder / "white.png")
    (folder / "text.png").write_text("not an image")
    return folder


def run(photos: Path, model: Path, out: Path, **params: Any) -> RecordingProgress:
    from vasevqa.stages import clip_filter

    progress = RecordingProgress()
    inputs = {"images": photos, "clip_model": model}
    chosen = Params(**{"precision": "fp32", "threshold": -2, **params})
    options = Options(device="cpu", batch_size=4)
    clip_filter.run(StageCall(chosen, options, inputs, FolderOutput(out), progress))
    return progress


def test_the_checks_are_columns_and_reject_nothing(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    progress = run(photos, tiny_clip, tmp_path / "out")
    report = FilteringReport.read(tmp_path / "out")
    assert report is not None
    rows = {row.name: row for row in report.images}
    assert len(rows) == 9
    assert all(row.accepted and not row.failed_check for row in rows.values())
    assert (rows["small.jpg"].width, rows["small.jpg"].height, rows["small.jpg"].aspect) == (90, 100, 0.9)
    assert (rows["white.png"].clipped_bright, rows["white.png"].frame, rows["white.png"].sharpness) == (1, 1, 0)
    assert rows["twin.jpg"].near_duplicate_of == "2.jpg"
    assert [row.near_duplicate_of for row in rows.values()].count(None) == 8
    assert all(row.scale_bar_suspected is False for row in rows.values())
    table = {row["name"]: row for row in files.read_table(tmp_path / "out/checks.csv")}
    assert table.keys() == rows.keys() | {"text.png"}
    assert all(table["text.png"][column] == "" for column in COLUMNS)
    assert table["small.jpg"]["aspect"] == "0.9"
    assert "failed_checks" not in progress.summaries[0][1]


def test_a_limit_rejects_with_its_reason_and_is_counted_apart(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    progress = run(photos, tiny_clip, tmp_path / "out", min_side=200, max_clipped=0.9)
    report = json.loads((tmp_path / "out/filtering_report.json").read_text())
    assert {row["name"]: row["failed_check"] for row in report["images"] if not row["accepted"]} == {
        "small.jpg": "shorter side 90 px < min_side 200",
        "white.png": "clipped 1 > max_clipped 0.9",
    }
    assert all(row["score"] >= report["threshold"] for row in report["images"])  # CLIP's verdict is kept
    assert report["limits"] == {"min_side": 200, "max_clipped": 0.9}
    assert {path.name for path in (tmp_path / "out/rejected").iterdir()} == {"small.jpg", "white.png"}
    text, figures = progress.summaries[0]
    assert "2 rejected by data checks" in text
    assert (figures["accepted"], figures["rejected"], figures["failed_checks"]) == (7, 2, 2)


def test_a_second_call_uses_the_values_of_the_first(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    run(photos, tiny_clip, tmp_path / "out")
    first = FilteringReport.read(tmp_path / "out")
    again = run(photos, tiny_clip, tmp_path / "out")
    assert "9 images were already embedded by an earlier attempt" in again.notes
    assert FilteringReport.read(tmp_path / "out") == first
    without = run(photos, tiny_clip, tmp_path / "out", checks="none")
    assert not [note for note in without.notes if "already" in note]  # their files hold other values
    assert not (tmp_path / "out/checks.csv").exists()


def test_without_checks_the_scores_are_the_same(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    run(photos, tiny_clip, tmp_path / "full")
    run(photos, tiny_clip, tmp_path / "none", checks="none")
    full, none = (FilteringReport.read(tmp_path / name) for name in ("full", "none"))
    assert full is not None
    assert none is not None
    assert [row.score for row in full.images] == [row.score for row in none.images]
    assert {getattr(row, column) for row in none.images for column in COLUMNS} == {None}
    assert not (tmp_path / "none/checks.csv").exists()


def test_the_analysis_prints_the_distribution_for_limits(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    notes = run(photos, tiny_clip, tmp_path / "out", analyze_only=True).notes
    assert any(note.startswith("sharpness (--min-sharpness): 5% ") for note in notes)
    assert any(note.endswith("near-duplicates: 1") for note in notes)


def test_a_limit_without_checks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--min-side: a limit can be used only if the data checks run"):
        validate(Params, {"checks": "none", "min_side": 300})
    with pytest.raises(ConfigError, match="--max-clipped"):
        validate(Params, {"max_clipped": 1.5})
