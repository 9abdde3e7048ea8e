"""What a user asks of a command that works on a recipe: made by the command line, handed to the library whole."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.pipeline.recipe import Recipe, load_recipe
from vasevqa.pipeline.selection import Selection
from vasevqa.spec import Pipeline


@dataclass(frozen=True)
class RecipeRequest:
    """A recipe, and what is changed in it for this call."""

    path: Path
    overrides: tuple[str, ...] = ()  # step.parameter=value
    inputs: tuple[str, ...] = ()  # name=path
    inputs_from: Path | None = None  # paths in the recipe are relative to it; None: to the recipe's own folder

    def load(self, pipeline: Pipeline, here: bool = True) -> Recipe:
        """The recipe as it is asked for. Without `here` its inputs lie on another machine and need not exist."""
        return load_recipe(self.path, pipeline, self.overrides, self.inputs, self.inputs_from, here)

    def with_absolute_inputs(self) -> RecipeRequest:
        """The same, with inputs that are on this machine as the caller sees them, whatever folder the recipe is in."""
        words = []
        for given in self.inputs:
            name, equals, value = given.partition("=")
            words.append(f"{name}={Path(value).absolute()}" if equals and Path(value).exists() else given)
        return RecipeRequest(self.path, self.overrides, tuple(words), self.inputs_from)

    def to_args(self) -> list[str]:
        """The command-line words that make the same changes to a recipe elsewhere."""
        words = [word for override in self.overrides for word in ("--set", override)]
        return words + [word for given in self.inputs for word in ("--input", given)]


@dataclass(frozen=True)
class RunRequest:
    """`vasevqa run`, and what `vasevqa plan` shares with it."""

    recipe: RecipeRequest
    volume: Path
    selection: Selection = field(default_factory=Selection)
    parallel: int = 2  # steps side by side
    backend: str = "local"
    cluster: Path | None = None  # the Cluster file
    detach: bool = False
    launch: str | None = None  # the Job in the cluster that starts this launcher again after a crash
    as_json: bool = False


@dataclass(frozen=True)
class SubmitRequest:
    """`vasevqa submit`."""

    recipe: RecipeRequest
    selection: Selection = field(default_factory=Selection)
    parallel: int = 2
    cluster: Path | None = None
    namespace: str | None = None
    upload: bool = False
    detach: bool = False
    report: Path | None = None  # the folder that the report is brought into


@dataclass(frozen=True)
class DoctorRequest:
    """`vasevqa doctor`."""

    volume: Path
    recipe: RecipeRequest | None = None
    last: str | None = None  # the last step that is meant to run
    backend: str = "local"
    cluster: Path | None = None
    namespace: str | None = None
    pull: bool = True  # start a pod of each image
    upload: bool = False

    @property
    def remote(self) -> bool:
        """True if the volume is in a cluster and not mounted here."""
        return self.backend == "kubernetes" and not self.volume.is_dir()

    def here(self, value: str) -> Path:
        """The path on this machine that an input of the recipe means."""
        assert self.recipe is not None
        return Path(os.path.normpath(self.recipe.path.parent / Path(value).expanduser()))
