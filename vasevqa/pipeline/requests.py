"""The values from the command line, in one class for each command."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from vasevqa import files
from vasevqa.pipeline.recipe import Recipe, load_recipe
from vasevqa.pipeline.selection import Selection
from vasevqa.spec import Pipeline


@dataclass(frozen=True)
class RecipeRequest:
    """A recipe file, and the changes that one command makes to the recipe."""

    path: Path
    overrides: tuple[str, ...] = ()  # step.parameter=value
    inputs: tuple[str, ...] = ()  # name=path
    inputs_from: Path | None = None  # base of the recipe's relative paths; None: the recipe's own folder
    device: str | None = None  # the device of every step

    def load(self, pipeline: Pipeline, here: bool = True) -> Recipe:
        """Load the recipe with its changes.

        `here=False` means that the inputs are on another machine. Then the inputs need not exist on this machine.
        """
        return load_recipe(self.path, pipeline, self.overrides, self.inputs, self.inputs_from, here, self.device)

    def with_absolute_inputs(self) -> RecipeRequest:
        """Return the same request with absolute paths for `--input` values that exist on this machine."""
        words = []
        for given in self.inputs:
            name, equals, value = given.partition("=")
            words.append(f"{name}={Path(value).absolute()}" if equals and files.exists(Path(value)) else given)
        return replace(self, inputs=tuple(words))

    def beside(self, value: str) -> Path:
        """Return the path on this machine for the value of an input. Relative paths start at the recipe's folder."""
        return Path(os.path.normpath(self.path.parent / files.expanded(value)))

    def to_args(self) -> list[str]:
        """Return the changes to the recipe as command-line arguments, for a command on another machine."""
        words = ["--device", self.device] if self.device else []
        words += [word for override in self.overrides for word in ("--set", override)]
        return words + [word for given in self.inputs for word in ("--input", given)]


@dataclass(frozen=True)
class RunRequest:
    """The command line of `vasevqa run`. `vasevqa plan` uses some of the fields."""

    recipe: RecipeRequest
    volume: Path
    selection: Selection = field(default_factory=Selection)
    parallel: int = 2  # steps that run at once
    backend: str = "local"
    cluster: Path | None = None  # the Cluster file
    detach: bool = False
    launch: str | None = None  # the name of the cluster's Job that restarts this launcher after a crash
    as_json: bool = False


@dataclass(frozen=True)
class SubmitRequest:
    """The command line of `vasevqa submit`."""

    recipe: RecipeRequest
    selection: Selection = field(default_factory=Selection)
    parallel: int = 2
    cluster: Path | None = None
    namespace: str | None = None
    upload: bool = False
    follow_links: bool = False  # an upload sends what links lead to
    detach: bool = False
    report: Path | None = None  # the folder that the report is downloaded to


@dataclass(frozen=True)
class DoctorRequest:
    """The command line of `vasevqa doctor`."""

    volume: Path
    recipe: RecipeRequest | None = None
    last: str | None = None  # the last step to run
    backend: str = "local"
    cluster: Path | None = None
    namespace: str | None = None
    pull: bool = True  # start a test pod for each image
    upload: bool = False

    @property
    def remote(self) -> bool:
        """Return True if the volume is in a cluster and is not mounted on this machine."""
        return self.backend == "kubernetes" and not self.volume.is_dir()
