"""train-classifier: train a classifier of image quality on labelled photographs."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from vasevqa import spec
from vasevqa.curation.file_names import DESCRIPTION, UNMATCHED_DESCRIPTION, NamePattern, check_patterns
from vasevqa.errors import ConfigError
from vasevqa.folders import PassedOver
from vasevqa.model_formats import CLASSIFIER_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vasevqa.curation.calibration import Calibration
    from vasevqa.curation.classifier_training import Data, Settings, Trainer
    from vasevqa.curation.file_names import Naming
    from vasevqa.curation.labels import Labelled
    from vasevqa.curation.reports import ClassifierMetrics

CHECKPOINT = "checkpoint.pt"


class Params(spec.Params):
    """The parameters that change the trained model."""

    arch: Literal["resnet50", "resnet18"] = Field(
        "resnet50", description="architecture of the network; resnet18 is for demos"
    )
    weights: Literal["imagenet", "none", "file"] = Field(
        "imagenet", description="weights to start from: imagenet, none, or the path of a checkpoint"
    )
    image_size: int = Field(224, ge=32, le=1024, description="side of the model's square input, in pixels")
    epochs: int = Field(200, ge=1, description="maximum number of passes over the training images")
    batch_size: int = Field(256, ge=2, description="images per step")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's")
    weight_decay: float = Field(1e-4, ge=0, description="Adam's")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    warmup_epochs: int = Field(3, ge=0, description="epochs of linear warm-up")
    patience: int = Field(30, ge=0, description="stop after this many epochs without a lower validation loss; 0: never")
    augment: bool = Field(True, description="flip, rotate, crop and jitter colours in training")
    name_pattern: NamePattern = Field(None, description=DESCRIPTION)
    unmatched: Literal["error", "own-vase"] = Field("error", description=UNMATCHED_DESCRIPTION)
    leave_out: str | None = Field(
        None,
        description=(
            "name of a folder below 0/ and 1/: test only on its photographs, and train on all other photographs"
        ),
    )
    seed: int = Field(0, description="seed for split, order, augmentation and initial weights")


class Options(spec.Options):
    """The options that don't change the trained model."""

    device: spec.Device = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    workers: int = Field(0, ge=0, description="number of decoding threads; 0: one per core")


def run(call: spec.StageCall[Params, Options]) -> None:
    """Train the classifier, select the epoch with the lowest validation loss, and then calibrate and test the model."""
    import torch

    from vasevqa.curation import calibration, classifier, classifier_training, labels
    from vasevqa.curation.devices import resolve_device

    others = PassedOver()
    labelled, read_as = labels.labelled_images(call.inputs["data"], others)
    named = _named(labelled, call.params)
    device = resolve_device(call.options.device)
    torch.manual_seed(call.params.seed)
    model = classifier.build(call.params.arch)
    weights = "file" if "weights_file" in call.inputs else call.params.weights
    classifier.load_backbone(model, call.params.arch, weights, call.inputs.get("weights_file"))
    call.progress.start("decoding")
    data = classifier_training.load_data(
        labelled,
        others,
        call.params.image_size,
        call.options.workers,
        call.output.root / "pixels.tmp",
        call.progress.advance,
    )
    vases, unmatched = _vases(labelled, data.names, named, call.progress)
    parts = _parts(labelled, data, vases, call.params)
    trainer = classifier_training.Trainer(model, data, parts, _settings(call.params), call.params.image_size, device)
    _resume(trainer, call.params, call.output, call.progress)
    seconds = _train(trainer, call.params, call.output, call.progress)

    model.load_state_dict(trainer.best["state"])
    val_labels, test_labels = data.labels[parts["val"]], data.labels[parts["test"]]
    fitted = calibration.calibrate(trainer.logits("val"), val_labels)
    tested = [vases[row] for row in parts["test"]]
    metrics = classifier_training.evaluate(fitted.probabilities(trainer.logits("test")), test_labels, tested)
    doubled = classifier_training.doubled(data)
    _tell_doubts(call.progress, fitted, doubled)
    saved = {
        "state_dict": trainer.best["state"],
        "arch": call.params.arch,
        "image_size": call.params.image_size,
        "temperature": fitted.temperature,
        "bias": fitted.bias,
        "classes": ["low", "high"],
    }
    _save(call.output, CLASSIFIER_FILE, saved)
    _write(call, trainer, metrics, fitted, doubled)
    _tensorboard(call.output, trainer)
    for leftover in (CHECKPOINT, "pixels.tmp"):
        (call.output.root / leftover).unlink(missing_ok=True)
    call.progress.speed({**data.seconds, "model": seconds}, len(data.names))
    also = [f"{unmatched} names match no pattern"] * (unmatched > 0) + [read_as] * bool(read_as)
    call.progress.summary(
        _summary(metrics, trainer, len(test_labels)) + "".join(f"; {text}" for text in also) + others.after(),
        accuracy=metrics.accuracy,
        roc_auc=metrics.roc_auc,
        epochs=len(trainer.history),
        unmatched=unmatched,
    )


def _summary(metrics: ClassifierMetrics, trainer: Trainer, tested: int) -> str:
    return (
        f"accuracy {_figure(metrics, 'accuracy')} (baseline, the more common class: {metrics.baseline_accuracy:.3f}),"
        f" ROC-AUC {_figure(metrics, 'roc_auc')} on {tested} test images of {metrics.vases} vases;"
        f" best epoch {trainer.best['epoch'] + 1} of {len(trainer.history)}"
    )


def _tell_doubts(progress: spec.Progress, fitted: Calibration, doubled: list[str]) -> None:
    if doubled:
        progress.note(f"{len(doubled)} images are in both classes (first: {doubled[0]}); remove one copy of each")
    if fitted.at_bound:
        progress.note(
            f"the calibration's temperature is at its bound ({fitted.temperature:.3g}), so the probabilities are"
            " unreliable; add labelled images"
        )


def _figure(metrics: ClassifierMetrics, name: str) -> str:
    """Return a metric as text, with its confidence interval if the interval was computed."""
    value, low_high = getattr(metrics, name), metrics.intervals.get(name)
    if value is None:
        return "not defined (one class)"
    return f"{value:.3f}" + (f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else "")


def _named(labelled: Sequence[Labelled], params: Params) -> Naming:
    """Return the rules that read the vase from a photograph's name.

    Raise DataError if some names match no rule, or if a class has too few vases. This is checked before any image is
    decoded in full.
    """
    from vasevqa.curation import naming
    from vasevqa.curation.file_names import vase_group
    from vasevqa.curation.labels import check_vases

    named = naming.naming_of(params.name_pattern, [item.file.name for item in labelled])
    if params.unmatched == "error":
        naming.refuse_unmatched([item.file for item in labelled], named)
    check_vases(
        {label: {vase_group(item.file.name, named) for item in labelled if item.label == label} for label in (0, 1)}
    )
    return named


def _vases(
    labelled: Sequence[Labelled], names: Sequence[str], named: Naming, progress: spec.Progress
) -> tuple[list[str], int]:
    """Return the vase of each of `names`, and the number of names that match no pattern.

    A photograph whose name matches no pattern is the only view of a separate vase.
    """
    from vasevqa.curation import naming
    from vasevqa.curation.file_names import parse_name, vase_group

    below = {item.name: item.file.name for item in labelled}
    told = [found.vase for name in names if (found := parse_name(below[name], named))]
    if told:
        progress.note(naming.said(named, len(told), len(set(told))))
    return [vase_group(below[name], named) for name in names], len(names) - len(told)


def _parts(labelled: Sequence[Labelled], data: Data, vases: Sequence[str], params: Params) -> dict[str, list[int]]:
    """Return the indices of the images in each of the parts train, val and test."""
    from vasevqa.curation import classifier_training

    if params.leave_out is None:
        return classifier_training.split(data.labels, vases, params.seed)
    collections = _collections(labelled, data.names)
    return classifier_training.split_by_collection(data.labels, vases, collections, params.leave_out, params.seed)


def _collections(labelled: Sequence[Labelled], names: Sequence[str]) -> list[str]:
    """Return the collection of each of `names`: the first folder below the label's folder, or '' if there is none."""
    below = {item.name: item.file.name for item in labelled}
    return [below[name].split("/")[0] if "/" in below[name] else "" for name in names]


def check(inputs: Mapping[str, Path | None], params: Params) -> None:
    """Raise ConfigError or DataError if the name pattern, the weights, the labels or the names are invalid."""
    from vasevqa.curation import labels

    check_patterns(params.name_pattern)
    if params.weights == "file" and "weights_file" not in inputs:
        raise ConfigError(
            "train-classifier has `weights: file`, but no file is given; add the input `classifier_weights`."
        )
    if (data := inputs.get("data")) is not None:
        _named(labels.labelled_images(data, PassedOver())[0], params)


def _settings(params: Params) -> Settings:
    from vasevqa.curation.classifier_training import Settings

    return Settings(
        params.epochs,
        params.batch_size,
        params.learning_rate,
        params.weight_decay,
        params.warmup_epochs,
        params.patience,
        params.schedule,
        params.seed,
        params.augment,
    )


def _resume(trainer: Trainer, params: Params, output: spec.Output, progress: spec.Progress) -> None:
    """Restore the checkpoint of an interrupted call with the same parameters and images."""
    from vasevqa.curation.classifier import read_checkpoint
    from vasevqa.errors import DataError

    path = output.root / CHECKPOINT
    if not path.is_file():
        return
    try:
        state = read_checkpoint(path)
    except DataError:  # the file is not a checkpoint of this stage, so the training starts from the beginning
        return
    if state.get("made_for") == _made_for(trainer, params):
        trainer.restore(state["trainer"])
        progress.note(f"resuming after epoch {len(trainer.history)}")


def _made_for(trainer: Trainer, params: Params) -> str:
    from vasevqa.files import digest_json

    return digest_json(
        [
            params.model_dump(mode="json"),
            trainer.data.names,
            int(trainer.data.pixels[:: max(1, len(trainer.data.names) // 64)].long().sum()),
        ]
    )


def _train(trainer: Trainer, params: Params, output: spec.Output, progress: spec.Progress) -> float:
    began = time.perf_counter()
    made_for = _made_for(trainer, params)
    left = params.epochs - len(trainer.history)
    progress.start("training", left * len(trainer.parts["train"]))
    while not trainer.finished:
        row = trainer.epoch(progress.advance)
        _save(output, CHECKPOINT, {"made_for": made_for, "trainer": trainer.state()})
        progress.event("metrics", **row)
    return time.perf_counter() - began


def _save(output: spec.Output, name: str, value: Any) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    with output.writing(name) as stream:
        stream.write(buffer.getbuffer())


def _write(
    call: spec.StageCall[Params, Options],
    trainer: Trainer,
    metrics: ClassifierMetrics,
    fitted: Calibration,
    doubled: list[str],
) -> None:
    """Write training_results.json and training_history.png."""
    from vasevqa.curation.classifier_training import history_png
    from vasevqa.curation.reports import SplitSize, TrainingResults, passed_over_files

    labels = trainer.data.labels
    TrainingResults(
        test=metrics,
        **metrics.model_dump(),
        temperature=fitted.temperature,
        bias=fitted.bias,
        doubled=doubled,
        best_epoch=trainer.best["epoch"] + 1,
        epochs=len(trainer.history),
        splits={
            part: SplitSize(images=len(rows), high=int(labels[rows].sum())) for part, rows in trainer.parts.items()
        },
        history=trainer.history,
        weights="file" if "weights_file" in call.inputs else call.params.weights,
        device=str(trainer.device),
        quarantined=trainer.data.quarantined,
        passed_over=passed_over_files(trainer.data.others),
    ).write(call.output)
    with call.output.writing("training_history.png") as stream:
        stream.write(history_png(trainer.history, trainer.best["epoch"]))


def _tensorboard(output: spec.Output, trainer: Trainer) -> None:
    """Write the training history as a TensorBoard event file.

    The file is written at the end, so that a resumed training shows one curve.
    """
    from torch.utils.tensorboard import SummaryWriter

    output.check()
    folder = output.root / "tensorboard"
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for row in trainer.history:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(row["epoch"]) + 1)


STAGE = spec.Stage(
    "train-classifier",
    4,
    Params,
    Options,
    (
        spec.Input("data", "--data-dir", "labelled photographs: 0/ low and 1/ high quality"),
        spec.Input(
            "weights_file",
            "--weights-file",
            "a checkpoint to start from",
            required=False,
            also="weights",
            kind="file",
        ),
    ),
    "Trains the quality classifier (ResNet50).",
    spec.Resources(cpus=8, memory="16Gi", gpus=1, gpu_memory="8Gi"),
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.decoding",
        "vasevqa.curation.colours",
        "vasevqa.folders",
        "vasevqa.curation.loader",
        "vasevqa.curation.file_names",
        "vasevqa.curation.labels",
        "vasevqa.curation.naming",
        "vasevqa.curation.classifier",
        "vasevqa.curation.augmentation",
        "vasevqa.curation.classifier_training",
        "vasevqa.curation.calibration",
        "vasevqa.statistics",
        "vasevqa.curation.reports",
    ),
    run=run,
    check=check,
)
