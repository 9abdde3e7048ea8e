"""What would run, and why: a recipe against the volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from vasevqa.artifacts.digests import DigestCache
from vasevqa.artifacts.keys import artifact_key, key_parameters
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.backends.cluster import Cluster
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.recipe import Recipe
from vasevqa.spec import Options, Params, Pipeline, Resources, Source, Stage, Step
from vasevqa.text import nearest


@dataclass(frozen=True)
class PlannedInput:
    """One input of a planned step: where it lies (or will lie) and the key that stands for its content."""

    name: str
    source: Source
    path: Path | None  # absolute; None for a hub id
    key: str  # content digest of a recipe input, or the artifact's key (with '/folder')
    value: str  # what the command line gets: the path, or the hub id
    step: str | None = None  # the step that makes it; None for a recipe input


@dataclass(frozen=True)
class PlannedStep:
    """One step, resolved: parameters, inputs, the artifact it makes, and whether that exists."""

    step: Step
    params: Params
    options: Options
    resources: Resources
    inputs: Mapping[str, PlannedInput]
    artifact: Artifact
    hit: bool
    reasons: tuple[str, ...]  # for a miss: what differs from the nearest existing artifact, one sentence each
    refresh: bool = False  # to be made anew though it exists

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def stage(self) -> Stage:
        """The step's stage."""
        return self.step.stage

    @property
    def after(self) -> tuple[str, ...]:
        """The steps whose artifacts this one reads."""
        return tuple(dict.fromkeys(planned.step for planned in self.inputs.values() if planned.step is not None))


@dataclass(frozen=True)
class Plan:
    """The steps to look at, in an order that respects their inputs."""

    name: str
    volume: Volume
    steps: tuple[PlannedStep, ...]
    skipped: Mapping[str, str]  # step -> why
    given: tuple[PlannedStep, ...] = ()  # steps that weren't asked for, whose artifacts are read


@dataclass(frozen=True)
class Selection:
    """Which steps to look at: --from, --to, --only, and which to make anew: --refresh."""

    first: str | None = None
    last: str | None = None
    only: tuple[str, ...] = ()
    refresh: tuple[str, ...] = ()


def make_plan(recipe: Recipe, pipeline: Pipeline, volume: Volume, selection: Selection | None = None) -> Plan:
    """What would run for `recipe`, in order, and why. ConfigError for unknown steps, missing inputs and cycles."""
    selection = selection or Selection()
    for name in (selection.first, selection.last, *selection.only, *selection.refresh):
        if name is not None and name not in pipeline.names:
            raise ConfigError(f"There is no step '{name}'.{nearest(name, pipeline.names)}")
    skipped = {name: f"skipped: hands on its {pipeline.step(name).hands_on}" for name in recipe.skip}
    skipped |= {
        name: f"replaced by the input {recipe.inputs[name]}" for name in recipe.inputs if name in pipeline.names
    }
    wired = {
        step.name: {name: _resolve(source, pipeline, skipped) for name, source in step.sources().items()}
        for step in pipeline.steps
    }
    order = _order(
        {name: {source.name for source in sources.values() if not source.recipe} for name, sources in wired.items()},
        pipeline,
    )
    chosen = _choose(order, wired, selection, recipe.to, skipped)
    digests = DigestCache(volume.cache)
    planned: dict[str, PlannedStep] = {}
    for name in order:
        wanted = name in chosen or any(name in _upstream(other, wired) for other in chosen)
        if wanted and name not in skipped:
            planned[name] = _plan_step(pipeline.step(name), wired[name], recipe, volume, (planned, digests, selection))
    for name, step in planned.items():
        if name not in chosen and not step.hit and not step.artifact.sealed:
            raise ConfigError(
                f"{name} has no finished artifact for this recipe ({step.reasons[0]}), and only {', '.join(chosen)}"
                " were asked for; run it first."
            )
    return Plan(
        recipe.name,
        volume,
        tuple(step for name, step in planned.items() if name in chosen),
        skipped,
        tuple(planned[name] for name in planned if name not in chosen),
    )


def _resolve(source: Source, pipeline: Pipeline, skipped: Mapping[str, str]) -> Source:
    """Where an input really comes from, once skipped steps hand on theirs and inputs replace steps."""
    while not source.recipe and source.name in skipped:
        if skipped[source.name].startswith("replaced"):
            return Source(source.name, recipe=True)
        step = pipeline.step(source.name)
        source = step.sources()[step.hands_on or ""]
    return source


def _order(after: Mapping[str, set[str]], pipeline: Pipeline) -> list[str]:
    for name, needs in after.items():
        for need in needs:
            if need not in after:
                raise ConfigError(f"Step {name} reads {need}, which is no step.{nearest(need, pipeline.names)}")
    try:
        sorter = TopologicalSorter(after)
        sorter.prepare()
        order: list[str] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=pipeline.names.index)
            order += ready
            sorter.done(*ready)
    except CycleError as error:
        raise ConfigError(f"The steps {' -> '.join(error.args[1])} wait for one another; break the cycle.") from None
    return order


def _upstream(name: str, wired: Mapping[str, Mapping[str, Source]]) -> set[str]:
    found: set[str] = set()
    pending = [name]
    while pending:
        for source in wired[pending.pop()].values():
            if not source.recipe and source.name not in found:
                found.add(source.name)
                pending.append(source.name)
    return found


def _choose(
    order: list[str],
    wired: Mapping[str, Mapping[str, Source]],
    selection: Selection,
    to: str | None,
    skipped: Mapping[str, str],
) -> list[str]:
    chosen = [name for name in order if name not in skipped]
    if selection.only:
        return [name for name in chosen if name in selection.only]
    last = selection.last or to
    if last is not None:
        wanted = _upstream(last, wired) | {last}
        chosen = [name for name in chosen if name in wanted]
    if selection.first is not None:
        chosen = [name for name in chosen if name == selection.first or selection.first in _upstream(name, wired)]
    if not chosen:
        raise ConfigError("No step is left to run; check --from, --to, --only and the recipe's skip.")
    return chosen


_Context = tuple[dict[str, PlannedStep], DigestCache, Selection]


def _plan_step(
    step: Step, wired: Mapping[str, Source], recipe: Recipe, volume: Volume, context: _Context
) -> PlannedStep:
    planned, digests, selection = context
    inputs: dict[str, PlannedInput] = {}
    for name, source in wired.items():
        if not source.recipe:
            maker = planned[source.name].artifact
            path = maker.path / source.folder
            inputs[name] = PlannedInput(
                name, source, path, f"{maker.key}/{source.folder}".rstrip("/"), str(path), source.name
            )
        elif source.name in recipe.inputs:
            value = recipe.inputs[source.name]
            if Path(value).is_absolute():
                inputs[name] = PlannedInput(name, source, Path(value), digests.digest(Path(value)), value)
            else:
                hub, _, revision = value.removeprefix("hf-hub:").partition("@")
                inputs[name] = PlannedInput(name, source, None, f"hub:{hub}@{revision or 'main'}", value)
        elif step.stage.input(name).required:
            raise ConfigError(
                f"{step.name} needs the input '{source.name}' ({step.stage.input(name).help}); add it under `inputs` in"
                " the recipe, or use --to to stop before."
            )
    settings = recipe.steps[step.name]
    artifact = volume.artifact(
        step.name, artifact_key(step.stage, settings.params, {name: given.key for name, given in inputs.items()})
    )
    refresh = step.name in selection.refresh
    hit = artifact.complete and not refresh
    reasons = (
        ()
        if hit
        else ("refresh was asked for",)
        if refresh
        else tuple(_reasons(step, settings.params, inputs, planned, volume))
    )
    return PlannedStep(
        step, settings.params, settings.options, settings.resources, inputs, artifact, hit, reasons, refresh
    )


def _reasons(
    step: Step, params: Params, inputs: Mapping[str, PlannedInput], planned: Mapping[str, PlannedStep], volume: Volume
) -> list[str]:
    """What differs from the nearest complete artifact of this step: the one with the fewest differences, the newest of
    equals.
    """
    best: list[str] | None = None
    for artifact in reversed(volume.complete(step.name)):
        try:
            record = artifact.record()
        except DataError:
            continue
        found = _differences(step, params, inputs, planned, record)
        if found and (best is None or len(found) < len(best)):
            best = [f"{text} (compared with {artifact.key[:10]})" for text in found]
    return best or ["no artifact of this step exists yet"]


def _differences(
    step: Step,
    params: Params,
    inputs: Mapping[str, PlannedInput],
    planned: Mapping[str, PlannedStep],
    record: Mapping[str, Any],
) -> list[str]:
    found = []
    if record.get("stage_version") != step.stage.version:
        found.append(f"stage version is {step.stage.version}, was {record.get('stage_version')}")
    before, now = record.get("params", {}), params.model_dump(mode="json")
    # What the artifact's maker didn't know yet differs only if it is in the key.
    keyed = key_parameters(step.stage, params)
    now = {name: value for name, value in now.items() if name in before or name in keyed}
    found += [
        f"{key} is {now.get(key)!r}, was {before.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    for name in sorted({*record.get("inputs", {}), *inputs}):
        was, given = record.get("inputs", {}).get(name, {}).get("key"), inputs.get(name)
        if given is None or was is None:
            found.append(
                f"input {name} is {'not given' if given is None else 'given'}, was"
                f" {'given' if given is None else 'not given'}"
            )
        elif was != given.key:
            rerun = given.step is not None and not planned[given.step].hit
            found.append(f"input {name} comes from {given.step}, which will run" if rerun else f"input {name} changed")
    return found


def plan_rows(planned: Plan) -> list[dict[str, Any]]:
    """The plan as plain values."""
    return [
        {
            "step": step.name,
            "key": step.artifact.key,
            "hit": step.hit,
            "sealed": step.artifact.sealed,
            "reasons": list(step.reasons),
        }
        for step in planned.steps
    ]


def with_gpu_product(planned: Plan, cluster: Cluster) -> Plan:
    """The site's GPU model for the steps with a GPU that name none. It changes no result, so it is in no key."""
    if cluster.gpu_product is None:
        return planned
    given = {"gpu_product": cluster.gpu_product}
    steps = [
        (
            step
            if step.resources.gpu_product or not step.resources.gpus
            else replace(step, resources=step.resources.model_copy(update=given))
        )
        for step in planned.steps
    ]
    return replace(planned, steps=tuple(steps))
