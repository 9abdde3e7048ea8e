"""train-classifier and classify on small images: reproducible results, and no loss after kills."""

from __future__ import annotations

import csv
import json
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.curation.classifier import load_classifier
from vasevqa.errors import ConfigError, DataError
from vasevqa.model_formats import CLASSIFIER_FILE
from vasevqa.runtime.flags import validate
from vasevqa.spec import StageCall
from vasevqa.stages import classify, train_classifier

ROOT = Path(__file__).parent.parent.parent
SMALL = {
    "arch": "resnet18",
    "weights": "none",
    "image_size": 32,
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "warmup_epochs": 0,
}


def striped(path: Path, label: int, seed: int) -> None:
    """Class 1 has vertical stripes, and class 0 has horizontal stripes, in any colour."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(48) * rng.uniform(0.8, 1.4) + rng.uniform(0, 6))
    plane = np.tile(wave, (48, 1)) if label else np.tile(wave, (48, 1)).T
    image = 128 + 60 * plane[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 10, (48, 48, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for label, vases in ((0, 30), (1, 12)):
        for vase in range(vases):
            for view in range(2):
                striped(
                    folder / str(label) / "deep" / pictures.vase_name(100 * label + vase, view),
                    label,
                    1000 * label + 10 * vase + view,
                )
    (folder / "0/broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def train(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    params = train_classifier.Params(**{**SMALL, **changes})
    train_classifier.run(
        StageCall(
            params, train_classifier.Options(device="cpu"), {"data": data}, FolderOutput(out), RecordingProgress()
        )
    )
    loaded: dict[str, Any] = json.loads((out / "training_results.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def trained(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train(labelled, out, epochs=8, augment=False)
    return out


def test_training_learns_and_writes_all_documented_files(trained: Path) -> None:
    results = json.loads((trained / "training_results.json").read_text())
    assert results["roc_auc"] > 0.9
    assert results["history"][-1]["train_loss"] < 0.5 * results["history"][0]["train_loss"]
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "confusion_matrix", "temperature"):
        assert name in results
    assert [row["name"] for row in results["quarantined"]] == ["0/broken.jpg"]
    assert sum(part["images"] for part in results["splits"].values()) == 84
    assert (trained / "training_history.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    assert sorted(path.name for path in trained.iterdir()) == [
        CLASSIFIER_FILE,
        "tensorboard",
        "training_history.png",
        "training_results.json",
    ]
    assert torch.load(trained / CLASSIFIER_FILE, weights_only=True)["arch"] == "resnet18"


def weights(out: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(out / CLASSIFIER_FILE, weights_only=True)["state_dict"]
    return loaded


def test_the_same_seed_gives_the_same_model(labelled: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(labelled, tmp_path / name, epochs=1, seed=seed)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["fc.0.weight"], c["fc.0.weight"])


def test_a_training_that_was_killed_after_an_epoch_gives_the_same_result(labelled: Path, tmp_path: Path) -> None:
    undisturbed = train(labelled, tmp_path / "undisturbed")
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    words += ["--data-dir", str(labelled), "--output-dir", str(tmp_path / "out"), "--device", "cpu", "--json-events"]
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.train_classifier", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    ) as stage:
        while not (tmp_path / "out/checkpoint.pt").exists():
            assert stage.poll() is None, "the stage ended before it was killed"
            select.select([], [], [], 0.002)
        stage.send_signal(signal.SIGKILL)
    again = subprocess.run(
        [sys.executable, "-m", "jobs.train_classifier", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stdout
    resumed = json.loads((tmp_path / "out/training_results.json").read_text())
    assert resumed["history"] == undisturbed["history"]
    first, second = weights(tmp_path / "undisturbed"), weights(tmp_path / "out")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_collection_can_be_the_test_split(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label in (0, 1):
        for vase in range(8):
            for view, museum in enumerate(("london", "paris") if vase < 2 else ("paris",) if vase < 5 else ("rome",)):
                striped(
                    data / str(label) / museum / pictures.vase_name(100 * label + vase, view), label, 50 * label + vase
                )
    found = train(data, tmp_path / "out", epochs=1, leave_out="london")
    assert found["splits"]["test"] == {"images": 8, "high": 4}, (
        "all views of a vase from two museums must be in the test split"
    )
    assert found["splits"]["train"]["images"] + found["splits"]["val"]["images"] == 12
    with pytest.raises(DataError, match=r"no labelled photograph lies in a folder berlin .* london, paris, rome"):
        train(data, tmp_path / "again", epochs=1, leave_out="berlin")


def test_training_stops_early(labelled: Path, tmp_path: Path) -> None:
    results = train(labelled, tmp_path / "out", epochs=30, patience=1, learning_rate=0.3, augment=False)
    assert results["epochs"] < 30
    assert results["epochs"] == results["best_epoch"] + 1


@pytest.mark.parametrize(("missing", "says"), [("1", "no folder '1'"), ("all of 0", "holds no image")])
def test_data_that_lacks_a_class_is_an_error(tmp_path: Path, missing: str, says: str) -> None:
    (tmp_path / "0").mkdir()
    if missing != "1":
        (tmp_path / "1").mkdir()
    else:
        pictures.save(tmp_path / "0/x.jpg", 1)
    with pytest.raises(DataError, match=says):
        train(tmp_path, tmp_path / "out")


def test_weights_accept_a_choice_or_a_file(labelled: Path, trained: Path, tmp_path: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        base = [
            "--data-dir",
            str(labelled),
            "--output-dir",
            str(tmp_path / "out"),
            "--arch=resnet18",
            "--image-size=32",
            "--epochs=1",
            "--device=cpu",
        ]
        return subprocess.run(
            [sys.executable, "-m", "jobs.train_classifier", *base, *words], capture_output=True, text=True, cwd=ROOT
        )

    result = call("--weights", str(trained / CLASSIFIER_FILE))
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out/training_results.json").read_text())["weights"] == "file"
    wrong = call("--weights", "imagnet")
    assert wrong.returncode == 2
    assert "'imagnet' is none of them" in wrong.stderr


def sort(images: Path, model: Path, out: Path, **changes: Any) -> dict[str, dict[str, str]]:
    classify.run(
        StageCall(
            classify.Params(**changes),
            classify.Options(device="cpu", batch_size=4),
            {"images": images, "model": model},
            FolderOutput(out),
            RecordingProgress(),
        ),
    )
    with open(out / "predictions.csv", newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    for number in range(12):
        striped(tmp_path / f"mixed/{'ab'[number % 2]}/{number // 2}.png", number % 2, 5000 + number)
    (tmp_path / "mixed/zero.png").touch()
    return tmp_path / "mixed"


def test_classify_writes_a_folder_per_class_and_a_table(mixed: Path, trained: Path, tmp_path: Path) -> None:
    rows = sort(mixed, trained, tmp_path / "out")
    placed = tree(tmp_path / "out/0"), tree(tmp_path / "out/1")
    assert placed[0] | placed[1] == set(rows) == {f"{side}/{number}.png" for side in "ab" for number in range(6)}
    for name, row in rows.items():
        assert (name in placed[1]) == (row["class"] == "1") == (float(row["probability"]) >= 0.5)
    right = sum(row["class"] == ("1" if name.startswith("b/") else "0") for name, row in rows.items())
    assert right >= 10
    report = json.loads((tmp_path / "out/classification_report.json").read_text())
    assert report["quarantined"] == [{"name": "zero.png", "reason": "empty (zero bytes)"}]
    assert sum(report["histogram"]["counts"]) == 12
    assert not (tmp_path / "out/predictions.journal").exists()


def test_probabilities_are_calibrated_and_independent_of_the_batch(mixed: Path, trained: Path, tmp_path: Path) -> None:
    loaded = load_classifier(trained, torch.device("cpu"))
    assert loaded.calibration.temperature == json.loads((trained / "training_results.json").read_text())["temperature"]
    first = sort(mixed, trained, tmp_path / "a", exact_decode=True)
    classify.run(
        StageCall(
            classify.Params(exact_decode=True),
            classify.Options(device="cpu", batch_size=1),
            {"images": mixed, "model": trained / CLASSIFIER_FILE},
            FolderOutput(tmp_path / "b"),
            RecordingProgress(),
        ),
    )
    with open(tmp_path / "b/predictions.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            assert float(row["probability"]) == pytest.approx(float(first[row["path"]]["probability"]), abs=0.02)


def test_another_threshold_moves_the_stages_files_and_keeps_the_users_files(
    mixed: Path, trained: Path, tmp_path: Path
) -> None:
    sort(mixed, trained, tmp_path / "out", confidence_threshold=0)
    assert len(tree(tmp_path / "out/1")) == 12
    pictures.save(tmp_path / "out/1/mine.jpg", 1)
    rows = sort(mixed, trained, tmp_path / "out", confidence_threshold=0.5)
    assert tree(tmp_path / "out/0") == {name for name, row in rows.items() if row["class"] == "0"} != set()
    assert tree(tmp_path / "out/1") == {name for name, row in rows.items() if row["class"] == "1"} | {"mine.jpg"}


def test_after_a_kill_no_image_is_lost_or_classified_twice(trained: Path, tmp_path: Path) -> None:
    for number in range(120):
        striped(tmp_path / f"many/{number}.png", number % 2, number)
    words = [
        "--source-dir",
        str(tmp_path / "many"),
        "--model-path",
        str(trained),
        "--target-dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--batch-size=2",
        "--json-events",
    ]
    journal = tmp_path / "out" / classify.JOURNAL
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.classify", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    ) as stage:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 10:
            assert stage.poll() is None, "the stage ended before it was killed"
            select.select([], [], [], 0.002)
        stage.send_signal(signal.SIGKILL)
    with open(journal, "ab") as stream:
        stream.write(b'["torn.png", "12')  # a kill during a write leaves such a file
    again = subprocess.run([sys.executable, "-m", "jobs.classify", *words], capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 0, again.stderr
    assert "already classified by an earlier attempt" in again.stdout
    with open(tmp_path / "out/predictions.csv", newline="") as stream:
        names = [row["path"] for row in csv.DictReader(stream)]
    assert sorted(names) == sorted(f"{number}.png" for number in range(120))
    assert len(tree(tmp_path / "out/0")) + len(tree(tmp_path / "out/1")) == 120


def test_images_that_are_all_unreadable_are_an_error(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no image"):
        sort(tmp_path / "images", trained, tmp_path / "out")
    (tmp_path / "images/x.png").write_text("x")
    with pytest.raises(DataError, match="not an image"):
        sort(tmp_path / "images", trained, tmp_path / "out")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--device: there is no such device; use auto, .*got 'gpu'"):
        validate(classify.Options, {"device": "gpu"})


def test_the_error_about_a_diverging_training_advises_a_lower_learning_rate(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a number.*set a learning_rate below 1e\+30"):
        train(labelled, tmp_path, epochs=2, learning_rate=1e30, warmup_epochs=0)


def test_unusable_training_data_is_reported_by_the_plan(tmp_path: Path) -> None:
    for label, vases in ((0, 3), (1, 2)):
        for vase in range(vases):
            striped(tmp_path / str(label) / pictures.vase_name(vase, 0), label, vase)
    with pytest.raises(DataError, match="Class 1 has images of 2 vases"):
        train_classifier.check({"data": tmp_path}, train_classifier.Params())
    with pytest.raises(ConfigError, match="add the input `classifier_weights`"):
        train_classifier.check({}, train_classifier.Params(weights="file"))
