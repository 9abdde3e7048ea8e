"""The classes that describe a pipeline (Pipeline, Step, Stage), and the objects that a running stage receives."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from vasevqa.errors import ConfigError


class Params(BaseModel):
    """The parameters that change a stage's result. They are part of the artifact's key.

    Each field becomes a recipe key and a command-line flag.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


class Options(BaseModel):
    """The options that say how a stage runs (device, batch size, workers, menus). They are never part of the key."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise PydanticCustomError("device", "there is no such device; use auto, cpu, cuda or cuda:N")
    return name


Device = Annotated[str, AfterValidator(_device)]

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")]
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def quantity_bytes(quantity: str) -> int:
    """Return the number of bytes of a Kubernetes quantity, such as 8Gi. Raise ConfigError for any other text."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?", quantity)
    if match is None:
        raise ConfigError(f"'{quantity}' is not a quantity; write it like 512Mi or 8Gi.")
    return int(float(match[1]) * _UNITS[match[2] or ""])


class Resources(BaseModel):
    """The resources that a step requests. Sizes are Kubernetes quantities, such as 8Gi.

    If a step runs out of memory, its next attempt requests more memory, up to `memory_limit`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: float = Field(2, gt=0, description="CPU cores")
    memory: Quantity = Field("4Gi", description="host memory to request")
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
    gpu_product: str | None = Field(None, description="GPU model: the value of the node's nvidia.com/gpu.product label")
    ephemeral_storage: Quantity | None = Field(None, description="node-local scratch space")
    shm: Quantity = Field("1Gi", description="size of /dev/shm")
    queue_deadline: int = Field(86400, gt=0, description="seconds that the step may wait in the queue")
    start_deadline: int = Field(1800, gt=0, description="seconds from scheduling to the first line of the stage")
    run_deadline: int | None = Field(None, gt=0, description="seconds that one attempt may run")


@dataclass(frozen=True)
class Input:
    """A named input of a stage. `kind` says whether it is a folder or a file. `flag` is its command-line flag."""

    name: str
    flag: str
    help: str = ""
    required: bool = True
    aliases: tuple[str, ...] = ()
    # the name of a parameter whose flag accepts a path besides its choices; the path becomes this input
    also: str | None = None
    hub: bool = False  # true for a model, which may also be a hub id: org/name or org/name@revision
    kind: Literal["folder", "file", "file or folder"] = "folder"

    def refuse_other_kind(self, path: Path, where: str) -> None:
        """Raise ConfigError if `path` isn't of this input's kind. `path` must exist.

        `where` names the flag or the key that gives the path. The path isn't opened, because opening a pipe may block,
        and reading a device may never end.
        """
        mode = path.stat().st_mode
        given = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "pipe, socket or device"
        if given not in self.kind.split(" or "):
            raise ConfigError(f"{where}: {path} is a {given}, not a {self.kind}; give {self.help or self.name}.")


class Output(Protocol):
    """The output folder of a stage.

    A stage writes only through this class. If another attempt has taken over the output, the next write raises
    LeaseLost, so that the stage stops.
    """

    @property
    def root(self) -> Path:
        """The folder to write into. It may hold files from an earlier, interrupted attempt of the same step."""

    @property
    def standalone(self) -> bool:
        """True if the stage runs without a launcher. `root` may then hold the user's own files, which are kept."""

    @property
    def final(self) -> Path:
        """The path that the output folder has after the stage. While the stage runs, `root` may be a different path."""

    @property
    def volume(self) -> Path | None:
        """The root folder of the volume. None if the stage runs without a launcher."""

    def check(self) -> None:
        """Raise LeaseLost if another attempt owns this output now.

        The check costs one stat call. A stage calls it before each direct write into `root`.
        """

    def writing(self, name: str, mode: str = "wb") -> AbstractContextManager[IO[Any]]:
        """Open a stream for the file `name` (relative). The file appears only when it is complete."""

    def write_text(self, name: str, text: str) -> None:
        """Write a text file atomically."""

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""

    def place(self, source: Path, name: str) -> str:
        """Create the image `name` in the output, with the content of `source`.

        A file of an artifact is hard-linked if possible. A user's file is copied, if possible as a reflink. Return
        'link', 'reflink' or 'copy'.
        """


class Progress(Protocol):
    """The interface by which a stage reports its progress.

    A terminal shows the user a progress bar. If the output goes to a pipe or a file, it consists of lines of text. A
    launcher gets JSON events.
    """

    def start(self, what: str, total: int | None = None, unit: str = "images") -> None:
        """Begin a phase, such as ('scoring', 1200, 'images'), and end the previous phase."""

    def advance(self, count: int = 1) -> None:
        """Report that `count` more units are done."""

    def note(self, text: str) -> None:
        """Show one line to the user, such as a warning or an automatic choice."""

    def event(self, kind: str, **fields: Any) -> None:
        """Emit a machine-readable event, such as event('metrics', step=3, loss=1.2). Values must be JSON values."""

    def summary(self, text: str, **figures: Any) -> None:
        """Report the stage's result in one line. `figures` are written to the artifact and the report."""

    def speed(self, seconds: Mapping[str, float], count: int, unit: str = "images") -> None:
        """Report the seconds for each kind of work, such as {'decode': 3.1, 'model': 8.0, 'disk': .2}.

        The user sees the rate and the slowest kind of work.
        """


class Report(BaseModel):
    """A JSON file that one stage writes and other stages read.

    A field that was added later has a default, so that files of older versions can still be read. Unknown fields are
    ignored. `schema_version` is raised when a field changes its meaning.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), populate_by_name=True)
    FILE: ClassVar[str]

    schema_version: int = Field(1, alias="schema")

    def write(self, output: Output) -> None:
        """Write the file atomically into a stage's output."""
        output.write_json(self.FILE, self.model_dump(mode="json", by_alias=True))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the report in `folder`, or None if it is missing or invalid.

        A stage can always continue without a report.
        """
        try:
            return cls.model_validate_json((folder / cls.FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None


ParamsT_co = TypeVar("ParamsT_co", bound=Params, covariant=True)
OptionsT_co = TypeVar("OptionsT_co", bound=Options, covariant=True)


@dataclass(frozen=True)
class StageCall(Generic[ParamsT_co, OptionsT_co]):
    """One call of a stage.

    `inputs` maps names to absolute paths. It has no entry for an optional input that was not given. `folder` is the
    output folder. It may be None if the stage needs no output with these parameters.
    """

    params: ParamsT_co
    options: OptionsT_co
    inputs: Mapping[str, Path]
    folder: Output | None
    progress: Progress

    @property
    def output(self) -> Output:
        """The output folder. Raise RuntimeError if the call has no output folder."""
        if self.folder is None:
            raise RuntimeError("This call of the stage has no output directory.")
        return self.folder


RunFunction = Callable[[StageCall[Any, Any]], None]


@dataclass(frozen=True)
class Stage:
    """A kind of work, with a container image, a click command, typed parameters, named inputs and one output folder.

    `run(call)` does the work. `version` must be raised whenever results change. `sources` names the other modules whose
    code decides the result.
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
    # Called when the step is planned, with the inputs that the recipe gives. An input that isn't on this machine's disk
    # is None: it is on the volume of a cluster, or comes from a hub. The function raises ConfigError or DataError for a
    # mistake in the inputs, before earlier steps run. If earlier steps pass on an input, such as images, the function
    # gets the recipe input that it comes from.
    check: Callable[[Mapping[str, Path | None], Any], None] = lambda inputs, params: None
    # Called before run when options.interactive is set: (params, options, inputs) -> (params, options)
    interact: str | None = None

    @property
    def module(self) -> str:
        """The module that defines this stage."""
        return self.run.__module__

    def input(self, name: str) -> Input:
        """Return the input called `name`. Raise KeyError if there is none."""
        for known in self.inputs:
            if known.name == name:
                return known
        raise KeyError(name)


@dataclass(frozen=True)
class Source:
    """The source of a step's input: a recipe input, a step's output, or a folder in a step's output."""

    name: str
    recipe: bool = False
    folder: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse a source such as 'inputs.images', 'select-views' or 'classify/1'."""
        if text.startswith("inputs."):
            return cls(text.removeprefix("inputs."), recipe=True)
        name, _, folder = text.partition("/")
        return cls(name, folder=folder)

    def __str__(self) -> str:
        return f"inputs.{self.name}" if self.recipe else f"{self.name}/{self.folder}".rstrip("/")


@dataclass(frozen=True)
class Step:
    """One use of a Stage in the pipeline. `inputs` maps the stage's input names to sources.

    If the step is skipped, later steps read the step's input `passthrough_input` instead of its output. If
    `passthrough_input` is None, the step can be skipped only if no step that runs reads its output. If a recipe has an
    input with the step's name, this input replaces the step. `preset` holds parameters that differ from the stage's
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
    """The Steps as a DAG. The edges are the inputs of the Steps."""

    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        """Return the step called `name`. Raise KeyError if there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The steps' names in catalog order."""
        return tuple(step.name for step in self.steps)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages in catalog order, without repetition."""
        return tuple(dict.fromkeys(step.stage.name for step in self.steps))
