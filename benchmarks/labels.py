"""`python -m benchmarks.labels`: a classifier after 80 and 100 labels, beside one that was trained on all labels.

All photographs are drawn. The photographs for the review and the photographs for the test show different vases. A
simulated reviewer always answers with the truth. The reviewer labels photographs in the order in which `vasevqa review`
shows them; the order comes from the review's own code. After 40 labels and after 80 labels, the review stops, and a
classifier is trained on the labels so far. Then the review is resumed, as a person would do it. From then on, the
classifier's probabilities decide which photographs are shown.

All classifiers of a seed start from the same weights, have the same settings, and train for the same number of steps.
They are tested on the same photographs.

Real runs start from ImageNet's weights, which no program of this project downloads by itself. This benchmark starts
from the weights of a network that has learned to name what is painted on other drawn vases (benchmarks/starting.py).
That network is not trained on labels of quality.

With --clip, the benchmark instead chooses clip-filter's threshold from 100 labels for a precision of 0.8. The precision
and recall that are estimated from these labels are compared with the true precision and recall over all photographs.
The scores come from the demo's tiny CLIP (`make demo` makes it).

The command prints a Markdown table. With --write, it also writes the table to labels.md (with --clip: thresholds.md).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation import predictions, typical
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
SIDE, BATCH = 96, 16  # pixels of the classifier's input, and photographs per step
PLAIN = ("--arch", "resnet18", "--image-size", str(SIDE), "--device", "cpu")
TRAINING = ("--learning-rate", "0.0005", "--warmup-epochs", "1", "--patience", "0", "--batch-size", str(BATCH))
STEPS = 150  # of each training, so that few labels are not trained on less
THRESHOLD = 0.5  # classify's default
ROUNDS = (40, 80)  # numbers of labels after which the review is resumed with the probabilities of a new classifier


def rounds(labels: int) -> list[int]:
    """Return the numbers of labels after which a classifier is trained. The first classifier is not tested."""
    return [*(count for count in ROUNDS if count < labels), labels]


@dataclass(frozen=True)
class Sizes:
    """The numbers of vases to label and to test (each with 4 photographs)."""

    pool: int
    test: int


@dataclass(frozen=True)
class Drawn:
    """The photographs that are drawn for one seed: some to label, and others for the test.

    The photographs and all results are below the folder `work`. `weights` is the file of the weights from which the
    classifiers start. `good` maps each photograph's name to whether the photograph is good.
    """

    seed: int
    work: Path
    weights: Path
    good: dict[str, bool]

    @property
    def photographs(self) -> Path:
        """The folder of the photographs to label."""
        return self.work / "pool-photographs"

    @property
    def others(self) -> Path:
        """The folder of the photographs for the test."""
        return self.work / "test-photographs"


def mixed(quality: Path, folder: Path) -> dict[str, bool]:
    """Copy the labelled photographs into one folder. Return a mapping from file names to whether they are good."""
    folder.mkdir(parents=True)
    good = {}
    for side in ("0", "1"):
        for path in sorted((quality / side).iterdir()):
            shutil.copyfile(path, folder / path.name)
            good[path.name] = side == "1"
    return good


def reviewed(drawn: Drawn, count: int, scores: Scores | None) -> Path:
    """Label the photographs that the page shows, until `count` have a label. Return the folder with 0/ and 1/."""
    record = Record(drawn.work / "quality", QUALITY, photographs_of(look_at(drawn.photographs)))
    record.prepare()
    session = Session(record, "simulated", scores, drawn.seed)
    while (state := session.state()).done < count and state.picture is not None:
        session.label(state.picture, QUALITY.yes if drawn.good[state.name] else QUALITY.no, 1000)
    return drawn.work / "quality"


def stage(name: str, *words: object) -> None:
    """Run a stage as a user would."""
    subprocess.run([sys.executable, "-m", f"jobs.{name}", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def trained(drawn: Drawn, data: Path, name: str) -> Path:
    """Train a classifier on the labels in `data`."""
    images = sum(path.is_file() for side in "01" for path in (data / side).rglob("*"))
    epochs = max(2, round(STEPS / max(1, images * 0.7 / BATCH)))
    output = drawn.work / name
    words = ("--data-dir", data, "--weights-file", drawn.weights, "--output-dir", output, "--epochs", epochs)
    stage("train_classifier", *words, "--seed", drawn.seed, *PLAIN, *TRAINING)
    return output


def classified(model: Path, photographs: Path) -> dict[str, float]:
    """Return a mapping from each photograph's name to the classifier's probability that the photograph is good."""
    output = model / f"{photographs.name}-said"
    stage("classify", "--source-dir", photographs, "--model-path", model, "--target-dir", output, "--device", "cpu")
    return {one.name: one.probability for one in predictions.read(output) if one.probability is not None}


def accuracy(drawn: Drawn, model: Path) -> tuple[float, str]:
    """Return the share of test photographs that the classifier sorts correctly, and a text with its 95% interval.

    The interval treats vases as the units.
    """
    said = classified(model, drawn.others)
    right = [float((probability >= THRESHOLD) == drawn.good[name]) for name, probability in said.items()]
    found = by_vase(right, [name.rsplit("_", 1)[0] for name in said])
    assert found.interval is not None
    return found.value, f"{found.value:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"


def drawn_for(seed: int, sizes: Sizes, weights: Path, work: Path) -> Drawn:
    """Draw the photographs to label and the photographs for the test."""
    good: dict[str, bool] = {}
    for name, vases, first in (("pool", sizes.pool, 2000), ("test", sizes.test, 3000)):
        draw_sample(work / name, Settings(vases=1, views=4, quality_vases=vases // 2, seed=first + seed))
        good |= mixed(work / name / "quality", work / f"{name}-photographs")
    return Drawn(seed, work, weights, good)


def compared(drawn: Drawn, labels: int) -> tuple[list[float], str]:
    """Return the accuracies after each number of labels and after all labels, and the seed's row of the table."""
    scores, found = None, []
    for count in rounds(labels):
        model = trained(drawn, reviewed(drawn, count, scores), f"after-{count}")
        if count != labels:
            scores = Scores(classified(model, drawn.photographs), THRESHOLD, "classify")
        if count > ROUNDS[0]:
            found.append(accuracy(drawn, model))
    found.append(accuracy(drawn, trained(drawn, drawn.work / "pool/quality", "after-all")))
    values = [value for value, _ in found]
    differences = [f"{100 * (values[-1] - value):+.1f}" for value in values[:-1]]
    return values, f"| {drawn.seed} | {' | '.join([*(said for _, said in found), *differences])} |"


def main() -> None:
    """Compare the classifiers for each seed, and print the table.

    With --clip, choose clip-filter's threshold for each seed instead. With --write, also write the table to a file.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--labels", type=int, default=100, help="number of labels at the end of the review")
    parser.add_argument("--weights", type=Path, help="file of the starting weights; it is made if it is missing")
    parser.add_argument("--quick", action="store_true", help="fewer vases")
    parser.add_argument("--clip", type=Path, help="folder of the demo's CLIP; choose clip-filter's threshold instead")
    parser.add_argument("--write", action="store_true", help="write benchmarks/labels.md")
    given = parser.parse_args()
    if given.labels <= ROUNDS[0]:
        parser.error(f"--labels is {given.labels}; give more than {ROUNDS[0]}.")
    if given.clip is not None:
        write(given.write, "thresholds.md", thresholds(given.seeds, given.clip, 40 if given.quick else 200))
        return
    with tempfile.TemporaryDirectory() as made:
        weights = (given.weights or Path(made) / "weights.pth").absolute()
        if not weights.exists():
            from benchmarks.starting import starting_weights

            starting_weights(weights)
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        sizes = Sizes(40, 20) if given.quick else Sizes(80, 60)
        write(given.write, "labels.md", differences(seeds, given.labels, sizes, weights))


def differences(seeds: range, labels: int, sizes: Sizes, weights: Path) -> list[str]:
    """Compare the classifiers for each seed, and return the lines of the table."""
    counts = [count for count in rounds(labels) if count > ROUNDS[0]]
    names = [f"accuracy after {count} labels" for count in counts]
    names += [f"after all {4 * sizes.pool}", *(f"difference from {count} labels, points" for count in counts)]
    lines = [f"| seed | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    print("\n".join(lines), flush=True)
    rows = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as work:
            values, line = compared(drawn_for(seed, sizes, weights, Path(work)), labels)
        rows.append(values)
        lines.append(line)
        print(line, flush=True)
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    said = [
        f"{100 * (means[-1] - mean):.1f} points from {count} labels" for count, mean in zip(counts, means, strict=False)
    ]
    lines.append(f"\nMean difference: {', '.join(said)}. Tested on {4 * sizes.test} photographs of {sizes.test} vases.")
    print(lines[-1])
    return lines


def thresholds(seeds: int, clip: Path, vases: int) -> list[str]:
    """Choose clip-filter's threshold from 100 labels of each seed, and return the lines of the table."""
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
    """Label 100 photographs, choose the threshold for a precision of 0.8, and return the seed's row of the table.

    The row compares the estimated precision and recall with the true precision and recall over all photographs.
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
    """Write a table with this module's description."""
    if wanted:
        told = [line for line in (__doc__ or "").splitlines() if "--write" not in line]
        (HERE / name).write_text("\n".join(["# Labels of a review", "", *told[2:], *table]) + "\n")


if __name__ == "__main__":
    main()
