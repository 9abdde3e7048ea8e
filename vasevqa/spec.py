"""The terms of the pipeline: Stage, Step, Resources, Pipeline, and what a stage gets when it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Generic, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vasevqa.errors import ConfigError


class Params(BaseModel):
    """The parameters that change a stage's result; they are part of the artifact's key.

    Recipe keys and command-line flags are both derived from it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


class Options(BaseModel):
    """How a stage runs (device, batch size, workers, menus); options are never part of the key."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")]
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def quantity_bytes(quantity: str) -> int:
    """Return the bytes of a Kubernetes quantity such as 512Mi or 8Gi; ConfigError if it isn't one."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?", quantity)
    if match is None:
        raise ConfigError(f"'{quantity}' is not a quantity; write it like 512Mi or 8Gi.")
    return int(float(match[1]) * _UNITS[match[2] or ""])


class Resources(BaseModel):
    """What a step asks of a node. Quantities are Kubernetes' own; `memory_limit` is where raising after an OOM ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: float = Field(2, gt=0, description="CPU cores")
    memory: Quantity = Field("4Gi", description="host memory asked for")
    memory_limit: Quantity | None = Field(
        None, description="host memory is raised up to this after an out-of-memory kill; unset: twice `memory`"
    )
    gpus: int = Field(0, ge=0, description="number of GPUs to request; does not set the device")
    gpu_memory: Quantity | None = Field(None, description="minimum memory of one GPU")
    gpu_resource: str | None = Field(
        None,
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description=("the cluster's name for these GPUs, such as nvidia.com/mig-1g.10gb; unset: the cluster's setting"),
    )
    gpu_product: str | None = Field(None, description="GPU model, as the node's nvidia.com/gpu.product label names it")
    ephemeral_storage: Quantity | None = Field(None, description="node-local scratch space")
    shm: Quantity = Field("1Gi", description="size of /dev/shm")
    queue_deadline: int = Field(86400, gt=0, description="seconds that the step may wait in the queue")
    start_deadline: int = Field(1800, gt=0, description="seconds from scheduling to the first line of the stage")
    run_deadline: int | None = Field(None, gt=0, description="seconds that one attempt may run")


@dataclass(frozen=True)
class Input:
    """A named input of a stage: a folder or a file, given by `flag` on the command line."""

    name: str
    flag: str
    help: str = ""
    required: bool = True
    aliases: tuple[str, ...] = ()
    # a parameter whose flag takes a path as well as its choices: a path given there becomes this input
    also: str | None = None
    hub: bool = False  # a model: a hub id such as org/name, or org/name@revision, may stand for a path


class Output(Protocol):
    """The output folder of a stage. Every write goes through it, so that a stage that lost its lease stops writing."""

    @property
    def root(self) -> Path:
        """The folder to write into. It may hold what an earlier, interrupted attempt of the same step wrote."""

    @property
    def standalone(self) -> bool:
        """True without a launcher. `root` may then hold the user's own files, which are kept."""

    @property
    def final(self) -> Path:
        """The path of `root` once it is complete."""

    @property
    def volume(self) -> Path | None:
        """The volume's root, shared by every mount of it; None without a launcher."""

    def check(self) -> None:
        """Raise LeaseLost if another attempt owns this output now.

        Cheap (a stat call): call it before each write of your own.
        """

    def writing(self, name: str, mode: str = "wb") -> AbstractContextManager[IO[Any]]:
        """Open a stream for the file `name` (relative), which appears only when complete."""

    def write_text(self, name: str, text: str) -> None:
        """Write a text file atomically."""

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""

    def place(self, source: Path, name: str) -> str:
        """Put an image at `name`: a hard link from an artifact, a copy of a user's file.

        Returns link, reflink or copy.
        """


class Progress(Protocol):
    """How a stage reports: a bar on a terminal, a line every few seconds when piped, JSON events for a launcher."""

    def start(self, what: str, total: int | None = None, unit: str = "images") -> None:
        """Begin a phase, such as ('scoring', 1200, 'images'), and end the phase before it."""

    def advance(self, count: int = 1) -> None:
        """Report `count` more units as done."""

    def note(self, text: str) -> None:
        """Show one line to the user (a warning, a choice that was made)."""

    def event(self, kind: str, **fields: Any) -> None:
        """Emit a machine-readable event, such as event('metrics', step=3, loss=1.2). Fields must be JSON values."""

    def summary(self, text: str, **figures: Any) -> None:
        """Report the stage's one-line result. `figures` go into the artifact and the report."""

    def speed(self, seconds: Mapping[str, float], count: int, unit: str = "images") -> None:
        """Report the seconds per kind of work, such as {'decode': 3.1, 'model': 8.0, 'disk': .2}.

        Prints the rate and the bottleneck.
        """


class Report(BaseModel):
    """A JSON file that one stage writes and others read.

    A field that came later has a default, so that files of older versions are still read; what a reader doesn't know
    is passed over. `schema_version` is raised when a field changes its meaning.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), populate_by_name=True)
    FILE: ClassVar[str]

    schema_version: int = Field(1, alias="schema")

    def write(self, output: Output) -> None:
        """Write the file into a stage's output, atomically."""
        output.write_json(self.FILE, self.model_dump(mode="json", by_alias=True))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The report in `folder`; None if there is none, or none that can be read: it is never needed to go on."""
        try:
            return cls.model_validate_json((folder / cls.FILE).read_bytes())
        except (OSError, ValueError):
            return None


ParamsT_co = TypeVar("ParamsT_co", bound=Params, covariant=True)
OptionsT_co = TypeVar("OptionsT_co", bound=Options, covariant=True)


@dataclass(frozen=True)
class StageCall(Generic[ParamsT_co, OptionsT_co]):
    """One call of a stage.

    `inputs` maps names to absolute paths; an optional input that was not given is absent. `folder` is None only for a
    stage that needs no output with these parameters.
    """

    params: ParamsT_co
    options: OptionsT_co
    inputs: Mapping[str, Path]
    folder: Output | None
    progress: Progress

    @property
    def output(self) -> Output:
        """The output directory; RuntimeError if the call has none."""
        if self.folder is None:
            raise RuntimeError("This call of the stage has no output directory.")
        return self.folder


RunFunction = Callable[[StageCall[Any, Any]], None]


@dataclass(frozen=True)
class Stage:
    """A kind of work: an image, a click command, typed parameters, named inputs, one output directory.

    `run(call)` does the work. Raise `version` whenever results change; `sources` names the modules beside the stage's
    own whose code decides the result.
    """

    name: str
    version: int
    params: type[Params]
    options: type[Options]
    inputs: tuple[Input, ...]
    summary: str = ""
    resources: Resources = field(default_factory=Resources)
    run: RunFunction = field(kw_only=True)
    output_flag: str = "--output-dir"
    needs_output: Callable[[Any], bool] = lambda params: True
    sources: tuple[str, ...] = ()
    # Called before run when options.interactive is set: (params, options, inputs) -> (params, options)
    interact: str | None = None

    @property
    def module(self) -> str:
        """The module that defines this stage."""
        return self.run.__module__

    def input(self, name: str) -> Input:
        """Return the input called `name`; KeyError if there is none."""
        for known in self.inputs:
            if known.name == name:
                return known
        raise KeyError(name)


@dataclass(frozen=True)
class Source:
    """The source of a step's input: a recipe input, or a step's output (or a folder of it)."""

    name: str
    recipe: bool = False
    folder: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse 'inputs.images', 'select-views' or 'classify/1'."""
        if text.startswith("inputs."):
            return cls(text.removeprefix("inputs."), recipe=True)
        name, _, folder = text.partition("/")
        return cls(name, folder=folder)

    def __str__(self) -> str:
        return f"inputs.{self.name}" if self.recipe else f"{self.name}/{self.folder}".rstrip("/")


@dataclass(frozen=True)
class Step:
    """One use of a Stage in the pipeline. `inputs` maps the stage's input names to sources.

    When the step is skipped, the input `passthrough_input` replaces its output. If that is None, the step can't be
    skipped, only replaced by a recipe input of the step's name. `preset` holds parameters that differ from the stage's
    defaults.
    """

    name: str
    stage: Stage
    inputs: Mapping[str, str]
    passthrough_input: str | None = None
    preset: Mapping[str, Any] = field(default_factory=dict)

    def sources(self) -> dict[str, Source]:
        """Return the source of each input."""
        return {name: Source.parse(text) for name, text in self.inputs.items()}


@dataclass(frozen=True)
class Pipeline:
    """The DAG of Steps, given by their inputs."""

    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        """Return the step called `name`; KeyError if there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The steps' names in catalog order."""
        return tuple(step.name for step in self.steps)
