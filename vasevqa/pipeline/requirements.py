"""Collect what a recipe requires: stages, resources, inputs and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.recipe import Recipe, load_recipe
from vasevqa.pipeline.selection import Selection, origins, select_steps
from vasevqa.runtime.flags import in_recipe
from vasevqa.spec import Params, Pipeline, Resources, Stage

WHOLE_MODELS = ("merge", "to-megatron")  # the stages that write a model of the same size as their input model


@dataclass(frozen=True)
class StageCheck:
    """The values that a stage needs to check the inputs of a step.

    `origins` maps an input of the stage to the recipe input that it comes from. The files of the recipe input may be on
    another machine.
    """

    params: Mapping[str, object]
    origins: Mapping[str, str]


@dataclass(frozen=True)
class Requirements:
    """The requirements of the steps that run."""

    stages: dict[str, str] = field(default_factory=dict)  # step -> stage, of the steps that run
    resources: dict[str, Resources] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # the recipe inputs that these steps read
    missing: dict[str, str] = field(default_factory=dict)  # input that the recipe doesn't give -> a step that needs it
    models: tuple[str, ...] = ()  # the inputs that are models
    copies: dict[str, int] = field(default_factory=dict)  # input -> number of outputs of its size that the steps write
    on_cpu: frozenset[str] = frozenset()  # the steps with `device: cpu`
    checks: Mapping[str, StageCheck] = field(default_factory=dict)  # step -> the values for its check


def requirements_of(recipe: Recipe, pipeline: Pipeline, selection: Selection | None = None) -> Requirements:
    """Return the requirements of `recipe`; with `selection`, only of the selected steps.

    The steps are the same as in a plan of the recipe.
    """
    selected = select_steps(recipe, pipeline, selection)
    names = [name for name in pipeline.names if name in selected.names]
    inputs: dict[str, str] = {}
    missing: dict[str, str] = {}
    models: set[str] = set()
    for step in names:
        for own, source in selected.wiring[step].items():
            declared = pipeline.step(step).stage.input(own)
            if not source.recipe:
                continue
            if source.name in recipe.inputs:
                inputs[source.name] = recipe.inputs[source.name]
                models |= {source.name} if declared.hub else set()
            elif declared.required:
                missing.setdefault(source.name, step)
    inputs = {name: value for name, value in recipe.inputs.items() if name in inputs}  # in the recipe's order
    copies = {"images": 1, "model": sum(pipeline.step(name).stage.name in WHOLE_MODELS for name in names)}
    return Requirements(
        stages={name: pipeline.step(name).stage.name for name in names},
        resources={name: recipe.steps[name].resources for name in names},
        inputs=inputs,
        missing=missing,
        models=tuple(name for name in inputs if name in models),
        copies={name: count for name, count in copies.items() if name in inputs and count},
        on_cpu=frozenset(name for name in names if getattr(recipe.steps[name].options, "device", "auto") == "cpu"),
        checks={
            name: StageCheck(
                recipe.steps[name].params.model_dump(mode="json"), origins(name, selected.wiring, recipe.inputs)
            )
            for name in names
        },
    )


def check_stage(stage: Stage, params: Params, origins: Mapping[str, str], inputs: Mapping[str, str]) -> None:
    """Let a stage check its inputs.

    `origins` maps the stage's inputs to recipe inputs, and `inputs` maps recipe inputs to absolute paths or hub ids.
    The stage reads only the inputs that are on this machine. Raise ConfigError or DataError if the stage can't use an
    input. The message names the recipe's keys.
    """
    paths = {name: Path(inputs.get(source, "")) for name, source in origins.items()}
    there = {name: path if path.is_absolute() and path.exists() else None for name, path in paths.items()}
    try:
        stage.check(there, params)
    except (ConfigError, DataError) as error:
        raise type(error)(in_recipe(stage, str(error))) from None


def stages_of(pipeline: Pipeline, path: Path, last: str | None = None) -> list[str]:
    """Return the stages of the recipe in `path`; with `last`, only of the steps up to `last`.

    The recipe needs the images of these stages.
    """
    recipe = load_recipe(path, pipeline, here=False)
    return list(dict.fromkeys(requirements_of(recipe, pipeline, Selection(last=last)).stages.values()))
