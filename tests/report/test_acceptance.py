"""The report shows which classes of vases the filters remove."""

from __future__ import annotations

import json
from pathlib import Path

from vasevqa.artifacts.volume import Volume
from vasevqa.pipeline.events import EventLog
from vasevqa.report.audit import Acceptance, acceptance, century
from vasevqa.report.html import write_report


def audited(volume_root: Path, recipe: str) -> tuple[str, Acceptance]:
    """The report of a run whose clip-filter keeps few photographs of ten bronze vases and all of 20 clay vases."""
    run = volume_root / "runs/20260101-000000-demo-abcd"
    (run / "steps").mkdir(parents=True)
    (run / "recipe.yaml").write_text(recipe)
    EventLog(run / "events.jsonl").append("run-started", steps=["clip-filter", "select-views"], skipped={})
    rows = [
        {"name": f"{'rome' if vase < 10 else 'paris'}/V{vase}_{view}.jpg", "accepted": vase >= 10 or vase + view == 0}
        for vase in range(30)
        for view in range(2)
    ]
    lost = [{"vase": "V7", "lost_at": "clip-filter", "best": "rome/V7_1.jpg", "score": 0.25}]
    for step, file, report in (
        ("clip-filter", "filtering_report.json", {"images": rows}),
        ("select-views", "best_views_report.json", {"lost": lost}),
    ):
        artifact = volume_root / f"artifacts/{step}/k"
        artifact.mkdir(parents=True)
        (artifact / file).write_text(json.dumps(report))
        (run / "steps" / step).symlink_to(artifact)
    html = write_report(run, Volume(volume_root)).read_text()
    found = Acceptance.read(run)
    assert found is not None
    return html, found


def test_the_report_warns_of_a_filter_that_removes_most_of_a_class(volume_root: Path, tmp_path: Path) -> None:
    table = tmp_path / "vases.csv"
    lines = [f"V{vase},{'Bronze' if vase < 10 else 'Clay'},{'-450' if vase % 2 else '-550'}" for vase in range(30)]
    table.write_text("\n".join(["vase_id,fabric,date", *lines]))
    recipe = f"inputs: {{images: photos, annotations: {table}}}\nname_pattern: '(?P<vase>V\\d+)_(?P<view>\\d)'\n"
    html, found = audited(volume_root, recipe)
    rows = {(row.attribute, row.name): row for row in found.classes}
    assert list(rows) == [
        ("collection", "paris"),
        ("collection", "rome"),
        ("date", "century 5 BC"),
        ("date", "century 6 BC"),
        ("fabric", "bronze"),
        ("fabric", "clay"),
    ]
    assert (found.overall, found.annotated, found.small) == (
        {"clip-filter": 41 / 60},
        {"clip-filter": 60},
        {"clip-filter": 0},
    )
    assert (rows["fabric", "bronze"].accepted, rows["fabric", "bronze"].vases) == (1 / 20, 10)
    assert [name for name, row in rows.items() if row.warned] == [("collection", "rome"), ("fabric", "bronze")]
    assert "clip-filter removed 95% of the photographs of fabric &#39;bronze&#39; [" in html
    assert "and 32% of all photographs." in html
    assert "<td>V7</td><td>clip-filter</td><td>rome/V7_1.jpg</td>" in html


def test_without_annotations_only_folders_are_classes_and_few_vases_are_none(volume_root: Path) -> None:
    html, found = audited(volume_root, "inputs: {images: photos, annotations: none.csv}\n")
    assert {row.attribute for row in found.classes} == {"collection"}
    assert found.annotated == {"clip-filter": 0}
    assert "of which 0 have an annotation" in html


def test_classify_is_audited_too_and_a_damaged_table_of_it_doesn_t_stop_the_report(volume_root: Path) -> None:
    lines = [f"rome/V{vase}.jpg,0.{vase},{int(vase > 4)}" for vase in range(1, 10)]
    (volume_root / "predictions.csv").write_text("\n".join(["path,probability,class", *lines]))
    found = acceptance({"classify": volume_root}, volume_root / "recipe.yaml")
    assert found.overall == {"classify": 5 / 9}
    assert [(row.name, row.vases, row.accepted) for row in found.classes] == [("rome", 9, 5 / 9)]
    (volume_root / "predictions.csv").write_text("path,probability,class\nx,0.5,7\n")
    assert acceptance({"classify": volume_root}, volume_root / "recipe.yaml") == Acceptance()


def test_centuries() -> None:
    told = ("-500 to -451", "5th century BC", "550 BC", "AD 120", "unknown")
    assert [century(text) for text in told] == [
        "century 5 BC",
        "century 5 BC",
        "century 6 BC",
        "century 2 AD",
        None,
    ]
