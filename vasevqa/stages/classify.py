"""classify: sort photographs into low (0/) and high (1/) quality with the trained classifier."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from vasevqa import spec
from vasevqa.errors import DataError
from vasevqa.journal import Journal

if TYPE_CHECKING:
    from vasevqa.curation.classifier import Classifier
    from vasevqa.curation.images import ImageFile
    from vasevqa.curation.loader import Loader
    from vasevqa.curation.reports import QuarantinedFile

JOURNAL = "predictions.journal"


class Params(spec.Params):
    """What decides the classes."""

    confidence_threshold: float = Field(
        0.5, ge=0, le=1, description="an image is of class 1 if its calibrated probability is at least this"
    )
    exact_decode: bool = Field(
        False, description="decode JPEGs in full instead of at the smallest scale that covers the model's input"
    )


class Options(spec.Options):
    """How it runs."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    batch_size: int = Field(32, ge=1, description="images a batch")
    workers: int = Field(0, ge=0, description="decoding threads; 0: as many as cores")


class _Decisions:
    """What was decided and placed before a kill: name -> (stamp of the file, probability)."""

    def __init__(self, output: spec.Output, made_for: str) -> None:
        output.check()
        self._output = output
        self._journal = Journal(output.root / JOURNAL, made_for)
        self.rows: dict[str, tuple[str, float]] = {name: (stamp, value) for name, stamp, value in self._journal.rows}

    def add(self, rows: list[tuple[str, str, float]]) -> None:
        """Append a batch."""
        self._output.check()
        self._journal.append(rows)
        self.rows.update({name: (stamp, probability) for name, stamp, probability in rows})


def run(call: spec.StageCall[Params, Options]) -> None:
    """Decode, predict, place in 0/ or 1/; then predictions.csv, quarantined.json and classification_report.json."""
    from vasevqa.curation import images
    from vasevqa.curation.classifier import EvalTransform, load_classifier
    from vasevqa.curation.devices import resolve_device
    from vasevqa.curation.loader import Loader
    from vasevqa.curation.reports import quarantined_files

    classifier = load_classifier(call.inputs["model"], resolve_device(call.options.device))
    found = list(images.find_images(call.inputs["images"]))
    if not found:
        raise DataError(
            f"There is no image in {call.inputs['images']} ({', '.join(sorted(images.SUFFIXES))}); check --source-dir."
        )
    earlier = dict(_earlier(call.output.root / "predictions.csv"))
    decisions = _Decisions(call.output, _made_for(call.params, call.inputs, classifier))
    todo = [item for item in found if item.problem or not _decided(item, decisions, call.output, call.params)]
    if len(todo) < len(found):
        call.progress.note(f"{len(found) - len(todo)} images were classified before and are not classified again")
    transform = EvalTransform(classifier.image_size)
    loader = Loader(
        todo,
        transform,
        call.options.batch_size,
        call.options.workers,
        None if call.params.exact_decode else transform.resize,
    )
    call.progress.start("classifying", len(todo))
    seconds = _classify(loader, classifier, decisions, earlier, call.params, call.output, call.progress)
    unreadable = {item.name for item in loader.quarantined}
    names = [item.name for item in found if item.name not in unreadable]
    if not names:
        raise DataError(
            f"None of the {len(found)} images in {call.inputs['images']} can be read (first:"
            f" {loader.quarantined[0].reason}); check the files."
        )
    probabilities = {name: decisions.rows[name][1] for name in names}
    _write(probabilities, quarantined_files(loader.quarantined), earlier, call.params, classifier, call.output)
    high = sum(_label(value, call.params) for value in probabilities.values())
    call.progress.speed({"decode": loader.seconds["wait"], **seconds}, len(todo))
    call.progress.summary(
        f"{high} of {len(names)} images are of high quality (probability >= {call.params.confidence_threshold:g}),"
        f" {len(unreadable)} unreadable",
        images=len(names),
        high=high,
        low=len(names) - high,
        quarantined=len(unreadable),
    )


def _classify(
    loader: Loader,
    classifier: Classifier,
    decisions: _Decisions,
    earlier: Mapping[str, int],
    params: Params,
    output: spec.Output,
    progress: spec.Progress,
) -> dict[str, float]:
    """Place every image that can be read; what an earlier call had decided otherwise is moved. Returns seconds."""
    from vasevqa.curation.reports import remove_ours

    seconds = {"model": 0.0, "disk": 0.0}
    set_aside = 0
    for batch in loader:
        began = time.perf_counter()
        probabilities = classifier.probabilities(batch.pixels).tolist()
        placed = time.perf_counter()
        rows = []
        for name, path, probability in zip(batch.names, batch.paths, probabilities, strict=True):
            stamp = _stamp(path)
            label = _label(probability, params)
            output.place(path, f"{label}/{name}")
            if earlier.get(name, label) != label:
                remove_ours(output, f"{earlier[name]}/{name}")
            rows.append((name, stamp, probability))
        decisions.add(rows)
        seconds["model"] += placed - began
        seconds["disk"] += time.perf_counter() - placed
        progress.advance(len(batch.names) + len(loader.quarantined) - set_aside)
        set_aside = len(loader.quarantined)
    return seconds


def _label(probability: float, params: Params) -> int:
    return int(probability >= params.confidence_threshold)


def _stamp(path: Path) -> str:
    from vasevqa.curation.embeddings import stamp

    try:
        return stamp(path)
    except FileNotFoundError:  # read, and then removed by its owner
        raise DataError(
            f"{path} was removed during the classification; do not change the folder while this runs, and start again."
        ) from None


def _made_for(params: Params, inputs: Mapping[str, Path], classifier: Classifier) -> str:
    from vasevqa.files import digest_json

    weights = [float(value.double().sum()) for value in list(classifier.model.state_dict().values())[::8]]
    return digest_json(
        [
            params.exact_decode,
            str(inputs["images"]),
            classifier.arch,
            classifier.image_size,
            classifier.temperature,
            weights,
        ]
    )


def _decided(item: ImageFile, decisions: _Decisions, output: spec.Output, params: Params) -> bool:
    row = decisions.rows.get(item.name)
    return (
        row is not None
        and row[0] == _stamp(item.path)
        and (output.root / str(_label(row[1], params)) / item.name).exists()
    )


def _earlier(path: Path) -> Iterator[tuple[str, int]]:
    """What an earlier call placed where, by its predictions.csv."""
    if not path.is_file():
        return
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row.get("path") and row.get("class") in ("0", "1"):
                yield row["path"], int(row["class"])


def _write(
    probabilities: dict[str, float],
    quarantined: list[QuarantinedFile],
    earlier: dict[str, int],
    params: Params,
    classifier: Classifier,
    output: spec.Output,
) -> None:
    from vasevqa.curation.reports import ClassificationReport, Histogram, Quarantine

    histogram = [0] * 20
    with output.writing("predictions.csv", "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["path", "probability", "class"])
        for name, probability in probabilities.items():
            table.writerow([name, f"{probability:.6f}", _label(probability, params)])
            histogram[min(int(probability * 20), 19)] += 1
        for name, label in earlier.items():  # of another folder, merged here before
            if name not in probabilities and (output.root / str(label) / name).exists():
                table.writerow([name, "", label])
    Quarantine(quarantined=quarantined).write(output)
    high = sum(_label(value, params) for value in probabilities.values())
    ClassificationReport(
        images=len(probabilities),
        high=high,
        low=len(probabilities) - high,
        confidence_threshold=params.confidence_threshold,
        temperature=classifier.temperature,
        arch=classifier.arch,
        histogram=Histogram(bins=20, counts=histogram),
        quarantined=quarantined,
    ).write(output)
    (output.root / JOURNAL).unlink(missing_ok=True)


STAGE = spec.Stage(
    "classify",
    1,
    Params,
    Options,
    (
        spec.Input("images", "--source-dir", "the folder of photographs", aliases=("--input-dir",)),
        spec.Input("model", "--model-path", "the classifier: a .pth file, or train-classifier's output"),
    ),
    "Sorts photographs into low (0/) and high (1/) quality.",
    spec.Resources(cpus=4, memory="8Gi", gpus=1, gpu_memory="8Gi"),
    output_flag="--target-dir",
    sources=(
        "vasevqa.journal",
        "vasevqa.curation.images",
        "vasevqa.curation.loader",
        "vasevqa.curation.classifier",
        "vasevqa.curation.reports",
    ),
    run=run,
)
