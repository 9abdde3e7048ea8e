"""Check before a run whether the volume has enough free space for the steps that will run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vasevqa import files
from vasevqa.curation.images import find_images
from vasevqa.errors import StorageError, VaseError
from vasevqa.pipeline.garbage import size
from vasevqa.pipeline.plan import Plan, PlannedStep
from vasevqa.pipeline.requirements import WHOLE_MODELS
from vasevqa.stages import classify, clip_filter
from vasevqa.text import byte_size
from vasevqa.training.params import TrainingParams


@dataclass(frozen=True)
class Space:
    """The bytes that a step needs.

    `written` is the least that the step adds to the volume. `free` is what must be free when the step starts.
    """

    step: str
    written: int
    free: int


def refuse_too_little(planned: Plan) -> None:
    """Raise StorageError if the volume is too small for the steps that will run.

    The function estimates the space for copies of the photographs, for checkpoints and for merged models, and ignores
    all other files. The estimate is low rather than high: a run that would succeed must not be refused.
    """
    free, before = files.free_bytes(planned.volume.root), 0
    parts = []
    for space in needed(planned):
        parts.append(f"{space.step} {byte_size(space.free)}")
        if before + space.free > free:
            raise StorageError(
                f"The volume {planned.volume.root} has {byte_size(free)} free, but the missing steps need at least"
                f" {byte_size(before + space.free)} ({', '.join(parts)}); free some space (`vasevqa clean` lists what"
                " can be removed), or use a larger volume."
            )
        before += space.written


def needed(planned: Plan) -> Iterator[Space]:
    """Yield the space that each step needs. Steps that won't run or can't be estimated are left out."""
    steps = {step.name: step for step in (*planned.steps, *planned.given)}
    for step in planned.steps:
        if step.hit or step.artifact.sealed:
            continue
        with contextlib.suppress(OSError, VaseError):  # the step itself names what is wrong with its input
            space = _of_step(step, steps, planned.volume.root)
            if space is not None:
                there = size(step.artifact.partial) if step.artifact.partial.is_dir() else 0  # from earlier attempts
                yield Space(step.name, max(0, space.written - there), max(0, space.free - there))


def _of_step(step: PlannedStep, steps: Mapping[str, PlannedStep], volume: Path) -> Space | None:
    if step.stage.name in (classify.STAGE.name, clip_filter.STAGE.name):
        copied = _photographs(step, volume)
        return Space(step.name, copied, copied) if copied else None
    model = _base(step, steps)
    if model is None:
        return None
    from vasevqa.models import check_model
    from vasevqa.training.estimate import checkpoint_bytes

    if isinstance(step.params, TrainingParams):
        one = checkpoint_bytes(check_model(model), step.params)
        return Space(step.name, one, one * (step.params.save_total_limit + 1))  # as the training's own check
    adapters = steps.get(step.inputs["adapters"].step or "") if "adapters" in step.inputs else None
    whole = adapters is not None and getattr(adapters.params, "tuner_type", "full") == "full"  # it is linked
    if step.stage.name not in WHOLE_MODELS or whole:
        return None
    weights = 2 * check_model(model).parameters  # bfloat16
    return Space(step.name, weights, weights)


def _photographs(step: PlannedStep, volume: Path) -> int:
    """Return the size of the photographs that the step copies. Hard links and reflinks take no space."""
    given = step.inputs["images"]
    if given.path is None or given.step is not None or getattr(step.params, "analyze_only", False):
        return 0
    paths = [item.path for item in find_images(given.path) if not item.problem]
    if not paths or files.immutable_root(paths[0]) is not None:
        return 0
    top = next(folder for folder in (volume, *volume.parents) if folder.is_dir())
    return 0 if files.shares_extents(paths[0], top) else sum(path.stat().st_size for path in paths)


def _base(step: PlannedStep, steps: Mapping[str, PlannedStep]) -> Path | None:
    """Return the path of the recipe's model that the step's model was made from, or None if unknown."""
    given = step.inputs.get("model")
    while given is not None and given.step is not None:
        given = steps[given.step].inputs.get("model") if given.step in steps else None
    return None if given is None else given.path
