"""Plan a recipe: find out which steps run on the volume, and why."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vasevqa.artifacts.digests import DigestCache
from vasevqa.artifacts.keys import artifact_key, key_parameters
from vasevqa.artifacts.lease import lease_ttl
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.backends.cluster import Cluster
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.recipe import Recipe
from vasevqa.pipeline.requirements import check_stage
from vasevqa.pipeline.runs import PlanRow
from vasevqa.pipeline.selection import Selection, Wiring, origins, select_steps
from vasevqa.spec import Options, Params, Pipeline, Resources, Source, Stage, Step


@dataclass(frozen=True)
class PlannedInput:
    """One input of a planned step: the path (which may not exist yet) and the key of the content."""

    name: str
    source: Source
    path: Path | None  # absolute; None for a hub id
    key: str  # content digest of a recipe input, or key of an artifact (with '/folder')
    value: str  # the value on the command line: the path or the hub id
    step: str | None = None  # the step that makes the input; None for a recipe input


@dataclass(frozen=True)
class PlannedStep:
    """One planned step: its parameters and inputs, its artifact, and whether the artifact exists already."""

    step: Step
    params: Params
    options: Options
    resources: Resources
    inputs: Mapping[str, PlannedInput]
    artifact: Artifact
    hit: bool
    reasons: tuple[str, ...]  # for a miss: the differences from the nearest existing artifact
    refresh: bool = False  # make the artifact again even if it exists

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
        """The steps whose artifacts this step reads."""
        return tuple(dict.fromkeys(planned.step for planned in self.inputs.values() if planned.step is not None))


@dataclass(frozen=True)
class Plan:
    """The steps to run; each step comes after the steps whose artifacts it reads."""

    name: str
    volume: Volume
    steps: tuple[PlannedStep, ...]
    skipped: Mapping[str, str]  # step -> why
    given: tuple[PlannedStep, ...] = ()  # steps that don't run, but whose artifacts are read


def make_plan(
    recipe: Recipe, pipeline: Pipeline, volume: Volume, selection: Selection | None = None, using: bool = False
) -> Plan:
    """Return the plan of `recipe`: the steps in order, and the reasons why a step will run.

    `using` says that a run will use the plan. Then `clean` keeps the existing artifacts from now on.

    Raise ConfigError for unknown steps, missing inputs and cycles.
    """
    selection = selection or Selection()
    steps = select_steps(recipe, pipeline, selection)
    planner = _Planner(recipe, volume, DigestCache(volume.cache, volume.root), selection.refresh, steps.wiring, using)
    for name in steps.needed:
        planner.add(pipeline.step(name))
    planned, chosen = planner.planned, steps.names
    for name, step in planned.items():
        if name not in chosen and not step.hit and not step.artifact.sealed:
            raise ConfigError(
                f"{name} has no finished artifact for this recipe ({step.reasons[0]}), and only {', '.join(chosen)}"
                f" were selected; run {name} first."
            )
    return Plan(
        recipe.name,
        volume,
        tuple(step for name, step in planned.items() if name in chosen),
        steps.skipped,
        tuple(planned[name] for name in planned if name not in chosen),
    )


@dataclass
class _Planner:
    """Plans the steps one by one; each step comes after the steps whose artifacts it reads."""

    recipe: Recipe
    volume: Volume
    digests: DigestCache
    refresh: Collection[str]
    wiring: Wiring
    using: bool = False
    planned: dict[str, PlannedStep] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        sources = self.wiring[step.name].items()
        inputs = {name: given for name, source in sources if (given := self._input(step, name, source))}
        settings = self.recipe.steps[step.name]
        key = artifact_key(step.stage, settings.params, {name: given.key for name, given in inputs.items()})
        artifact = self.volume.artifact(step.name, key)
        if self.using:
            artifact.mark_used()
            _wait_for_removal(artifact)
        refresh = step.name in self.refresh
        hit = artifact.complete and not refresh
        reasons: tuple[str, ...] = ()
        if refresh:
            reasons = ("refresh was requested",)
        elif not hit and artifact.path.is_dir():
            reasons = (f"the artifact {artifact.key[:10]} has no artifact.json, or a damaged one",)
        elif not hit:
            reasons = tuple(_reasons(step, settings.params, inputs, self.planned, self.volume))
        if not hit:
            paths = self.recipe.inputs
            check_stage(step.stage, settings.params, origins(step.name, self.wiring, paths), paths)
        self.planned[step.name] = PlannedStep(
            step, settings.params, settings.options, settings.resources, inputs, artifact, hit, reasons, refresh
        )

    def _input(self, step: Step, name: str, source: Source) -> PlannedInput | None:
        """Return the input; None if the input is optional and not given.

        Raise ConfigError if the input is required and not given.
        """
        if not source.recipe:
            maker = self.planned[source.name].artifact
            path = maker.path / source.folder
            return PlannedInput(name, source, path, f"{maker.key}/{source.folder}".rstrip("/"), str(path), source.name)
        if source.name in self.recipe.inputs:
            value = self.recipe.inputs[source.name]
            if Path(value).is_absolute():
                return PlannedInput(name, source, Path(value), self.digests.digest(Path(value)), value)
            hub, _, revision = value.removeprefix("hf-hub:").partition("@")
            return PlannedInput(name, source, None, f"hub:{hub}@{revision or 'main'}", value)
        if step.stage.input(name).required:
            raise ConfigError(
                f"{step.name} needs the input '{source.name}' ({step.stage.input(name).help}); add it under `inputs` in"
                " the recipe, or end the run before this step with --to."
            )
        return None


def _wait_for_removal(artifact: Artifact) -> None:
    """Wait while `clean` may be removing the artifact. A `clean` that starts later sees that it is in use."""
    end = time.monotonic() + lease_ttl()
    while artifact.complete and artifact.busy and time.monotonic() < end:
        time.sleep(0.02)


def _reasons(
    step: Step, params: Params, inputs: Mapping[str, PlannedInput], planned: Mapping[str, PlannedStep], volume: Volume
) -> list[str]:
    """Return the differences between the planned step and its nearest complete artifact.

    The nearest artifact is the artifact with the fewest differences. If several artifacts have equally few differences,
    the newest of these is taken.
    """
    best: list[str] | None = None
    for artifact in reversed(volume.complete(step.name)):
        try:
            record = artifact.record()
        except DataError:
            continue
        differences = _differences(step, params, inputs, planned, record)
        if differences and (best is None or len(differences) < len(best)):
            best = [f"{text} (compared with {artifact.key[:10]})" for text in differences]
    return best or ["no artifact of this step exists yet"]


def _differences(
    step: Step,
    params: Params,
    inputs: Mapping[str, PlannedInput],
    planned: Mapping[str, PlannedStep],
    record: Mapping[str, Any],
) -> list[str]:
    differences = []
    if record.get("stage_version") != step.stage.version:
        differences.append(f"stage version is {step.stage.version}, was {record.get('stage_version')}")
    before, now = record.get("params", {}), params.model_dump(mode="json")
    # A parameter that is newer than the artifact is compared only if it is in the key.
    keyed = key_parameters(step.stage, params)
    now = {name: value for name, value in now.items() if name in before or name in keyed}
    differences += [
        f"{key} is {now.get(key)!r}, was {before.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    for name in sorted({*record.get("inputs", {}), *inputs}):
        was, given = record.get("inputs", {}).get(name, {}).get("key"), inputs.get(name)
        if given is None or was is None:
            differences.append(
                f"input {name} is {'not given' if given is None else 'given'}, was"
                f" {'given' if given is None else 'not given'}"
            )
        elif was != given.key:
            rerun = given.step is not None and not planned[given.step].hit
            differences.append(
                f"input {name} comes from {given.step}, which will run" if rerun else f"input {name} changed"
            )
    return differences


def plan_rows(planned: Plan) -> list[PlanRow]:
    """Return one row of JSON values for each step of the plan."""
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
    """Return the plan with the site's GPU model for each GPU step whose resources name no GPU model.

    The GPU model doesn't change results, so it is not part of an artifact's key.
    """
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
