"""What would run, and why: a recipe against the volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vasevqa.pipeline.artifacts import Artifact, Volume
from vasevqa.pipeline.spec import Options, Params, Resources, Source, Stage, Step


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
    skipped: Mapping[str, str]  # step -> why ('skipped: hands on images', 'replaced by inputs.train-classifier')
