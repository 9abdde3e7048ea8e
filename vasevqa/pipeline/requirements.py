"""What a recipe requires where it runs: stages, resources, inputs and models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.pipeline.recipe import Recipe, load_recipe
from vasevqa.pipeline.selection import Selection, select_steps
from vasevqa.spec import Pipeline, Resources

WHOLE_MODELS = ("merge", "to-megatron")  # the stages that write a model as large as the one they read


@dataclass(frozen=True)
class Requirements:
    """The requirements of the steps that run."""

    stages: dict[str, str] = field(default_factory=dict)  # step -> stage, of the steps that run
    resources: dict[str, Resources] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # the recipe inputs that these steps read
    missing: dict[str, str] = field(default_factory=dict)  # input that the recipe doesn't give -> a step that needs it
    models: tuple[str, ...] = ()  # the inputs that are models
    copies: dict[str, int] = field(default_factory=dict)  # input -> how many times its size is written
    on_cpu: frozenset[str] = frozenset()  # the steps with `device: cpu`


def requirements_of(recipe: Recipe, pipeline: Pipeline, last: str | None = None) -> Requirements:
    """Return what `recipe` requires, up to step `last` if given. The steps are those of a plan."""
    selected = select_steps(recipe, pipeline, Selection(last=last))
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
    )


def stages_of(pipeline: Pipeline, path: Path, last: str | None = None) -> list[str]:
    """Return the stages whose images the recipe in `path` needs, up to step `last`."""
    recipe = load_recipe(path, pipeline, here=False)
    return list(dict.fromkeys(requirements_of(recipe, pipeline, last).stages.values()))
