"""The reports of stages: a later stage reads them, also in the format of older versions."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fakes import FolderOutput
from vasevqa.curation.reports import (
    BestViewsReport,
    DataChecks,
    FilteringReport,
    ScoredImage,
    TimedScoringModel,
    ViewChoice,
)
from vasevqa.dataset.report import DatasetReport


def test_a_written_report_is_read_with_its_schema_version(tmp_path: Path) -> None:
    images = [ScoredImage(name="a.jpg", accepted=True, score=0.25, high_similarity=0.5, low_similarity=0.25)]
    report = FilteringReport(threshold=0.2, threshold_source="given", images=images)
    report.write(FolderOutput(tmp_path))
    assert json.loads((tmp_path / "filtering_report.json").read_text())["schema"] == 1
    assert FilteringReport.read(tmp_path) == report


def test_a_report_without_a_schema_version_is_read(tmp_path: Path) -> None:
    old = {
        "model": {"name": "ViT", "digest": "d", "precision": "fp32"},
        "threshold": 0.2,
        "images": [{"name": "a.jpg", "score": 0.3, "accepted": True}, {"name": 5, "accepted": True}, "nonsense"],
        "quarantined": [{"name": "b.jpg", "reason": "not an image"}],
        "something": "that nobody knows any more",
    }
    (tmp_path / "filtering_report.json").write_text(json.dumps(old))
    report = FilteringReport.read(tmp_path)
    assert report is not None
    assert (report.model.digest, report.schema_version, report.complete) == ("d", 1, True)
    assert [(row.name, row.score) for row in report.images] == [("a.jpg", 0.3)]
    assert {getattr(report.images[0], name) for name in DataChecks.model_fields} == {None}
    assert report.images[0].failed_check == ""
    assert report.quarantined[0].reason == "not an image"
    (tmp_path / "best_views_report.json").write_text('{"vases": [{"vase": "v", "best": "a.jpg"}]}')
    assert BestViewsReport.read(tmp_path) == BestViewsReport(vases=[ViewChoice(vase="v", best="a.jpg")])
    (tmp_path / "dataset_report.json").write_text('{"image_root": "../.."}')
    dataset = DatasetReport.read(tmp_path)
    assert dataset is not None
    assert dataset.image_root == "../.."


def test_a_missing_or_broken_file_gives_no_report(tmp_path: Path) -> None:
    assert FilteringReport.read(tmp_path) is None
    for text in ("", "[]", "{", '{"threshold": "high"}', '{"images": 3}'):
        (tmp_path / "filtering_report.json").write_text(text)
        assert FilteringReport.read(tmp_path) is None


def test_seconds_are_in_the_analysis_and_not_in_the_report() -> None:
    timed = TimedScoringModel(name="ViT", seconds={"decode": 1.5})
    assert FilteringReport(model=timed).model_dump()["model"]["seconds"] == {"decode": 1.5}
    assert "seconds" not in FilteringReport().model_dump()["model"]
