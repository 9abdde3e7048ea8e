"""classify: sort photographs into low (0/) and high (1/) quality with the trained classifier."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from vasevqa import spec
from vasevqa.curation import predictions
from vasevqa.curation.predictions import Prediction
from vasevqa.errors import DataError
from vasevqa.journal import Journal

if TYPE_CHECKING:
    from vasevqa.artifacts.known import KnownPhotographs
    from vasevqa.curation.classifier import Classifier
    from vasevqa.curation.images import ImageFile
    from vasevqa.curation.loader import Loader
    from vasevqa.curation.reports import PassedOverFiles, QuarantinedFile

JOURNAL = "predictions.journal"
_VALUE = struct.Struct("<d")  # a probability in the store of earlier runs


class Params(spec.Params):
    """The parameters that decide which images are classified as high quality."""

    confidence_threshold: float = Field(
        0.5, ge=0, le=1, description="minimum calibrated probability for class 1 (high quality)"
    )
    exact_decode: bool = Field(
        False, description="decode JPEGs in full instead of at the smallest scale that covers the model's input"
    )


class Options(spec.Options):
    """The options that don't change which images are classified as high quality."""

    device: spec.Device = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    batch_size: int = Field(32, ge=1, description="images per batch")
    workers: int = Field(0, ge=0, description="number of decoding threads; 0: one per core")


@dataclass(frozen=True)
class _Unread:
    quarantined: list[QuarantinedFile]
    passed_over: list[PassedOverFiles]


class _Decisions:
    """The probabilities that an interrupted attempt stored.

    `rows` maps the name of an image to the stamp of its file and to its probability.
    """

    def __init__(self, output: spec.Output, made_for: str) -> None:
        output.check()
        self._output = output
        self._journal = Journal(output.root / JOURNAL, made_for)
        self.rows: dict[str, tuple[str, float]] = {name: (stamp, value) for name, stamp, value in self._journal.rows}

    def add(self, rows: list[tuple[str, str, float]]) -> None:
        """Append a batch of rows (name, stamp of the file, probability) to the journal."""
        self._output.check()
        self._journal.append(rows)
        self.rows.update({name: (stamp, probability) for name, stamp, probability in rows})


def run(call: spec.StageCall[Params, Options]) -> None:
    """Classify the images, and copy or link each image into 0/ or 1/.

    Write predictions.csv, quarantined.json and classification_report.json.
    """
    from vasevqa.curation import images
    from vasevqa.curation.classifier import EvalTransform, load_classifier
    from vasevqa.curation.devices import resolve_device
    from vasevqa.curation.loader import Loader
    from vasevqa.curation.reports import passed_over_files, quarantined_files

    classifier = load_classifier(call.inputs["model"], resolve_device(call.options.device))
    others = images.PassedOver()
    photographs = list(images.find_images(call.inputs["images"], others=others))
    if not photographs:
        raise DataError(f"There is no image in {call.inputs['images']}{others.hint()}; check --source-dir.")
    earlier = {one.name: one.label for one in predictions.read(call.output.root)}
    decisions = _Decisions(call.output, _made_for(call.params, call.inputs, classifier))
    todo = [item for item in photographs if item.problem or not _decided(item, decisions, call.output, call.params)]
    if len(todo) < len(photographs):
        call.progress.note(f"{len(photographs) - len(todo)} images were already classified by an earlier attempt")
    known = _known(classifier, photographs, call)
    recalled = [item for item in todo if item.name in known.values]
    if recalled:
        call.progress.note(f"{len(recalled)} images are known from earlier runs, {len(todo) - len(recalled)} are new")
        found = [(item.name, item.path, _VALUE.unpack(known.values[item.name])[0]) for item in recalled]
        _place(found, decisions, earlier, call.params, call.output)
        todo = [item for item in todo if item.name not in known.values]
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
    names = [item.name for item in photographs if item.name not in unreadable]
    if not names:
        raise DataError(
            f"None of the {len(photographs)} images in {call.inputs['images']} can be read (first:"
            f" {loader.quarantined[0].reason}); check the files."
        )
    probabilities = {name: decisions.rows[name][1] for name in names}
    known.keep({name: _VALUE.pack(probabilities[name]) for name in known.lacking(names)})
    unread = _Unread(quarantined_files(loader.quarantined), passed_over_files(others))
    _write(probabilities, unread, earlier, call.params, classifier, call.output)
    high = sum(_label(value, call.params) for value in probabilities.values())
    call.progress.speed({"decode": loader.seconds["wait"], **seconds}, len(todo))
    call.progress.summary(
        f"{high} of {len(names)} images are of high quality (probability >= {call.params.confidence_threshold:g}),"
        f" {len(unreadable)} unreadable{others.after()}",
        images=len(names),
        high=high,
        low=len(names) - high,
        quarantined=len(unreadable),
        **({"known": before} if (before := len(photographs) - len(todo)) else {}),
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
    """Classify every readable image and place it in 0/ or 1/. Return the seconds that the model and the disk took."""
    seconds = {"model": 0.0, "disk": 0.0}
    set_aside = 0
    for batch in loader:
        began = time.perf_counter()
        probabilities = classifier.probabilities(batch.pixels).tolist()
        placed = time.perf_counter()
        _place(list(zip(batch.names, batch.paths, probabilities, strict=True)), decisions, earlier, params, output)
        seconds["model"] += placed - began
        seconds["disk"] += time.perf_counter() - placed
        progress.advance(len(batch.names) + len(loader.quarantined) - set_aside)
        set_aside = len(loader.quarantined)
    return seconds


def _place(
    found: Sequence[tuple[str, Path, float]],
    decisions: _Decisions,
    earlier: Mapping[str, int],
    params: Params,
    output: spec.Output,
) -> None:
    """Place each image of `found` in 0/ or 1/ by its probability. `found` holds (name, path, probability).

    If an earlier call placed an image in the other folder, the image is removed from that folder.
    """
    from vasevqa.curation.reports import remove_ours

    rows = []
    for name, path, probability in found:
        stamp = _stamp(path)
        label = _label(probability, params)
        output.place(path, f"{label}/{name}")
        if earlier.get(name, label) != label:
            remove_ours(output, f"{earlier[name]}/{name}")
        rows.append((name, stamp, probability))
    decisions.add(rows)


def _label(probability: float, params: Params) -> int:
    return int(probability >= params.confidence_threshold)


def _stamp(path: Path) -> str:
    from vasevqa.curation.embeddings import stamp

    try:
        return stamp(path)
    except FileNotFoundError:  # another process removed the file after it was read
        raise DataError(
            f"{path} was removed while the step read it; start again, and don't change the folder during the run."
        ) from None


def made_for(model: str, precision: str, params: Params) -> dict[str, object]:
    """Return the facts, apart from the image itself, that determine an image's probability.

    A stored probability is used again only if these facts are the same. `model` is the digest of the model file.
    """
    exact = params.exact_decode
    return {"stage": STAGE.name, "version": STAGE.version, "model": model, "precision": precision, "exact": exact}


def _known(
    classifier: Classifier, photographs: Sequence[ImageFile], call: spec.StageCall[Params, Options]
) -> KnownPhotographs:
    """Return the probabilities that earlier runs on the volume computed for these photographs."""
    from vasevqa.artifacts.known import KnownPhotographs
    from vasevqa.curation.classifier import model_file
    from vasevqa.curation.clip import resolve_precision
    from vasevqa.files import digest_file

    names = [item.name for item in photographs if not item.problem]
    volume = call.output.volume
    model = digest_file(model_file(call.inputs["model"])) if volume else ""
    precision = resolve_precision("auto", classifier.device)
    return KnownPhotographs(volume, call.inputs["images"], names, made_for(model, precision, call.params))


def _made_for(params: Params, inputs: Mapping[str, Path], classifier: Classifier) -> str:
    from vasevqa.files import digest_json

    weights = [float(value.double().sum()) for value in list(classifier.model.state_dict().values())[::8]]
    return digest_json(
        [
            params.exact_decode,
            str(inputs["images"]),
            classifier.arch,
            classifier.image_size,
            classifier.calibration.temperature,
            classifier.calibration.bias,
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


def _write(
    probabilities: dict[str, float],
    unread: _Unread,
    earlier: dict[str, int],
    params: Params,
    classifier: Classifier,
    output: spec.Output,
) -> None:
    from vasevqa.curation.reports import ClassificationReport, Histogram, Quarantine

    histogram = [0] * 20
    for probability in probabilities.values():
        histogram[min(int(probability * 20), 19)] += 1
    rows = [Prediction(name, _label(value, params), value) for name, value in probabilities.items()]
    kept = [  # images of another input folder, which an earlier call placed in this output
        Prediction(name, label)
        for name, label in earlier.items()
        if name not in probabilities and (output.root / str(label) / name).exists()
    ]
    with output.writing(predictions.FILE, "w") as stream:
        predictions.write(stream, [*rows, *kept])
    Quarantine(quarantined=unread.quarantined).write(output)
    high = sum(_label(value, params) for value in probabilities.values())
    ClassificationReport(
        images=len(probabilities),
        high=high,
        low=len(probabilities) - high,
        confidence_threshold=params.confidence_threshold,
        temperature=classifier.calibration.temperature,
        bias=classifier.calibration.bias,
        arch=classifier.arch,
        histogram=Histogram(bins=20, counts=histogram),
        quarantined=unread.quarantined,
        passed_over=unread.passed_over,
    ).write(output)
    (output.root / JOURNAL).unlink(missing_ok=True)


STAGE = spec.Stage(
    "classify",
    3,
    Params,
    Options,
    (
        spec.Input("images", "--source-dir", "the folder of photographs", aliases=("--input-dir",)),
        spec.Input(
            "model",
            "--model-path",
            "the classifier: a .pth file, or train-classifier's output",
            kind="file or folder",
        ),
    ),
    "Sorts photographs into low (0/) and high (1/) quality.",
    spec.Resources(cpus=4, memory="8Gi", gpus=1, gpu_memory="8Gi"),
    output_flag="--target-dir",
    sources=(
        "vasevqa.journal",
        "vasevqa.curation.images",
        "vasevqa.curation.decoding",
        "vasevqa.curation.colours",
        "vasevqa.folders",
        "vasevqa.curation.loader",
        "vasevqa.curation.classifier",
        "vasevqa.curation.predictions",
        "vasevqa.curation.reports",
    ),
    run=run,
)
