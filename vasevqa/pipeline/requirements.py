"""What a recipe asks of the place that it runs at: steps, resources, inputs and models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vasevqa.backends.checks import BAD, Finding
from vasevqa.pipeline.recipe import Recipe, known_step, load_recipe
from vasevqa.spec import Pipeline, Resources


@dataclass(frozen=True)
class Wanted:
    """What a recipe asks of the place."""

    stages: dict[str, str]  # step -> stage, of the steps that run
    resources: dict[str, Resources]
    inputs: dict[str, str]
    models: tuple[str, ...]  # the inputs that are models
    copies: dict[str, int]  # input -> how many times its size is written
    on_cpu: frozenset[str] = frozenset()  # the steps that say `device: cpu`


def stages_of(pipeline: Pipeline, path: Path, last: str | None = None) -> list[str]:
    """The stages whose images a recipe needs, up to step `last`."""
    recipe = load_recipe(path, pipeline, here=False)
    return list(
        dict.fromkeys(wanted(pipeline, replace(recipe, to=known_step(pipeline, last) or recipe.to)).stages.values())
    )


def missing_inputs(pipeline: Pipeline, recipe: Recipe | None, asked: Wanted) -> Iterator[Finding]:
    """Inputs that steps need and the recipe doesn't name."""
    for name in asked.stages:
        step = pipeline.step(name)
        for own, source in step.sources().items():
            if (
                recipe is not None
                and source.recipe
                and step.stage.input(own).required
                and source.name not in recipe.inputs
            ):
                text = f"{name} needs it, and the recipe names none; name it, or end before that step with `to`"
                yield Finding(f"input {source.name}", BAD, text, 2)


def wanted(pipeline: Pipeline, recipe: Recipe) -> Wanted:
    """The steps that run: up to `to`, without those that are skipped or replaced; and what their inputs are."""
    names = [step.name for step in pipeline.steps if step.name not in recipe.skip and step.name not in recipe.inputs]
    if recipe.to is not None:
        above, todo = set(), [recipe.to]
        while todo:
            name = todo.pop()
            above.add(name)
            todo += [
                source.name
                for source in pipeline.step(name).sources().values()
                if not source.recipe and source.name not in above
            ]
        names = [name for name in names if name in above]
    read = {source.name for name in names for source in pipeline.step(name).sources().values()}
    inputs = {name: value for name, value in recipe.inputs.items() if name in read}
    hubs = {
        source.name
        for step in pipeline.steps
        for name, source in step.sources().items()
        if source.recipe and step.stage.input(name).hub
    }
    merges = sum(
        pipeline.step(name).stage.name in ("merge", "to-megatron") for name in names
    )  # each writes a whole model
    copies = {"images": 1, "model": merges}
    return Wanted(
        {name: pipeline.step(name).stage.name for name in names},
        {name: recipe.steps[name].resources for name in names},
        inputs,
        tuple(name for name in inputs if name in hubs),
        {name: count for name, count in copies.items() if name in inputs and count},
        frozenset(name for name in names if getattr(recipe.steps[name].options, "device", "auto") == "cpu"),
    )
