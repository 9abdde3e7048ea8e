"""`vasevqa doctor`: check the machine, the cluster and the volume before a recipe runs.

Each check yields one finding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa import files
from vasevqa.backends.checks import BAD, OK, UNKNOWN, WARNING, Finding, finding_of, stage_of
from vasevqa.backends.cluster import Cluster, cluster_of
from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.dataset.reading import Reading
from vasevqa.errors import ClusterError, DeviceError, VaseError
from vasevqa.models import HUB_ID
from vasevqa.pipeline.garbage import size
from vasevqa.pipeline.inspection import Inside, reading_of, refuse_cpu
from vasevqa.pipeline.recipe import Recipe
from vasevqa.pipeline.requests import DoctorRequest
from vasevqa.pipeline.requirements import Requirements, StageCheck, check_stage, requirements_of
from vasevqa.pipeline.selection import Selection
from vasevqa.spec import Pipeline, quantity_bytes

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.session import Session


DEV = Path("/dev")
SHM = "/dev/shm"  # noqa: S108 - the shared memory of data loaders
RESERVE = 1 << 30  # bytes for logs, reports and checkpoints of adapters


def findings(pipeline: Pipeline, request: DoctorRequest) -> Iterator[Finding]:
    """Check the machine, cluster and volume of `request`; yield one finding for each check."""
    recipe = None
    asked = Requirements()
    if request.recipe is not None:
        wanted = request.recipe.with_absolute_inputs() if request.upload else request.recipe
        try:
            recipe = wanted.load(pipeline, here=not request.remote)
            asked = requirements_of(recipe, pipeline, Selection(last=request.last))
            refuse_cpu(asked)
        except VaseError as error:
            yield Finding("recipe", BAD, str(error), error.exit_code)
        else:
            yield Finding("recipe", OK, f"{recipe.name}: {', '.join(asked.stages)}")
    for name, step in asked.missing.items():
        text = (
            f"{step} needs this input, and the recipe does not give it; add it under `inputs`, or set `to` to an"
            " earlier step"
        )
        yield Finding(f"input {name}", BAD, text, 2)
    coming = 0
    if request.remote and request.upload:
        here = {name: request.recipe.beside(value) for name, value in asked.inputs.items()} if request.recipe else {}
        coming = sum((1 + asked.copies.get(name, 0)) * size(path) for name, path in here.items() if path.exists())
        yield from _to_be_uploaded(pipeline, here, _question(asked, recipe))
        asked = replace(asked, inputs={name: value for name, value in asked.inputs.items() if not here[name].exists()})
    try:
        if request.backend == "kubernetes":
            cluster = cluster_of(request.cluster, request.namespace, pipeline.stages)
            yield from _kubernetes(pipeline, request, cluster, asked, _question(asked, recipe, coming))
            return
        cluster = cluster_of(request.cluster, None, pipeline.stages)
        if request.backend == "docker":
            yield from _docker(cluster, asked)
        else:
            yield from _local(asked)
    except ClusterError as error:
        what = "cluster" if request.backend == "kubernetes" else "engine"
        yield Finding(what, BAD, str(error), error.exit_code)
        if request.remote:  # the volume is not on this machine
            return
    yield from volume_findings(pipeline, request.volume, _question(asked, recipe))


def _to_be_uploaded(pipeline: Pipeline, here: Mapping[str, Path], question: VolumeQuestion) -> Iterator[Finding]:
    there = {name: path for name, path in here.items() if path.exists()}
    inside = Inside(there, question.reading)
    bad = set()
    for name, path in there.items():
        found = _finding(name, inside)
        bad |= {found.text} if found.state == BAD else set()
        told = f"{path} is on this machine and will be uploaded"
        yield replace(found, text=told) if found.text == str(path) else found
    yield from _checked(pipeline, question, there, bad)


def _checked(
    pipeline: Pipeline, question: VolumeQuestion, there: Mapping[str, Path], known: Collection[str]
) -> Iterator[Finding]:
    """Yield a finding for each step that can't use its inputs. Messages in `known` are not reported again."""
    given = {name: str(path.absolute()) for name, path in there.items()}
    for name, check in question.checks.items():
        stage = pipeline.step(name).stage
        try:
            check_stage(stage, stage.params.model_validate(check.params), check.origins, given)
        except VaseError as error:
            if str(error) not in known:
                yield Finding(f"step {name}", BAD, str(error), error.exit_code)


@dataclass(frozen=True)
class VolumeQuestion:
    """The values that a check of the volume needs.

    In a cluster, a pod mounts the volume and checks it. The pod gets these values as JSON on its command line.
    """

    inputs: Mapping[str, str]
    models: Sequence[str]  # the inputs that are models
    copies: Mapping[str, int]  # input -> number of outputs of its size that the steps write
    coming: int = 0  # bytes to be uploaded to the volume
    name_pattern: str | Sequence[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    records: str | None = None
    checks: Mapping[str, StageCheck] = field(default_factory=dict)

    @property
    def reading(self) -> Reading:
        """The settings for reading file names and tables."""
        return Reading(self.name_pattern, self.columns, self.records)

    def to_json(self) -> str:
        """Return the values as JSON, for the option `--look` of `vasevqa doctor`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> VolumeQuestion:
        """Read the values from the JSON text of `to_json`."""
        values = json.loads(text)
        checks = {name: StageCheck(**check) for name, check in values.pop("checks").items()}
        return cls(**values, checks=checks)


def _question(asked: Requirements, recipe: Recipe | None, coming: int = 0) -> VolumeQuestion:
    reading = reading_of(recipe) if recipe is not None else Reading()
    return VolumeQuestion(asked.inputs, asked.models, asked.copies, coming, **vars(reading), checks=asked.checks)


def volume_findings(pipeline: Pipeline, volume: Path, question: VolumeQuestion) -> Iterator[Finding]:
    """Check the volume that is mounted on this machine.

    The function checks that the volume can be written to, that inputs and models are complete, that the steps can use
    the inputs, and that there is enough free space.
    """
    top = volume
    while not top.exists():
        top = top.absolute().parent
    if not os.access(top, os.W_OK):
        yield Finding("volume", BAD, f"{top} can't be written by uid {os.getuid()}; change its owner or mode", 74)
    need = RESERVE + question.coming
    paths = {name: volume / value for name, value in question.inputs.items()}
    there = {name: path for name, path in paths.items() if path.exists()}
    inside = Inside(there, question.reading)
    bad = set()
    for name, value in question.inputs.items():
        path = paths[name]
        if name in there:
            need += question.copies.get(name, 0) * size(path)
            found = _finding(name, inside)
            bad |= {found.text} if found.state == BAD else set()
            yield found
        elif name in question.models and HUB_ID.fullmatch(value):
            yield Finding(f"input {name}", UNKNOWN, f"{value} comes from a hub; its size is not counted")
        else:
            yield Finding(
                f"input {name}",
                BAD,
                f"there is no {path}; copy it to the volume with `vasevqa upload`, or correct the recipe",
                2,
            )
    yield from _checked(pipeline, question, there, bad)
    free = files.free_bytes(volume)
    text = f"{free / 2**30:.1f} GiB free on {volume}, about {need / 2**30:.1f} GiB needed"
    yield Finding(
        "space",
        OK if free > need else BAD,
        text if free > need else f"{text}; free some space (`vasevqa clean` lists what can be removed)",
        0 if free > need else 74,
    )


def _finding(name: str, inside: Inside) -> Finding:
    try:
        return Finding(f"input {name}", OK, inside.contents(name))
    except VaseError as error:
        return Finding(f"input {name}", BAD, str(error), error.exit_code)


def _local(asked: Requirements) -> Iterator[Finding]:
    """Check /dev/shm and the GPUs of this machine."""
    most = max((quantity_bytes(resources.shm) for resources in asked.resources.values()), default=0)
    has = files.free_bytes(Path(SHM))
    if most:
        text = f"{has / 2**30:.1f} GiB free, {most / 2**30:.1f} GiB requested"
        yield Finding(
            SHM,
            OK if has >= most else WARNING,
            text if has >= most else f"{text}; lower the number of data loader workers",
        )
    yield from _devices(asked)


def _devices(asked: Requirements, engine: str = "") -> Iterator[Finding]:
    """Check the GPUs of this machine.

    A step that requests more GPUs than the machine has would fail, because a step never falls back to the CPU. If the
    container engine runs on another machine, the number of GPUs is unknown.
    """
    asking = {
        step: resources.gpus
        for step, resources in asked.resources.items()
        if resources.gpus and step not in asked.on_cpu
    }
    if not asking:
        return
    there, most = len(list(DEV.glob("nvidia[0-9]*"))), max(asking.values())
    short = [step for step, gpus in asking.items() if gpus > there]
    if engine.startswith(("tcp://", "ssh://")):
        yield Finding(
            "GPUs",
            UNKNOWN,
            f"the recipe asks for {most}; the engine is on another machine (DOCKER_HOST), and its GPUs can't be"
            " checked from here",
        )
    elif not short:
        yield Finding("GPUs", OK, f"this machine has {there}, the recipe asks for {most}")
    elif not there and (DEV / "dxg").exists():
        yield Finding(
            "GPUs", UNKNOWN, f"the recipe asks for {most}; WSL does not report the number of GPUs, see `nvidia-smi`"
        )
    else:
        text = (
            f"too few for {', '.join(short)}: this machine has {there}, the recipe asks for {most}; run the recipe on"
            " a machine with more GPUs, or set `device: cpu` for steps that need none"
        )
        yield Finding("GPUs", BAD, text, DeviceError.exit_code)


def _docker(cluster: Cluster, asked: Requirements) -> Iterator[Finding]:
    """Check the container engine and the images."""
    from vasevqa.backends.docker.engine import built_here, connect

    engine = connect()
    yield Finding("engine", OK, f"Docker {engine.version()['Version']}")
    for image in dict.fromkeys(cluster.image(stage) for stage in asked.stages.values()):
        if engine.images.list(name=image):
            yield Finding(f"image {image}", OK, "on this machine")
        elif built_here(cluster, image):
            yield Finding(
                f"image {image}",
                BAD,
                f"not on this machine; build it with `make image STAGE={stage_of(image)}`, or set `registry` in"
                " the Cluster file",
                69,
            )
        else:
            yield Finding(f"image {image}", UNKNOWN, "not on this machine; it will be pulled")
    yield from _devices(asked, os.environ.get("DOCKER_HOST", ""))


def _kubernetes(
    pipeline: Pipeline, request: DoctorRequest, cluster: Cluster, asked: Requirements, question: VolumeQuestion
) -> Iterator[Finding]:
    from vasevqa.backends.kubernetes import checks
    from vasevqa.backends.kubernetes.session import Session

    remote = request.remote
    access = Session(cluster)
    yield checks.server(access)
    yield from checks.rights(access, remote)
    if remote:
        yield checks.account(access)
    claims = list(checks.claim(access))
    yield from claims
    yield from checks.gpus(access, asked.resources)
    yield from checks.secrets(access)
    yield from checks.queue(access)
    shm = max((quantity_bytes(resources.shm) for resources in asked.resources.values()), default=0)
    if shm:
        yield Finding(
            SHM, OK, f"each pod has its own {SHM}, which uses up to {shm / 2**30:.1f} GiB of the pod's memory"
        )
    if not remote:
        yield from volume_findings(pipeline, request.volume, question)
    if request.pull and all(access.allowed(verb, "", "pods") for verb in ("create", "delete")):
        # If the volume isn't mounted here, the launcher runs in a pod too, so its image is pulled as well.
        yield from checks.pulls(
            access,
            [access.cluster.image(stage) for stage in (*(("launcher",) if remote else ()), *asked.stages.values())],
        )
        if remote and not any(finding.state == BAD for finding in claims):
            yield from _look(access, question)
    elif remote:
        yield Finding(
            "volume",
            UNKNOWN,
            "not checked: only a pod can read the volume, and you may not create pods (or --no-pull is set)",
        )
    else:
        yield Finding(
            "images", UNKNOWN, "not checked: this needs test pods, and you may not create pods (or --no-pull is set)"
        )


def _look(access: Session, question: VolumeQuestion) -> Iterator[Finding]:
    """Check the volume by means of a pod that mounts the volume."""
    from vasevqa.transfer.connection import volume_pod

    words = ["vasevqa", "doctor", "--volume", VOLUME, "--json", "--look", question.to_json()]
    out = bytearray()
    try:
        with volume_pod(access, "doctor") as pod:
            access.run_in(pod, words, out.extend, lambda block: None)
        yield from (finding_of(json.loads(line)) for line in out.decode().splitlines())
    except (ClusterError, ValueError, KeyError) as error:
        yield Finding("volume", BAD, f"it could not be checked: {error}", 69)
