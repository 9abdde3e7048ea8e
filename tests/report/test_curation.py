"""The report follows the photographs to the rows of the dataset."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

from tests import pictures
from tests.report.kit import BEGUN, CURATED, curated, section, seen
from vasevqa.artifacts.volume import Volume
from vasevqa.report.html import write_report


def funnel_of(html: str) -> list[str]:
    """Return the levels and the losses that a reader sees, in their order."""
    found = re.findall(
        r'<p class="level">(.*?)</p>|<summary><b>(.*?)</summary>', section(html, "funnel"), flags=re.DOTALL
    )
    return [unescape(re.sub(r"<[^>]+>", "", level or loss)) for level, loss in found]


def test_the_funnel_leads_from_photographs_to_rows_and_each_loss_opens(volume_root: Path) -> None:
    run = curated(volume_root, CURATED)
    classified = volume_root / "artifacts/classify/k"
    (classified / "predictions.csv").write_text("path,probability,class\nb_0.jpg,0.5,0\nb_1.jpg,0.1,0\na_0.jpg,0.9,1\n")
    pictures.save(classified / "0/b_0.jpg", 1)
    pictures.save(volume_root / "artifacts/clip-filter/k/rejected/a_0.jpg", 2)
    html = write_report(run, Volume(volume_root)).read_text()
    assert funnel_of(html) == [
        "8 photographs",
        "− 1 can't be read",
        "7 readable",
        "− 2 of low quality",
        "5 of high quality",
        "− 2 rejected by CLIP",
        "3 accepted",
        "− 2 further views",
        "1 vase lost at an earlier step",
        "1 vase",
        "300 left out of the dataset: empty row",
        "9 rows",
    ]
    shown = section(html, "funnel")
    assert shown.count("<img") == 3  # b_0.jpg as a loss and as the best picture of the lost vase b, and a_0.jpg
    for text in (
        "<b>&lt;script&gt;alert(1)&lt;/script&gt;.jpg</b>: cut off",
        "below 0.6",
        "below the threshold 0.2000",
        "+0.1000, a &lt;sherd&gt;",
        "a, 0.1000 behind",
        "b, classify 0.5000",
        "<b>row 7</b>: it has neither",
        "1 of 300 are shown.",
    ):
        assert text in shown
    assert shown.index("b_0.jpg") < shown.index("b_1.jpg")  # the nearest to the threshold first


def test_a_funnel_of_a_run_without_a_classifier_and_of_damaged_predictions(volume_root: Path) -> None:
    run = curated(volume_root, {name: CURATED[name] for name in list(CURATED)[1:3]})
    html = write_report(run, Volume(volume_root)).read_text()
    assert funnel_of(html)[:4] == ["5 photographs", "5 readable", "− 2 rejected by CLIP", "3 accepted"]
    classified = volume_root / "artifacts/classify/k"
    classified.mkdir(parents=True)
    (run / "steps/classify").symlink_to(classified)
    (classified / "classification_report.json").write_text('{"images": 5, "high": 5}')
    (classified / "predictions.csv").write_text("no,columns\n1,2\n")
    (run / "events.jsonl").write_text(
        json.dumps({**BEGUN, "steps": ["classify", "clip-filter", "select-views"]}) + "\n"
    )
    html = write_report(run, Volume(volume_root)).read_text()
    assert funnel_of(html)[:3] == ["5 photographs", "5 readable", "5 of high quality"]


def test_of_many_losses_some_are_shown_the_borderline_ones_first(volume_root: Path) -> None:
    images = [{"name": f"{number:04}.jpg", "score": number / 1000, "accepted": False} for number in range(1000)]
    run = curated(volume_root, {"clip-filter/filtering_report.json": {"threshold": 1.0, "images": images}})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "funnel")
    assert "60 of 1,000 are shown." in shown
    names = re.findall(r'<p class="none">(\d+).jpg', shown)
    assert names[:30] == [f"{number:04}" for number in range(999, 969, -1)]
    assert len(names) == 60
    assert min(names) < "0300"


def test_a_name_that_leads_out_of_the_artifact_shows_no_picture(volume_root: Path) -> None:
    secret = pictures.save(volume_root / "secret.jpg", 3)
    images = [{"name": name, "score": 0, "accepted": False} for name in ("../../../../secret.jpg", str(secret))]
    run = curated(volume_root, {"clip-filter/filtering_report.json": {"threshold": 1.0, "images": images}})
    (volume_root / "artifacts/clip-filter/k/rejected").mkdir()
    assert "data:image" not in section(write_report(run, Volume(volume_root)).read_text(), "funnel")


def test_best_views_stand_beside_their_runner_up_the_closest_decision_first(volume_root: Path) -> None:
    choices = [
        {"vase": "<one>", "best": "one.jpg", "similarity": 0.5, "reason": "the only view"},
        *(
            {
                "vase": f"vase {number}",
                "best": f"{number}a.jpg",
                "similarity": 0.5,
                "runner_up": f"{number}b.jpg",
                "margin": number / 100,
                "views": [{"name": f"{number}{side}.jpg", "view": "", "similarity": 0.25} for side in "ab"],
            }
            for number in (3, 1, 2)
        ),
    ]
    run = curated(
        volume_root,
        {
            "clip-filter/filtering_report.json": {"threshold": 0.1},
            "select-views/best_views_report.json": {"vases": choices, "unmatched": ["x"]},
        },
    )
    pictures.save(volume_root / "artifacts/select-views/k/best_views/1a.jpg", 1)
    pictures.save(volume_root / "artifacts/clip-filter/k/accepted/1b.jpg", 2)
    shown = section(write_report(run, Volume(volume_root)).read_text(), "views")
    assert seen(shown, "h3") == ["vase 1", "vase 2", "vase 3", "<one>"]
    assert shown.split("<h3>")[1].count("<img") == 2
    assert seen(shown, "figcaption")[:2] == ["best: 0.5000", "second: 0.2500"]
    assert seen(shown, "p")[0].startswith("The number under a picture is its similarity to")
    assert seen(shown, "p")[0].endswith("Photographs whose names tell no vase: 1. Each of them counts as a vase.")
    assert "0.0100 above the second of 2 views." in seen(shown, "p")
    assert seen(shown, "p")[-1] == "The only view."


def test_of_many_vases_the_closest_and_a_sample_are_shown(volume_root: Path) -> None:
    choices = [{"vase": f"v{number:03}", "best": "a", "runner_up": "b", "margin": number} for number in range(100)]
    run = curated(volume_root, {"select-views/best_views_report.json": {"vases": choices}})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "views")
    assert "30 of 100 vases are shown." in shown
    assert seen(shown, "h3")[:15] == [f"v{number:03}" for number in range(15)]


def test_recommended_thresholds_are_marked_with_what_they_keep_and_the_setting_to_copy(volume_root: Path) -> None:
    images = [{"name": f"{number}.jpg", "score": number / 10, "accepted": number >= 4} for number in range(10)]
    recommended = [
        {"name": "very_strict", "percentile": 90, "threshold": 0.85, "keeps": 0.1},
        {"name": "<all>", "percentile": 0, "threshold": -3, "keeps": 1},  # beside the histogram
    ]
    report = {"threshold": 0.4, "images": images, "recommendations": recommended}
    run = curated(volume_root, {"clip-filter/filtering_report.json": report})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "threshold")
    assert [name for name in seen(shown, "title") if " from " not in name] == ["very strict"]
    assert seen(shown, "td") == [
        *("1. very strict", "0.8500", "1", "-5", "--set clip-filter.threshold=0.8500"),
        *("2. <all>", "-3.0000", "10", "+4", "--set clip-filter.threshold=-3.0000"),
    ]
    assert "Images in the tallest bar: 1." in shown


def test_the_dataset_shows_sides_attributes_unused_columns_and_rights(volume_root: Path) -> None:
    report = {
        "rows": {"sft": 6, "eval": 2000},
        "vases": {"train": 3, "eval": 1000},
        "attributes": {"sft": {"shape": 4, "fabric": 2}},
        "unused_columns": {"<inv>": 12},
        "rights": {"CC BY <4>": 3},
        "notes": ["a <note>"],
        "near_duplicate_pairs": 5,
    }
    run = curated(volume_root, {"build-dataset/dataset_report.json": report})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "dataset")
    assert seen(shown, "p") == [
        "Vases: 3 in train, 1,000 in eval. Pairs of photographs that are almost the same: 5.",
        "Columns that are not used: <inv> (12 rows).",
    ]
    assert seen(shown, "td") == ["sft", "6", "shape 4, fabric 2", "eval", "2,000", ""]
    assert seen(shown, "li") == ["a <note>", "CC BY <4>: 3 pictures"]


def test_a_problem_that_leaves_nothing_out_is_a_remark_and_no_loss(volume_root: Path) -> None:
    problems = {"empty answer": 5000, "encoding guessed": 1, "not a JSON value": 2, "line before the headings": 3}
    report = {
        "rows": {"sft": 6},
        "problems": {**problems, "broken row": 4},
        "problem_list": {"encoding guessed": [{"where": "a.csv", "what": "not <UTF-8>"}]},
        "quarantined": [{"name": "cut.jpg", "reason": "cut off"}],
        "unused_columns": {"inventory": 12},
        "notes": ["a note"],
    }
    views = {"vases": [{"vase": "a", "best": "a.jpg", "views": [{"name": "a.jpg", "view": "", "similarity": 0.5}]}]}
    run = curated(
        volume_root, {"select-views/best_views_report.json": views, "build-dataset/dataset_report.json": report}
    )
    html = write_report(run, Volume(volume_root)).read_text()
    assert funnel_of(html) == [
        "1 photograph",
        "1 vase",
        "1 photograph that can't be read",
        "4 left out of the dataset: broken row",
        "6 rows",
    ]
    shown = section(html, "dataset")
    assert seen(shown, "summary") == [
        "In the annotations: empty answer (5,000)",
        "In the annotations: encoding guessed (1)",
        "In the annotations: not a JSON value (2)",
        "In the annotations: line before the headings (3)",
    ]
    assert seen(shown, "li")[-1] == "a.csv : not <UTF-8>"
    assert "Without an answer, the question is not asked. 0 of 5,000 are shown." in seen(shown, "p")


def test_a_sheet_spans_all_scores_and_counts_the_pictures_that_it_shows(volume_root: Path) -> None:
    images = [{"name": f"{number:02}.jpg", "score": number / 100, "accepted": number >= 10} for number in range(33)]
    run = curated(volume_root, {"clip-filter/filtering_report.json": {"threshold": 0.1, "images": images}})
    folder = volume_root / "artifacts/clip-filter/k"
    for image in images[:9] + images[10:]:  # one rejected picture is gone
        pictures.save(folder / ("accepted" if image["accepted"] else "rejected") / str(image["name"]), 1)
    shown = section(write_report(run, Volume(volume_root)).read_text(), "threshold")
    accepted = shown.split("<h3>Accepted")[1].split("<h3>")[0]
    assert re.findall(r'alt="(\d+).jpg"', accepted) == [
        f"{number:02}" for number in (32, 30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10)
    ]
    assert seen(accepted, "p") == ["12 of 23, from the highest score down to the lowest"]
    assert seen(shown.split("<h3>Borderline")[1], "p")[0] == "32 of 33, the nearest to the threshold"
    assert seen(shown.split("<h3>Rejected")[1], "p") == ["9 of 10, the lowest scores first"]


def test_a_single_image_beside_thousands_has_a_visible_bar(volume_root: Path) -> None:
    images = [{"name": f"{number}.jpg", "score": float(number == 0), "accepted": True} for number in range(5000)]
    run = curated(volume_root, {"clip-filter/filtering_report.json": {"threshold": 0.0, "images": images}})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "threshold")
    heights = re.findall(r'height="([\d.]+)"><title>(\S+ images?) from', shown)
    assert [pair for pair in heights if pair[1] != "0 images"] == [("180.0", "4,999 images"), ("1.0", "1 image")]
