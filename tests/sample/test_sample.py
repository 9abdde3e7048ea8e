"""The drawn sample: only the pictures contain the answer, and tiny models can learn it."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.curation import clip, scoring
from vasevqa.curation.file_names import BUILT_IN, UUID_VIEW, Naming, parse_name
from vasevqa.curation.images import Unreadable, find_images, open_image
from vasevqa.curation.loader import Loader
from vasevqa.dataset.questions import load_questions
from vasevqa.errors import ConfigError
from vasevqa.sample.dataset import Settings, draw_sample
from vasevqa.sample.tiny_clip import train_tiny_clip
from vasevqa.spec import StageCall
from vasevqa.stages import classify, train_classifier

ROOT = Path(__file__).parent.parent.parent
DEMO = yaml.safe_load((ROOT / "vasevqa/recipes/demo.yaml").read_text())["steps"]
SMALL = Settings(vases=5, views=2, quality_vases=2, seed=3)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample of vases that no model was trained on."""
    folder = tmp_path_factory.mktemp("held-out") / "sample"
    draw_sample(folder, Settings(vases=60, views=4, quality_vases=50, seed=4711))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    assert draw_sample(tmp_path / "a", SMALL)
    assert draw_sample(tmp_path / "b", SMALL)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    draw_sample(tmp_path / "c", Settings(vases=5, views=2, quality_vases=2, seed=4))
    assert not {name for name in tree(tmp_path / "a/photos") if "_ac" in name} & set(tree(tmp_path / "c/photos"))


def test_drawing_again_does_nothing_and_other_settings_are_refused(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", SMALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.jpg")}
    assert draw_sample(tmp_path / "a", SMALL) is False
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.jpg")}
    with pytest.raises(ConfigError):
        draw_sample(tmp_path / "a", Settings(vases=6, views=2, quality_vases=2, seed=3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError):
        draw_sample(tmp_path / "mine", SMALL)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_the_sample_is_balanced_and_its_questions_ask_what_can_be_seen(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", Settings(vases=50, views=1, quality_vases=1, size=96))
    rows = json.loads((tmp_path / "a/annotations.json").read_text())
    for attribute in ("fabric", "technique", "shape"):
        assert max(Counter(row[attribute] for row in rows).values()) <= 0.45 * len(rows)
    asked = load_questions(tmp_path / "a/questions.yaml").ask
    assert asked == {name: load_questions(None).ask[name] for name in ("fabric", "technique", "shape")}


def test_broken_vases_are_photographed_well_and_labels_of_quality_ignore_damage(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", Settings(vases=40, views=2, quality_vases=1, size=96))
    truth = [row for row in json.loads((tmp_path / "a/truth.json").read_text()) if row["quality"] != "unreadable"]
    by_vase: dict[str, set[str]] = defaultdict(set)
    for row in truth:
        by_vase[row["vase_id"]].add(row["quality"])
    assert sum(kinds == {"damaged"} for kinds in by_vase.values()) == 8
    assert all(kinds <= {"intact", "poor"} for kinds in by_vase.values() if kinds != {"damaged"})
    assert {row["damage"] for row in truth if row["quality"] == "damaged"} == {"fragment", "cracks"}
    assert {row["damage"] for row in truth if row["quality"] == "poor"} <= {"blur", "dark", "drawing", "crop"}


def test_annotations_names_and_truth_agree(tmp_path: Path) -> None:
    draw_sample(tmp_path / "a", SMALL)
    annotations = {row["vase_id"]: row for row in json.loads((tmp_path / "a/annotations.json").read_text())}
    truth = json.loads((tmp_path / "a/truth.json").read_text())
    assert len(annotations) == 5
    fields = {
        "fabric",
        "technique",
        "shape",
        "provenance",
        "date",
        "date_start",
        "date_end",
        "attribution",
        "decoration",
        "caption",
    }
    for row in annotations.values():
        assert fields <= set(row)
        assert row["date_start"] < row["date_end"] < 0
        assert row["date"] == f"c. {-row['date_start']}-{-row['date_end']} BCE"
        assert row["shape"] in row["caption"]
    readable = 0
    for found in find_images(tmp_path / "a/photos"):
        try:
            open_image(found.path)
        except Unreadable:
            assert parse_name(found.name, Naming((BUILT_IN[UUID_VIEW],))) is None
            continue
        readable += 1
        assert parse_name(found.name, Naming((BUILT_IN[UUID_VIEW],))).vase in annotations  # type: ignore[union-attr]
    assert readable == 10
    assert sum(parse_name(row["name"], Naming((BUILT_IN[UUID_VIEW],))) is not None for row in truth) == 10


def test_brightness_colour_and_file_size_do_not_reveal_the_class(held_out: Path) -> None:
    rows, labels = [], []
    for path in sorted((held_out / "quality").rglob("*.jpg")):
        pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float)
        rows.append([pixels.mean(), *pixels.mean((0, 1)), path.stat().st_size])
        labels.append(int(path.relative_to(held_out / "quality").parts[0]))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    guess = cross_val_predict(model, rows, labels, cv=5, method="predict_proba")[:, 1]
    assert roc_auc_score(labels, guess) < 0.7
    assert ((guess > 0.5) == np.array(labels)).mean() < 0.7


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tiny_clip_separates_intact_and_damaged_unseen_vases(held_out: Path) -> None:
    # `make demo` or this test trains the model. It is trained again only if the version of its code changes.
    folder = next(
        (made for made in (ROOT / "demo/inputs/models/tiny-clip", ROOT / ".cache/tests/tiny-clip") if made.is_dir()),
        ROOT / ".cache/tests/tiny-clip",
    )
    train_tiny_clip(folder)
    model = clip.load_clip(folder, torch.device("cpu"), "fp32")
    names: list[str] = []
    features = []
    truth = {row["name"]: row["quality"] for row in json.loads((held_out / "truth.json").read_text())}
    sharp = [found for found in find_images(held_out / "photos") if truth[found.name] in ("intact", "damaged")]
    for batch in Loader(sharp, model.preprocess, 32, cover=model.preprocess.cover):
        names += batch.names
        features.append(model.encode_images(batch.pixels))
    prompts = scoring.Prompts()
    scores = scoring.score(
        torch.cat(features), model.encode_texts(list(prompts.high)), model.encode_texts(list(prompts.low))
    ).score
    intact = np.array([truth[name] == "intact" for name in names])
    assert roc_auc_score(intact, scores) >= 0.95
    rejected = np.array(scores) < DEMO["clip-filter"]["threshold"]
    assert rejected[~intact].mean() >= 0.7
    assert rejected[intact].mean() < 0.05


def trained_by_the_demo(params: train_classifier.Params) -> Path | None:
    """Return the artifact of `make demo` with these parameters. Its photographs show other vases than the tests'."""
    for record in sorted((ROOT / "demo/artifacts/train-classifier").glob("*/artifact.json")):
        made = json.loads(record.read_text())
        if (made["stage_version"], made["params"]) == (train_classifier.STAGE.version, params.model_dump(mode="json")):
            return record.parent
    return None


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's classifier. Where no demo ran, the tests train it with the demo's parameters."""
    settings = {
        key: value for key, value in DEMO["train-classifier"].items() if key in train_classifier.Params.model_fields
    }
    params = train_classifier.Params(**settings)
    made = trained_by_the_demo(params)
    if made is not None:
        return made
    folder = tmp_path_factory.mktemp("classifier")
    draw_sample(folder / "sample", Settings(vases=1))
    train_classifier.run(
        StageCall(
            params,
            train_classifier.Options(device="cpu"),
            {"data": folder / "sample/quality"},
            FolderOutput(folder / "model"),
            RecordingProgress(),
        ),
    )
    return folder / "model"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_classifier_of_the_demo_is_accurate_on_unseen_vases(
    held_out: Path, classifier: Path, tmp_path: Path
) -> None:
    inputs = {"images": held_out / "quality", "model": classifier}
    classify.run(
        StageCall(
            classify.Params(),
            classify.Options(device="cpu"),
            inputs,
            FolderOutput(tmp_path / "sorted"),
            RecordingProgress(),
        ),
    )
    with open(tmp_path / "sorted/predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(row["class"] == row["path"][0] for row in rows) / len(rows) >= 0.9
    damaged = {row["name"] for row in json.loads((held_out / "truth.json").read_text()) if row["quality"] == "damaged"}
    assert damaged, "the sample shows no broken vase"
