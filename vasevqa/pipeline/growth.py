"""For each planned step, count the photographs whose values an earlier run has stored on the volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vasevqa.artifacts.known import KnownValues, content_digests
from vasevqa.artifacts.volume import Volume
from vasevqa.curation.images import find_images
from vasevqa.dataset.params import BuildParams, photograph_folder
from vasevqa.model_formats import CLASSIFIER_FILE, folder_digest
from vasevqa.pipeline.plan import Plan, PlannedInput, PlannedStep
from vasevqa.stages import build_dataset, classify, clip_filter


@dataclass(frozen=True)
class Growth:
    """The number of photographs with values from earlier runs, and the number of new photographs."""

    known: int
    new: int

    def said(self) -> str:
        """Return a line such as `5,000 known, 10 new`."""
        return f"{self.known:,} known, {self.new:,} new"


def growth(planned: Plan) -> dict[str, Growth]:
    """Return the numbers of known and new photographs for each step that will run. No photograph is read.

    A step has no entry if its photographs or its model don't exist yet, if their digests aren't cached, or if no
    photograph has values from an earlier run.
    """
    made = {step.name for step in (*planned.steps, *planned.given) if step.hit}
    found = {step.name: _growth(step, made, planned.volume) for step in planned.steps if not step.hit}
    return {name: grown for name, grown in found.items() if grown is not None}


def _growth(step: PlannedStep, made: set[str], volume: Volume) -> Growth | None:
    paths = {name: given.path for name, given in step.inputs.items() if given.step is None or given.step in made}
    folder, stores = _folder(step, paths), _stores(step, paths, volume)
    if folder is None or not stores:
        return None
    names = [item.name for item in find_images(folder) if not item.problem]
    digests = content_digests(volume.root, folder, names, reading=False)
    if len(digests) < len(names):
        return None
    known = max((store.find(set(digests.values())) for store in stores), key=len)
    old = sum(digest in known for digest in digests.values())
    return Growth(old, len(names) - old) if old else None


def _folder(step: PlannedStep, paths: Mapping[str, Path | None]) -> Path | None:
    """Return the folder of the step's photographs; None if the folder doesn't exist yet."""
    if not isinstance(step.params, BuildParams):
        return paths.get("images")
    there = {name: path for name, path in paths.items() if path is not None and path.is_dir()}
    wanted = "accepted" if step.params.views == "all" else "images"
    return photograph_folder(step.params, there) if wanted in there else None


def _stores(step: PlannedStep, paths: Mapping[str, Path | None], volume: Volume) -> list[KnownValues]:
    """Return the stores in which the step may find values.

    Return [] if the step stores no values, or if the digest of its model is unknown.
    """
    if step.stage.name == build_dataset.STAGE.name:
        return [KnownValues(volume.root, build_dataset.made_for())]
    name = {classify.STAGE.name: "model", clip_filter.STAGE.name: "clip_model"}.get(step.stage.name, "")
    if paths.get(name) is None:
        return []
    digest = _digest(step.inputs[name], volume)
    # The machine that runs the step may choose the precision, so the stores of both precisions are returned.
    return [KnownValues(volume.root, _made_for(step, digest, precision)) for precision in ("bf16", "fp32") if digest]


def _digest(model: PlannedInput, volume: Volume) -> str | None:
    if model.path is None or model.path.is_file():
        return model.key
    names = [path.name for path in model.path.iterdir() if path.is_file()]
    known = content_digests(volume.root, model.path, names, reading=False)
    return folder_digest(model.path, known) if model.name == "clip_model" else known.get(CLASSIFIER_FILE)


def _made_for(step: PlannedStep, model: str, precision: str) -> dict[str, object]:
    if isinstance(step.params, classify.Params):
        return classify.made_for(model, precision, step.params)
    return clip_filter.made_for(model, precision, clip_filter.Params.model_validate(step.params.model_dump()))
