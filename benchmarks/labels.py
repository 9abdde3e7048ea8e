"""`python -m benchmarks.labels`: compare a classifier trained on 80 labels with a classifier trained on all labels.

All photographs are drawn. A simulated reviewer, who always gives the true label, labels 80 photographs in the order in
which `vasevqa review` shows them. One classifier is trained on these 80 labels, and a second classifier is trained on
the labels of all photographs. Both start from the same weights, and both are tested on photographs of other vases.

Real runs start from ImageNet's weights. This project never downloads them by itself. The benchmark therefore trains the
starting weights on the shapes and techniques of further drawn vases, without any label of quality.

With --clip, the benchmark instead chooses a threshold for clip-filter from 100 labels, for a precision of 0.8. It
compares the precision and recall that are estimated from these labels with those of all photographs. The scores come
from the tiny CLIP model that `make demo` trains.

The command prints a Markdown table. With --write, it also writes benchmarks/labels.md (with --clip: thresholds.md).
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation import typical
from vasevqa.curation.reports import FilteringReport
from vasevqa.dataset.collection import look_at
from vasevqa.review.calibration import calibration_of, scored_of
from vasevqa.review.choosing import FOR_THRESHOLD, Scores
from vasevqa.review.photographs import photographs_of
from vasevqa.review.questions import INTACT, QUALITY
from vasevqa.review.record import Record
from vasevqa.review.session import Session
from vasevqa.review.weights import sample_of
from vasevqa.sample.dataset import Settings, draw_sample
from vasevqa.statistics import by_vase

HERE = Path(__file__).parent
SIDE = 96  # pixels of the classifier's input
PLAIN = ("--arch", "resnet18", "--image-size", str(SIDE), "--device", "cpu")
TRAINING = ("--learning-rate", "0.0005", "--warmup-epochs", "1", "--patience", "0", "--batch-size", "16")
STEPS = 150  # of each training, so that few labels are not trained on less


@dataclass(frozen=True)
class Sizes:
    """The numbers of vases, which have 4 photographs each.

    `shapes` vases are for training the starting weights, `pool` vases for labelling, and `test` vases for the test.
    """

    shapes: int
    pool: int
    test: int


def starting_weights(folder: Path, vases: int, seed: int) -> Path:
    """Train a ResNet18 to classify shapes and techniques of drawn vases, and return the file with its weights."""
    import torch
    from torch import nn
    from torchvision.transforms import v2

    from vasevqa.curation import classifier
    from vasevqa.curation.images import open_image

    draw_sample(folder, Settings(vases=vases, views=4, quality_vases=1, seed=1000 + seed))
    truth = [row for row in json.loads((folder / "truth.json").read_text()) if row["quality"] != "unreadable"]
    kinds = sorted({(row["shape"], row["technique"]) for row in truth})
    resize = v2.Resize((SIDE, SIDE))
    pixels = torch.stack([v2.functional.to_image(resize(open_image(folder / "photos" / row["name"]))) for row in truth])
    labels = torch.tensor([kinds.index((row["shape"], row["technique"])) for row in truth])
    torch.manual_seed(seed)
    model = classifier.build("resnet18")
    model.fc = nn.Linear(512, len(kinds))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (classifier.MEAN, classifier.STD))
    batch, epochs = 32, 6
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * (len(truth) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(truth))
        for step in range(len(truth) // batch):
            rows = order[step * batch : (step + 1) * batch]
            given = pixels[rows].float() / 255
            if step % 2:
                given = given.flip(3)
            loss = nn.functional.cross_entropy(model((given - mean) / std), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    path = folder / "weights.pth"
    torch.save({name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}, path)
    return path


def mixed(quality: Path, folder: Path) -> dict[str, bool]:
    """Copy the labelled photographs to one folder. Return a mapping from file names to True for good photographs."""
    folder.mkdir(parents=True)
    good = {}
    for side in ("0", "1"):
        for path in sorted((quality / side).iterdir()):
            shutil.copyfile(path, folder / path.name)
            good[path.name] = side == "1"
    return good


def reviewed(photographs: Path, good: dict[str, bool], count: int, into: Path, seed: int) -> None:
    """Label `count` photographs with the truth, in the order in which the review page shows them."""
    record = Record(into, QUALITY, photographs_of(look_at(photographs)))
    record.prepare()
    session = Session(record, "simulated", seed=seed)
    for _ in range(count):
        state = session.state()
        if state.picture is None:
            return
        session.label(state.picture, QUALITY.yes if good[state.name] else QUALITY.no, 1000)


def stage(name: str, *words: object) -> None:
    """Run the stage `name` on the command line, with the arguments `words`."""
    subprocess.run([sys.executable, "-m", f"jobs.{name}", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def trained(data: Path, weights: Path, output: Path, seed: int) -> Path:
    """Train a classifier on the labels in `data`, and return the output folder."""
    images = sum(path.is_file() for side in "01" for path in (data / side).rglob("*"))
    epochs = max(2, round(STEPS / max(1, images * 0.7 / 16)))
    words = ("--data-dir", data, "--weights-file", weights, "--output-dir", output, "--epochs", epochs, "--seed", seed)
    stage("train_classifier", *words, *PLAIN, *TRAINING)
    return output


def accuracy(model: Path, photographs: Path, good: dict[str, bool], output: Path) -> tuple[float, str]:
    """Return the accuracy on the test photographs, and a text with the accuracy and its 95% interval by vase."""
    stage("classify", "--source-dir", photographs, "--model-path", model, "--target-dir", output, "--device", "cpu")
    with (output / "predictions.csv").open(newline="") as stream:
        rows = [(row["path"], (row["class"] == "1") == good[row["path"]]) for row in csv.DictReader(stream)]
    found = by_vase([float(right) for _, right in rows], [name.rsplit("_", 1)[0] for name, _ in rows])
    assert found is not None and found.interval is not None
    return found.value, f"{found.value:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"


def compared(seed: int, labels: int, sizes: Sizes, work: Path) -> tuple[float, str]:
    """Return how much more accurate the classifier with all labels is, and the table's row for the seed."""
    weights = starting_weights(work / "shapes", sizes.shapes, seed)
    draw_sample(work / "pool", Settings(vases=1, quality_vases=sizes.pool // 2, seed=2000 + seed))
    draw_sample(work / "test", Settings(vases=1, quality_vases=sizes.test // 2, seed=3000 + seed))
    pool = mixed(work / "pool/quality", work / "photographs")
    test = mixed(work / "test/quality", work / "others")
    reviewed(work / "photographs", pool, labels, work / "quality", seed)
    few, few_said = accuracy(
        trained(work / "quality", weights, work / "few", seed), work / "others", test, work / "few-said"
    )
    every, every_said = accuracy(
        trained(work / "pool/quality", weights, work / "every", seed), work / "others", test, work / "every-said"
    )
    return every - few, f"| {seed} | {few_said} | {every_said} | {100 * (every - few):+.1f} |"


def main() -> None:
    """Run the benchmark for each seed, and print the results as a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=80)
    parser.add_argument("--quick", action="store_true", help="use fewer vases")
    parser.add_argument(
        "--clip",
        type=Path,
        help="folder of the demo's CLIP model; test a chosen threshold, not a classifier",
    )
    parser.add_argument("--write", action="store_true", help="also write the table to a file in benchmarks/")
    given = parser.parse_args()
    sizes = Sizes(40, 40, 20) if given.quick else Sizes(80, 80, 40)
    if given.clip is not None:
        lines = thresholds(given.seeds, given.clip, 40 if given.quick else 200)
        write(given.write, "thresholds.md", lines)
        return
    head = [
        f"| seed | accuracy after {given.labels} labels | after all {4 * sizes.pool} labels | difference, points |",
        "|---|---|---|---|",
    ]
    print("\n".join(head), flush=True)
    differences = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as work:
            difference, row = compared(seed, given.labels, sizes, Path(work))
        differences.append(difference)
        head.append(row)
        print(row, flush=True)
    mean = 100 * sum(differences) / len(differences)
    head.append(f"\nMean difference: {mean:.1f} points. Tested on {4 * sizes.test} photographs of {sizes.test} vases.")
    print(head[-1])
    write(given.write, "labels.md", head)


def thresholds(seeds: int, clip: Path, vases: int) -> list[str]:
    """Choose a threshold for clip-filter once for each seed, and return the lines of a table with the results."""
    head = [
        f"| seed | chosen threshold | precision from 100 labels | of all {3 * vases} photographs | recall | of all |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(head), flush=True)
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as work:
            head.append(threshold_row(seed, clip, vases, Path(work)))
        print(head[-1], flush=True)
    return head


def threshold_row(seed: int, clip: Path, vases: int, work: Path) -> str:
    """Choose a threshold for a precision of 0.8 from 100 labels, and return the table's row for the seed.

    The row compares the precision and recall estimated from the labels with the values for all photographs.
    """
    draw_sample(work / "sample", Settings(vases=vases, views=3, quality_vases=1, seed=4000 + seed))
    words = ("--input-dir", work / "sample/photos", "--clip-model", clip, "--output-dir", work / "filtered")
    stage("clip_filter", *words, "--device", "cpu", "--threshold", "0")
    report = FilteringReport.read(work / "filtered")
    assert report is not None
    truth = {row["name"]: row["quality"] == "intact" for row in json.loads((work / "sample/truth.json").read_text())}
    scores = Scores({row.name: row.score for row in report.images}, 0.0, "clip-filter", FOR_THRESHOLD)
    photographs = [one for one in photographs_of(look_at(work / "sample/photos")) if one.name in scores.values]
    record = Record(work / "intact", INTACT, photographs)
    session = Session(record, "simulated", scores, seed, typical.read(work / "filtered"))
    for _ in range(100):
        state = session.state()
        assert state.picture is not None
        session.label(state.picture, INTACT.yes if truth[state.name] else INTACT.no, 1000)
    found = calibration_of(sample_of(record), INTACT.name, scored_of(photographs, scores), 0.8)
    if found.chosen is None:
        return f"| {seed} | none: {found.says} | | | | |"
    [one] = [candidate for candidate in found.candidates if candidate.threshold == found.chosen]
    kept = [truth[name] for name, score in scores.values.items() if score >= found.chosen]
    recall = sum(kept) / sum(truth[name] for name in scores.values)
    assert one.precision is not None and one.recall is not None
    cells = (f"{found.chosen:g}", one.precision.said(), f"{sum(kept) / len(kept):.2f}", one.recall.said())
    return f"| {seed} | {' | '.join(cells)} | {recall:.2f} |"


def write(wanted: bool, name: str, table: list[str]) -> None:
    """If `wanted` is True, write the table and this module's description to the file `name`."""
    if wanted:
        told = [line for line in (__doc__ or "").splitlines() if "--write" not in line]
        (HERE / name).write_text("\n".join(["# Labels of a review", "", *told[2:], *table]) + "\n")


if __name__ == "__main__":
    main()
