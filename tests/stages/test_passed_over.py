"""Skipped files are counted by reason, in the stage's summary and in its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.curation import images
from vasevqa.errors import DataError
from vasevqa.spec import StageCall
from vasevqa.stages import build_dataset, clip_filter, select_views

SENTENCE = "4 other files: 2 .heic need the package pi-heif, 1 .txt, 1 of other programs"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(images.MISSING, ".heic", "the package pi-heif")
    folder = tmp_path / "photos"
    pictures.vases(folder, 6, 2)
    for name in ("a.heic", "b.HEIC", "notes.txt", "@eaDir/a.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_curation_counts_other_files(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    given = {"images": photos, "clip_model": tiny_clip}
    for stage, options, params, report in (
        (clip_filter, clip_filter.Options(device="cpu"), clip_filter.Params(precision="fp32"), "filtering_report.json"),
        (select_views, select_views.Options(device="cpu"), select_views.Params(), "best_views_report.json"),
    ):
        progress, output = RecordingProgress(), FolderOutput(tmp_path / report)
        stage.run(StageCall(params, options, given, output, progress))
        assert progress.summaries[-1][0].endswith(f"; {SENTENCE}")
        assert json.loads((output.root / report).read_text())["passed_over"] == [
            {"reason": ".heic need the package pi-heif", "count": 2, "names": ["a.heic", "b.HEIC"]},
            {"reason": ".txt", "count": 1, "names": ["notes.txt"]},
            {"reason": "of other programs", "count": 1, "names": ["@eaDir"]},
        ]


def test_the_dataset_counts_other_files(photos: Path, tmp_path: Path) -> None:
    rows = [{"vase_id": pictures.vase_name(vase, 0)[:36], "shape": "kylix"} for vase in range(6)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    progress, output = RecordingProgress(), FolderOutput(tmp_path / "out")
    given = {"images": photos, "annotations": tmp_path / "a.json"}
    build_dataset.run(
        StageCall(build_dataset.BuildParams(), build_dataset.BuildOptions(), given, output, progress),
    )
    assert progress.summaries[-1][0].endswith(f"; {SENTENCE}")
    report = json.loads((output.root / "dataset_report.json").read_text())
    assert {row["reason"]: row["count"] for row in report["passed_over"]}[".heic need the package pi-heif"] == 2


def test_the_error_about_a_folder_without_photographs_names_the_missing_package(
    tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(images.MISSING, ".heic", "the package pi-heif")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.heic").write_bytes(b"x")
    given = {"images": tmp_path / "photos", "clip_model": tiny_clip}
    call = StageCall(
        clip_filter.Params(),
        clip_filter.Options(device="cpu"),
        given,
        FolderOutput(tmp_path / "out"),
        RecordingProgress(),
    )
    with pytest.raises(DataError, match=r"\(1 other file: 1 \.heic needs the package pi-heif\)"):
        clip_filter.run(call)
