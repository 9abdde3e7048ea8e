"""Check the inputs of a recipe before anything runs: their content, and whether the steps can use them.

Only names, tables, configurations and headers are read. So mistakes are found before hours of work are lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa.dataset.reading import Reading
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.recipe import Recipe
from vasevqa.pipeline.requirements import Requirements, check_stage
from vasevqa.runtime.flags import in_recipe
from vasevqa.spec import Params, Pipeline

if TYPE_CHECKING:
    from vasevqa.dataset.collection import Annotated, Collection

ORDER = ("train-classifier", "clip_model", "model", "images", "annotations")  # the cheapest check first


def reading_of(recipe: Recipe) -> Reading:
    """Return the recipe's settings for reading file names and tables."""
    views, rows = (getattr(recipe.steps.get(name), "params", None) for name in ("select-views", "build-dataset"))
    return Reading(
        getattr(views, "name_pattern", None), getattr(rows, "columns", None) or {}, getattr(rows, "records", None)
    )


def refuse_cpu(asked: Requirements) -> None:
    """Raise ConfigError if the recipe sets `device: cpu` for a step that needs CUDA."""
    for step, stage in asked.stages.items():
        if stage == "to-megatron" and step in asked.on_cpu:
            raise ConfigError(
                f"{step} needs CUDA, and the recipe says `device: cpu`; to skip the step, write `skip: [{step}]`."
            )


@dataclass(frozen=True)
class Inside:
    """The inputs on this machine, by name. Each input is read at most once."""

    paths: Mapping[str, Path]
    reading: Reading

    @cached_property
    def collection(self) -> Collection:
        """The photographs."""
        from vasevqa.dataset.collection import look_at

        return look_at(self.paths["images"], self.reading)

    @cached_property
    def annotated(self) -> Annotated:
        """The vases and photographs that have a row in the annotations."""
        from vasevqa.dataset.collection import look_at_table

        return look_at_table(self.paths["annotations"], self.collection, self.reading)

    def contents(self, name: str) -> str:
        """Return one line about the content of an input.

        Raise ConfigError or DataError if the steps can't use the input. The message names the recipe's keys.
        """
        try:
            return self._contents(name, self.paths[name])
        except ModuleNotFoundError as missing:  # the launcher's image has no packages for workbooks
            return f"{self.paths[name]} (not checked: {missing.name} isn't installed here)"
        except (ConfigError, DataError) as error:
            from vasevqa.stages import build_dataset

            raise type(error)(in_recipe(build_dataset.STAGE, str(error))) from None

    def refuse_too_few(self, params: Params) -> None:
        """Raise DataError if too few vases have a row in the annotations. `params` says how to split the vases."""
        with contextlib.suppress(ModuleNotFoundError):
            from vasevqa.dataset import assignment

            vases = len(self.annotated.vases)
            val, held_out = (getattr(params, f"{side}_fraction", 0) for side in ("val", "eval"))
            assignment.refuse_too_few(vases, vases, val, held_out)

    def _contents(self, name: str, path: Path) -> str:
        from vasevqa import model_formats
        from vasevqa.models import check_model

        if name == "images":
            return self.collection.said()
        if name == "annotations" and "images" in self.paths:
            return self.annotated.said()
        if name == "clip_model" and path.is_dir():
            model_formats.refuse_other_clip(path)
            return f"{path} is a CLIP model"
        if name == "model" and path.is_dir():
            return f"{path} is complete: {check_model(path).parameters / 1e9:.2f} billion parameters"
        if name == "train-classifier" and path.is_file():
            model_formats.refuse_no_checkpoint(path)
            return f"{path} is a checkpoint"
        return str(path)


def inside_of(recipe: Recipe, asked: Requirements) -> Inside:
    """Return the inputs that the steps need and that are on this machine.

    Raise ConfigError if a step can't run with the recipe's settings, whatever the inputs are.
    """
    refuse_cpu(asked)
    paths = {name: Path(value) for name, value in asked.inputs.items() if Path(value).is_absolute()}
    return Inside(paths, reading_of(recipe))


def look_inside(recipe: Recipe, inside: Inside) -> Iterator[tuple[str, str]]:
    """Yield each input that can be checked, with one line about its content. Raise VaseError for a wrong input."""
    for name in ORDER:
        if name in inside.paths:
            yield name, inside.contents(name)
    if {"images", "annotations"} <= set(inside.paths) and "splits" not in inside.paths:
        inside.refuse_too_few(recipe.steps["build-dataset"].params)


def refuse_unusable(pipeline: Pipeline, recipe: Recipe, asked: Requirements, paths: Mapping[str, Path]) -> None:
    """Raise ConfigError or DataError if the steps can't use an input that is on this machine."""
    there = {name: path.absolute() for name, path in paths.items() if path.exists()}
    for _ in look_inside(recipe, Inside(there, reading_of(recipe))):
        pass
    for step, check in asked.checks.items():
        given = {name: str(path) for name, path in there.items()}
        check_stage(pipeline.step(step).stage, recipe.steps[step].params, check.origins, given)
