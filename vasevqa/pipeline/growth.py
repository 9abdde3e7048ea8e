"""How many photographs of a planned step earlier runs on the volume have computed already."""

from __future__ import annotations

from dataclasses import dataclass

from vasevqa.artifacts.known import KnownValues, content_digests
from vasevqa.artifacts.volume import Volume
from vasevqa.curation.images import find_images
from vasevqa.model_formats import CLASSIFIER_FILE, folder_digest
from vasevqa.pipeline.plan import Plan, PlannedInput, PlannedStep
from vasevqa.stages import classify, clip_filter


@dataclass(frozen=True)
class Growth:
    """The number of photographs with values from earlier runs, and the number of new photographs."""

    known: int
    new: int

    def said(self) -> str:
        """Return a line such as `5,000 known, 10 new`."""
        return f"{self.known:,} known, {self.new:,} new"


def growth(planned: Plan) -> dict[str, Growth]:
    """Return the known and new photographs by step. No photograph is read.

    A step is left out if its photographs or its model don't exist yet, or if their digests aren't known.
    """
    made = {step.name for step in (*planned.steps, *planned.given) if step.hit}
    found = {step.name: _growth(step, made, planned.volume) for step in planned.steps if not step.hit}
    return {name: grown for name, grown in found.items() if grown is not None}


def _growth(step: PlannedStep, made: set[str], volume: Volume) -> Growth | None:
    images, model = step.inputs.get("images"), _model(step)
    ready = all(given is not None and (given.step is None or given.step in made) for given in (images, model))
    if not ready or images is None or images.path is None or model is None or model.path is None:
        return None
    digest = _digest(model, volume)
    names = [item.name for item in find_images(images.path) if not item.problem]
    digests = content_digests(volume.root, images.path, names, reading=False)
    if digest is None or len(digests) < len(names):
        return None
    # Only the step's own machine knows its precision if the recipe leaves it open.
    stores = [KnownValues(volume.root, _made_for(step, digest, precision)) for precision in ("bf16", "fp32")]
    known = max((store.find(set(digests.values())) for store in stores), key=len)
    old = sum(digest in known for digest in digests.values())
    return Growth(old, len(names) - old) if old else None


def _model(step: PlannedStep) -> PlannedInput | None:
    names = {classify.STAGE.name: "model", clip_filter.STAGE.name: "clip_model"}
    return step.inputs.get(names.get(step.stage.name, ""))


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
