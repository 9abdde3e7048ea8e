"""The report shows which classes of vases the filters remove."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.kit import RUN, curated, section, seen
from vasevqa.artifacts.volume import Volume
from vasevqa.pipeline.events import EventLog
from vasevqa.pipeline.runs import Run
from vasevqa.report.audit import Acceptance, ClassAcceptance, acceptance, century, named_class
from vasevqa.report.html import write_report
from vasevqa.report.recipes import Told
from vasevqa.report.sources import Sources


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
    artifact = volume_root / "artifacts/clip-filter/k"
    artifact.mkdir(parents=True)
    (artifact / "filtering_report.json").write_text(json.dumps({"images": rows}))
    (run / "steps/clip-filter").symlink_to(artifact)
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


def test_without_annotations_only_folders_are_classes_and_few_vases_are_none(volume_root: Path) -> None:
    html, found = audited(volume_root, "inputs: {images: photos, annotations: none.csv}\n")
    assert {row.attribute for row in found.classes} == {"collection"}
    assert found.annotated == {"clip-filter": 0}
    assert "of which 0 have an annotation" in html


def test_classify_is_audited_too_and_a_damaged_table_of_it_doesn_t_stop_the_report(volume_root: Path) -> None:
    lines = [f"rome/V{vase}.jpg,0.{vase},{int(vase > 4)}" for vase in range(1, 10)]
    (volume_root / "predictions.csv").write_text("\n".join(["path,probability,class", *lines]))
    found = acceptance(Sources({"classify": volume_root}), Told.by(volume_root / "recipe.yaml"))
    assert found.overall == {"classify": 5 / 9}
    assert [(row.name, row.vases, row.accepted) for row in found.classes] == [("rome", 9, 5 / 9)]
    (volume_root / "predictions.csv").write_text("path,probability,class\nx,0.5,7\n")
    assert acceptance(Sources({"classify": volume_root}), Told.by(volume_root / "recipe.yaml")) == Acceptance()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-500 to -451", "century 5 BC"),
        ("5th century BC", "century 5 BC"),
        ("550 BC", "century 6 BC"),
        ("501 BC", "century 6 BC"),
        ("500 BC", "century 5 BC"),
        ("-500", "century 5 BC"),
        ("401 BC", "century 5 BC"),
        ("400 BC", "century 4 BC"),
        ("-600 to -401", "century 5 BC"),  # both centuries in equal parts: the later one
        ("1st century BC", "century 1 BC"),
        ("100 BC", "century 1 BC"),
        ("50 BC to AD 50", "century 1 AD"),
        ("1st century AD", "century 1 AD"),
        ("AD 100", "century 1 AD"),
        ("AD 101", "century 2 AD"),
        ("AD 120", "century 2 AD"),
        ("unknown", None),
    ],
)
def test_centuries(text: str, expected: str | None) -> None:
    assert century(text) == expected


@given(st.integers(1, 12), st.sampled_from([("st", "BC"), ("th", "AD")]))
def test_a_century_in_words_is_that_century(number: int, told: tuple[str, str]) -> None:
    assert century(f"{number}{told[0]} century {told[1]}") == f"century {number} {told[1]}"


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        ("shape", ("Kylix", "drinking cup", "Trinkschale", "κύλιξ", "coppa"), "kylix"),
        ("technique", ("red-figure", "Red figured", "rotfigurig", "figures rouges"), "red-figure"),
        ("technique", ("bilingual", "black-figure and red-figure", "Rotfigurig, schwarzfigurig"),
         "black-figure + red-figure"),
        ("fabric", ("Attic", "attisch", "Athens", " ATTICO "), "attic"),
        ("fabric", ("Some  Place", "some place"), "some place"),
    ],
)  # fmt: skip
def test_synonyms_and_languages_fall_in_one_class(kind: str, texts: tuple[str, ...], expected: str) -> None:
    assert {named_class(kind, text) for text in texts} == {expected}


def test_the_recipe_s_own_vocabulary_decides_about_classes(volume_root: Path, tmp_path: Path) -> None:
    table = tmp_path / "vases.csv"
    lines = [f"V{vase},{'Brontium' if vase % 2 else 'Bronze'}" for vase in range(30)]
    table.write_text("\n".join(["vase_id,fabric", *lines]))
    (tmp_path / "words").mkdir()
    (tmp_path / "words/fabric.yaml").write_text("metal: {en: [bronze, brontium]}\n")
    inputs = f"inputs: {{images: photos, annotations: {table}, vocabulary: {tmp_path / 'words'}}}\n"
    pattern = "name_pattern: '(?P<vase>V\\d+)_(?P<view>\\d)'\n"
    _, found = audited(volume_root, inputs + pattern)
    assert [(row.name, row.vases) for row in found.classes if row.attribute == "fabric"] == [("metal", 30)]
    (tmp_path / "words/fabric.yaml").write_text("metal: 7\n")
    found = acceptance(
        Sources(Run(Volume(volume_root), RUN).artifacts()), Told.by(volume_root / "runs" / RUN / "recipe.yaml")
    )
    assert {row.name for row in found.classes if row.attribute == "fabric"} == {"bronze", "brontium"}


def test_a_class_of_which_few_are_left_is_not_said_to_be_gone() -> None:
    row = ClassAcceptance(
        step="classify", attribute="shape", name="kylix", photographs=999, vases=99, accepted=0.003, low=0.0005,
        high=0.02, warned=True,
    )  # fmt: skip
    assert row.said() == "classify removed >99% of the photographs of shape 'kylix' [98%, >99%]"


def test_classes_of_too_few_vases_are_counted_even_if_there_are_no_others(volume_root: Path) -> None:
    images = [{"name": f"rome/V{number}_1.jpg", "score": 0.5, "accepted": True} for number in range(3)]
    run = curated(volume_root, {"clip-filter/filtering_report.json": {"images": images}})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "acceptance")
    assert seen(shown, "p") == [
        "clip-filter accepted 100% of 3 photographs, of which 0 have an annotation. Classes of fewer than 8 vases,"
        " which are left out: 1."
    ]
    assert "<table" not in shown
