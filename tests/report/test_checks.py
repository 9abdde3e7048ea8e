"""The report's section about the data of the photographs."""

from __future__ import annotations

from pathlib import Path

from tests import pictures
from tests.report.kit import curated, section, seen
from vasevqa.artifacts.volume import Volume
from vasevqa.report.html import write_report


def row(number: int, **changed: object) -> dict[str, object]:
    values = {"name": f"{number:03}.jpg", "score": 0.5, "accepted": True, "width": 900, "height": 600}
    return {**values, "sharpness": 10.0 + number, "brightness": 0.5, "clipped_dark": 0.0, "frame": 0.1, **changed}


IMAGES = [row(number) for number in range(101)]
IMAGES[50] = row(50, clipped_dark=0.4, height=300, scale_bar_suspected=True)
IMAGES[60] = row(60, near_duplicate_of="003.jpg", colour_card_suspected=True)
IMAGES[70] = row(70, accepted=False, failed_check="shorter side 200 px < min_side <300>", height=200)
IMAGES[71] = row(71, accepted=False, score=0.1)


def page(volume_root: Path, images: list[dict[str, object]], **report: object) -> str:
    reports = {"clip-filter/filtering_report.json": {"threshold": 0.2, "images": images, **report}}
    run = curated(volume_root, reports)
    pictures.save(volume_root / "artifacts/clip-filter/k/accepted/050.jpg", 1)
    return write_report(run, Volume(volume_root)).read_text()


def test_the_section_shows_the_distribution_the_findings_and_the_worst_first(volume_root: Path) -> None:
    shown = section(page(volume_root, IMAGES), "checks")
    cells = seen(shown, "tr")
    assert "Sharpness 15 60 105" in cells
    assert "Plain frame 10% 10% 10%" in cells
    assert "clipped: more than 25% of the pixels are black or white 1" in cells
    assert "tiny: the shorter side is below 448 pixels 2" in cells
    assert "a colour card is suspected 1" in cells
    assert "a scale bar is suspected 1" in cells
    assert "near-duplicate of an earlier photograph 1" in cells
    captions = seen(shown, "figcaption")
    assert captions[:4] == [
        "sharpness 60; 40% clipped; 300 px; scale bar?",
        "sharpness 70; colour card?; like 003.jpg",
        "sharpness 80; 200 px",
        "sharpness 10",
    ]
    assert len(captions) == 24
    assert shown.count("data:image") == 1
    assert "Rejected by limits" not in shown


def test_rejections_by_limits_are_counted_and_listed_apart_from_those_by_clip(volume_root: Path) -> None:
    html = page(volume_root, IMAGES, limits={"min_side": 300})
    shown = section(html, "checks")
    assert "Limits: min_side 300. Photographs that they rejected, whatever CLIP's score: 1." in shown
    assert "070.jpg shorter side 200 px < min_side <300>" in seen(shown, "tr")
    losses = [text for text in seen(section(html, "funnel"), "summary") if text != "Why"]
    assert losses == ["− 1 rejected by CLIP", "− 1 rejected by data checks"]


def test_a_report_without_checks_has_no_section(volume_root: Path) -> None:
    plain = [{"name": "a.jpg", "score": 0.5, "accepted": True}]
    assert 'id="checks"' not in page(volume_root, plain)
