"""The report says of each shown photograph why it was rejected, and of each lost vase why it was lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tests import pictures
from tests.fakes import FolderOutput
from tests.report.kit import curated, seen
from vasevqa.artifacts.volume import Volume
from vasevqa.curation import embeddings, neighbours
from vasevqa.report.html import write_report

ANGLES = {"far.jpg": 0, "near.jpg": 40, "bad.jpg": 60, "worse.jpg": 90}
SCORES = {"far.jpg": 0.5, "near.jpg": 0.25, "bad.jpg": 0.125, "worse.jpg": 0.0625}


@pytest.fixture
def run(volume_root: Path) -> Path:
    """A run that accepted two photographs and rejected two. The embeddings are unit vectors in a plane."""
    rows = [
        {"name": name, "score": score, "accepted": score > 0.2, "decided_by": "a <sherd>"}
        for name, score in SCORES.items()
    ]
    lost = [
        {"vase": "v1", "lost_at": "clip-filter", "best": "bad.jpg", "score": 0.125},
        {"vase": "v2", "lost_at": "classify", "best": "dim.jpg", "score": 0.25},
        {"vase": "v3", "lost_at": "unreadable", "best": "cut.jpg"},
    ]
    folder = curated(
        volume_root,
        {
            "classify/classification_report.json": {"images": 5, "high": 4, "low": 1, "confidence_threshold": 0.5},
            "clip-filter/filtering_report.json": {"threshold": 0.2, "images": rows},
            "select-views/best_views_report.json": {"lost": lost},
        },
    )
    classified, filtered = (volume_root / "artifacts" / step / "k" for step in ("classify", "clip-filter"))
    unread = {"quarantined": [{"name": "cut.jpg", "reason": "the file is <cut> off"}]}
    (classified / "quarantined.json").write_text(json.dumps(unread))
    pictures.save(classified / "0/dim.jpg", 9)
    for seed, name in enumerate(SCORES):
        pictures.save(filtered / ("accepted" if SCORES[name] > 0.2 else "rejected") / name, seed)
    angles = torch.tensor(list(ANGLES.values())).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    embeddings.save(FolderOutput(filtered).writing, embeddings.FILE, list(ANGLES), [""] * 4, features, {})
    return folder


def cards(html: str) -> dict[str, str]:
    """Return the cards of a part of the page by the name of their photograph."""
    found = re.findall(r'title="(\w+\.jpg)"[^<>]*>[^<>]*</figcaption><details class="why">(.*?)</details>', html, re.S)
    return dict(found)


def test_a_rejected_photograph_has_a_card_with_its_nearest_on_both_sides(run: Path, volume_root: Path) -> None:
    html = write_report(run, Volume(volume_root)).read_text()
    found = cards(html.split("lost at an earlier step")[0])
    assert list(found) == ["bad.jpg", "worse.jpg"]
    assert seen(found["bad.jpg"], "p") == [
        "Rejected: the score +0.1250 is below the threshold 0.2000.",
        "Most similar description: a <sherd>.",
        "Nearest photographs on both sides, by the similarity of their embeddings:",
    ]
    assert seen(found["bad.jpg"], "figcaption") == [
        "accepted +0.2500, similarity 0.94",
        "rejected +0.0625, similarity 0.87",
    ]
    assert re.findall(r'<figure class="(\w+)"><img src="data:image/jpeg[^>]*alt="(\w+.jpg)"', found["bad.jpg"]) == [
        ("accepted", "near.jpg"),
        ("rejected", "worse.jpg"),
    ]


def test_lost_vases_are_shown_with_their_best_photograph_and_the_reason(run: Path, volume_root: Path) -> None:
    html = write_report(run, Volume(volume_root)).read_text()
    lost = html.split("lost at an earlier step")[1]
    assert {name: seen(card, "p") for name, card in cards(lost).items()} == {
        "dim.jpg": ["Low quality: the probability 0.2500 is below the threshold 0.5."],
        "bad.jpg": ["Rejected: the score +0.1250 is below the threshold 0.2000; most similar description: a <sherd>."],
        "cut.jpg": ["The file is <cut> off."],
    }
    assert re.findall(r'<img src="data:image/jpeg[^>]*alt="([^"]*)"', lost)[:2] == ["dim.jpg", "bad.jpg"]


def test_without_embeddings_or_numpy_a_card_still_tells_the_score(
    run: Path, volume_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (volume_root / "artifacts/clip-filter/k" / embeddings.FILE).unlink()
    html = write_report(run, Volume(volume_root)).read_text()
    assert seen(cards(html.split("lost at an earlier step")[0])["bad.jpg"], "p")[0].startswith("Rejected: the score")
    assert "has no numpy" not in html

    def absent(path: Path) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(neighbours, "stored_features", absent)
    html = write_report(run, Volume(volume_root)).read_text()
    assert seen(cards(html.split("lost at an earlier step")[0])["bad.jpg"], "p")[0].startswith("Rejected: the score")
    assert html.count("the machine that wrote this report has no numpy") == 1
