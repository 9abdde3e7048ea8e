"""train-classifier: learn from labelled photographs which are of high quality."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from vasevqa import spec

if TYPE_CHECKING:
    from vasevqa.curation.classifier_training import Settings, Trainer
    from vasevqa.curation.reports import ClassifierMetrics

CHECKPOINT = "checkpoint.pt"


class Params(spec.Params):
    """What decides the model."""

    arch: Literal["resnet50", "resnet18"] = Field("resnet50", description="architecture; resnet18 is for demos")
    weights: Literal["imagenet", "none", "file"] = Field(
        "imagenet", description="weights to start from: imagenet, none, or the path of a checkpoint"
    )
    image_size: int = Field(224, ge=32, le=1024, description="side of the model's square input, in pixels")
    epochs: int = Field(200, ge=1, description="maximum number of passes over the training images")
    batch_size: int = Field(256, ge=2, description="images a step")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's")
    weight_decay: float = Field(1e-4, ge=0, description="Adam's")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    warmup_epochs: int = Field(3, ge=0, description="epochs of linear warm-up")
    patience: int = Field(30, ge=0, description="stop after this many epochs without a lower validation loss; 0: never")
    augment: bool = Field(True, description="flip, rotate, crop and jitter colours in training")
    name_pattern: str | None = Field(
        None,
        description=(
            "regular expression for a file's stem with the groups vase and view; unset: <UUID>_<view>_ac<number>"
        ),
    )
    seed: int = Field(0, description="split, order, augmentation and initial weights")


class Options(spec.Options):
    """How it runs."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    workers: int = Field(0, ge=0, description="decoding threads; 0: as many as cores")


def run(call: spec.StageCall[Params, Options]) -> None:
    """Train, keep the best epoch by validation loss, calibrate on validation, measure on test."""
    import torch

    from vasevqa.curation import classifier, classifier_training
    from vasevqa.curation.devices import resolve_device

    device = resolve_device(call.options.device)
    torch.manual_seed(call.params.seed)
    model = classifier.build(call.params.arch)
    weights = "file" if "weights_file" in call.inputs else call.params.weights
    classifier.load_backbone(model, call.params.arch, weights, call.inputs.get("weights_file"))
    call.progress.start("decoding")
    data = classifier_training.load_data(
        call.inputs["data"],
        call.params.image_size,
        call.options.workers,
        call.output.root / "pixels.tmp",
        call.progress.advance,
    )
    parts = classifier_training.split(data.names, data.labels, call.params.name_pattern, call.params.seed)
    trainer = classifier_training.Trainer(model, data, parts, _settings(call.params), call.params.image_size, device)
    _resume(trainer, call.params, call.output, call.progress)
    seconds = _train(trainer, call.params, call.output, call.progress)

    model.load_state_dict(trainer.best["state"])
    val_labels, test_labels = data.labels[parts["val"]], data.labels[parts["test"]]
    heat = classifier_training.temperature(trainer.logits("val"), val_labels)
    metrics = classifier_training.evaluate(trainer.logits("test"), test_labels)
    saved = {
        "state_dict": trainer.best["state"],
        "arch": call.params.arch,
        "image_size": call.params.image_size,
        "temperature": heat,
        "classes": ["low", "high"],
    }
    _save(call.output, classifier.MODEL_FILE, saved)
    _write(call.output, trainer, metrics, heat, weights)
    _tensorboard(call.output, trainer)
    for leftover in (CHECKPOINT, "pixels.tmp"):
        (call.output.root / leftover).unlink(missing_ok=True)
    call.progress.speed({**data.seconds, "model": seconds}, len(data.names))
    auc = "not defined (one class)" if metrics.roc_auc is None else f"{metrics.roc_auc:.3f}"
    call.progress.summary(
        f"accuracy {metrics.accuracy:.3f}, ROC-AUC {auc} on {len(test_labels)} test images; best epoch"
        f" {trainer.best['epoch'] + 1} of {len(trainer.history)}",
        accuracy=metrics.accuracy,
        roc_auc=metrics.roc_auc,
        epochs=len(trainer.history),
    )


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
    """Go on from the checkpoint of an interrupted call with the same parameters on the same images."""
    from vasevqa.curation.classifier import read_checkpoint
    from vasevqa.errors import DataError

    path = output.root / CHECKPOINT
    if not path.is_file():
        return
    try:
        state = read_checkpoint(path)
    except DataError:  # left by something else: training simply begins anew
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


def _write(output: spec.Output, trainer: Trainer, metrics: ClassifierMetrics, heat: float, weights: str) -> None:
    """training_results.json and training_history.png."""
    from vasevqa.curation.classifier_training import history_png
    from vasevqa.curation.reports import SplitSize, TrainingResults

    labels = trainer.data.labels
    TrainingResults(
        test=metrics,
        **metrics.model_dump(),
        temperature=heat,
        best_epoch=trainer.best["epoch"] + 1,
        epochs=len(trainer.history),
        splits={
            part: SplitSize(images=len(rows), high=int(labels[rows].sum())) for part, rows in trainer.parts.items()
        },
        history=trainer.history,
        weights=weights,
        device=str(trainer.device),
        quarantined=trainer.data.quarantined,
    ).write(output)
    with output.writing("training_history.png") as stream:
        stream.write(history_png(trainer.history, trainer.best["epoch"]))


def _tensorboard(output: spec.Output, trainer: Trainer) -> None:
    """The history as TensorBoard's event file, written whole at the end so that a resumed training shows one curve."""
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
    2,
    Params,
    Options,
    (
        spec.Input("data", "--data-dir", "labelled photographs: 0/ low and 1/ high quality"),
        spec.Input("weights_file", "--weights-file", "a checkpoint to start from", required=False, also="weights"),
    ),
    "Trains the quality classifier (ResNet50).",
    spec.Resources(cpus=8, memory="16Gi", gpus=1, gpu_memory="8Gi"),
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.loader",
        "vasevqa.curation.file_names",
        "vasevqa.curation.classifier",
        "vasevqa.curation.augmentation",
        "vasevqa.curation.classifier_training",
        "vasevqa.curation.reports",
    ),
    run=run,
)
