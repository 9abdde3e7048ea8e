"""select-views: it selects the best view of each vase, computes nothing twice, and reports each lost vase."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from tests.pipeline.kit import ROOT
from vasevqa.curation import clip
from vasevqa.errors import ConfigError, DataError
from vasevqa.spec import StageCall
from vasevqa.stages import clip_filter, select_views
from vasevqa.stages.select_views import Options, Params


def select(
    images: Path, out: Path, model: Path | None = None, params: Params | None = None, classified: Path | None = None
) -> dict[str, Any]:
    inputs = (
        {"images": images}
        | ({"clip_model": model} if model else {})
        | ({"classified": classified} if classified else {})
    )
    select_views.run(
        StageCall(
            params or Params(precision="fp32", unmatched="own-vase"),
            Options(device="cpu"),
            inputs,
            FolderOutput(out),
            RecordingProgress(),
        )
    )
    loaded: dict[str, Any] = json.loads((out / "best_views_report.json").read_text())
    return loaded


def placed(out: Path) -> set[str]:
    return {
        path.relative_to(out / "best_views").as_posix() for path in (out / "best_views").rglob("*") if path.is_file()
    }


@pytest.fixture
def filtered(tmp_path: Path, tiny_clip: Path) -> Path:
    pictures.vases(tmp_path / "photos/a", 3, 3)
    pictures.vases(tmp_path / "photos/b", 2, 2, first=3)
    pictures.save(tmp_path / "photos/IMG 0001.jpg", 5)
    (tmp_path / f"photos/{pictures.vase_name(9, 0)}").write_bytes(b"")
    clip_filter.run(
        StageCall(
            clip_filter.Params(precision="fp32"),
            clip_filter.Options(device="cpu"),
            {"images": tmp_path / "photos", "clip_model": tiny_clip},
            FolderOutput(tmp_path / "filtered"),
            RecordingProgress(),
        ),
    )
    return tmp_path / "filtered"


def test_the_view_with_the_most_complete_vase_is_selected(filtered: Path, tmp_path: Path) -> None:
    report = select(filtered, tmp_path / "out")
    source = {
        row["name"]: row
        for row in json.loads((filtered / "filtering_report.json").read_text())["images"]
        if row["accepted"]
    }
    assert {view["name"] for vase in report["vases"] for view in vase["views"]} == set(source)
    for vase in report["vases"]:
        similarities = [source[view["name"]]["high_similarity"] for view in vase["views"]]
        assert vase["similarity"] == max(similarities) == source[vase["best"]]["high_similarity"]
        if len(similarities) > 1:
            assert vase["margin"] == pytest.approx(similarities[0] - similarities[1])
            assert vase["runner_up"] == vase["views"][1]["name"]
    assert placed(tmp_path / "out") == {vase["best"] for vase in report["vases"]}
    stats = json.loads((tmp_path / "out/filtering_stats.json").read_text())
    assert stats["vases"] == len(report["vases"])
    assert stats["reduction"] == pytest.approx(1 - len(report["vases"]) / len(source))


def test_scores_of_clip_filter_are_reused_and_no_model_is_loaded(
    filtered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(clip, "load_clip", refuse)
    assert select(filtered, tmp_path / "whole")["scores_from"] == "clip-filter"
    assert (
        select(filtered / "accepted", tmp_path / "accepted only")["vases"]
        == select(filtered, tmp_path / "again")["vases"]
    )


def test_under_a_launcher_nothing_above_the_input_is_read(filtered: Path, tmp_path: Path) -> None:
    """The artifact's key covers only the input. A change of a report above the input would not change the key."""
    call = StageCall(
        Params(precision="fp32", unmatched="own-vase"),
        Options(device="cpu"),
        {"images": filtered / "accepted"},
        FolderOutput(tmp_path / "out", standalone=False),
        RecordingProgress(),
    )
    with pytest.raises(ConfigError, match="were not scored by clip-filter; give clip-filter's whole output"):
        select_views.run(call)


def test_existing_scores_are_used_without_torch(filtered: Path, tmp_path: Path) -> None:
    words = ["--input-dir", str(filtered), "--output-dir", str(tmp_path / "out"), "--unmatched", "own-vase"]
    code = (
        "import atexit, sys\nfrom vasevqa.runtime.command import main\nfrom vasevqa.stages.select_views import STAGE\n"
        f"atexit.register(lambda: print('torch' in sys.modules))\nmain(STAGE, {words})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.splitlines()[-1] == "False", result.stdout + result.stderr
    assert (tmp_path / "out/best_views_report.json").is_file()


def test_select_views_scores_a_folder_without_scores(filtered: Path, tiny_clip: Path, tmp_path: Path) -> None:
    report = select(tmp_path / "photos/a", tmp_path / "out", tiny_clip)
    assert report["scores_from"] == "this step"
    assert len(report["vases"]) == 3
    with pytest.raises(ConfigError, match="--clip-model"):
        select(tmp_path / "photos/a", tmp_path / "none")


def test_unmatched_names_are_kept_and_reported(filtered: Path, tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 15 names .* \(such as IMG 0001.jpg\); the others fit UUID_view_ac;"):
        select(tmp_path / "photos", tmp_path / "none", tiny_clip, Params(precision="fp32"))
    report = select(tmp_path / "photos", tmp_path / "out", tiny_clip)
    assert report["unmatched"] == ["IMG 0001.jpg"]
    assert "IMG 0001.jpg" in placed(tmp_path / "out")
    assert [row["reason"] for row in report["quarantined"]] == ["empty (zero bytes)"]


def test_another_name_pattern_is_used(tiny_clip: Path, tmp_path: Path) -> None:
    for name in ("v1-front", "v1-back", "v2-front"):
        pictures.save(tmp_path / f"photos/{name}.jpg", hash(name) % 100)
    report = select(
        tmp_path / "photos",
        tmp_path / "out",
        tiny_clip,
        Params(name_pattern=r"(?P<vase>\w+)-(?P<view>\w+)", precision="fp32"),
    )
    assert [vase["vase"] for vase in report["vases"]] == ["v1", "v2"]
    with pytest.raises(ConfigError, match="vase"):
        select(tmp_path / "photos", tmp_path / "bad", tiny_clip, Params(name_pattern="(.*)"))
    with pytest.raises(ConfigError, match="regular expression"):
        select(tmp_path / "photos", tmp_path / "bad", tiny_clip, Params(name_pattern="("))


def test_equal_scores_are_decided_by_name(tiny_clip: Path, tmp_path: Path) -> None:
    for view in (2, 0, 1):
        pictures.save(tmp_path / "photos" / pictures.vase_name(1, view), 5)
    (vase,) = select(tmp_path / "photos", tmp_path / "out", tiny_clip)["vases"]
    assert vase["best"] == min(view["name"] for view in vase["views"])
    assert "first by name" in vase["reason"]


def test_vases_without_accepted_views_are_listed_with_their_best_rejected_view(tiny_clip: Path, tmp_path: Path) -> None:
    pictures.vases(tmp_path / "photos", 6, 2)
    clip_filter.run(
        StageCall(
            clip_filter.Params(precision="fp32"),
            clip_filter.Options(device="cpu"),
            {"images": tmp_path / "photos", "clip_model": tiny_clip},
            FolderOutput(tmp_path / "f"),
            RecordingProgress(),
        ),
    )
    scores = {
        row["name"]: row["score"] for row in json.loads((tmp_path / "f/filtering_report.json").read_text())["images"]
    }
    threshold = sorted(scores.values())[-2]
    clip_filter.run(
        StageCall(
            clip_filter.Params(threshold=threshold, precision="fp32"),
            clip_filter.Options(device="cpu"),
            {"images": tmp_path / "photos", "clip_model": tiny_clip},
            FolderOutput(tmp_path / "f"),
            RecordingProgress(),
        ),
    )
    classified = tmp_path / "classified"
    classified.mkdir()
    low = pictures.vase_name(40, 0)
    (classified / "predictions.csv").write_text(
        f"path,probability,class\n{low},0.25,0\n{pictures.vase_name(40, 1)},0.1,0\n{pictures.vase_name(0, 0)},0.1,0\n"
    )
    report = select(tmp_path / "f", tmp_path / "out", classified=classified)
    kept = {vase["vase"] for vase in report["vases"]}
    lost = {row["vase"]: row for row in report["lost"]}
    assert len(kept) + len(lost) == 7
    assert not kept & set(lost)
    for vase, row in lost.items():
        if row["lost_at"] == "clip-filter":
            assert row["score"] == max(score for name, score in scores.items() if name.startswith(vase))
    assert [row["best"] for row in lost.values() if row["lost_at"] == "classify"] == [low]
    assert (tmp_path / "out/lost_vases.csv").read_text().startswith("vase,lost_at,best,score\n")


def test_select_views_merges_into_an_existing_folder(filtered: Path, tmp_path: Path) -> None:
    pictures.save(filtered / "best_views/of the user.jpg", 3)
    report = select(filtered, filtered)
    again = select(filtered, filtered)
    assert report["vases"] == again["vases"]
    assert placed(filtered) == {vase["best"] for vase in report["vases"]} | {"of the user.jpg"}


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "accepted").mkdir()
    with pytest.raises(DataError, match="rejected all images"):
        select(tmp_path, tmp_path / "out")
