"""`vasevqa doctor`: checks machine, cluster and volume against a recipe before the run, one finding per check."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa import files
from vasevqa.backends.checks import BAD, OK, UNKNOWN, WARNING, Finding, found, stage_of
from vasevqa.backends.cluster import Cluster, cluster_of
from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.errors import ClusterError, DeviceError, VaseError
from vasevqa.models import HUB_ID
from vasevqa.pipeline.garbage import size
from vasevqa.pipeline.requests import DoctorRequest
from vasevqa.pipeline.requirements import Requirements, requirements_of
from vasevqa.spec import Pipeline, quantity_bytes

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.session import Session


DEV = Path("/dev")
SHM = "/dev/shm"  # noqa: S108 - the shared memory of data loaders
RESERVE = 1 << 30  # bytes for logs, reports and checkpoints of adapters


def findings(pipeline: Pipeline, request: DoctorRequest) -> Iterator[Finding]:
    """Yield a finding for each check of the machine, cluster and volume that `request` names."""
    recipe = None
    asked = Requirements()
    if request.recipe is not None:
        wanted = request.recipe.with_absolute_inputs() if request.upload else request.recipe
        try:
            recipe = wanted.load(pipeline, here=not request.remote)
            asked = requirements_of(recipe, pipeline, request.last)
        except VaseError as error:
            yield Finding("recipe", BAD, str(error), error.exit_code)
        else:
            yield Finding("recipe", OK, f"{recipe.name}: {', '.join(asked.stages)}")
    for name, step in asked.missing.items():
        text = f"{step} needs it, and the recipe does not name it; name it, or end before that step with `to`"
        yield Finding(f"input {name}", BAD, text, 2)
    coming = 0
    if request.remote and request.upload:
        here = {name: request.here(value) for name, value in asked.inputs.items()}
        coming = sum((1 + asked.copies.get(name, 0)) * size(path) for name, path in here.items() if path.exists())
        yield from _to_be_uploaded(asked, here)
        asked = replace(asked, inputs={name: value for name, value in asked.inputs.items() if not here[name].exists()})
    try:
        if request.backend == "kubernetes":
            yield from _kubernetes(request, asked, coming)
            return
        cluster = cluster_of(request.cluster, None)
        if request.backend == "docker":
            yield from _docker(cluster, asked)
        else:
            yield from _local(asked)
    except ClusterError as error:
        what = "cluster" if request.backend == "kubernetes" else "engine"
        yield Finding(what, BAD, str(error), error.exit_code)
        if request.remote:  # the volume is not on this machine
            return
    yield from volume_findings(request.volume, VolumeQuestion(asked.inputs, asked.models, asked.copies))


def _to_be_uploaded(asked: Requirements, here: Mapping[str, Path]) -> Iterator[Finding]:
    for name, path in here.items():
        if path.exists():
            as_it_is = Finding(f"input {name}", OK, f"{path} here, to be uploaded")
            yield _model(name, path) if name in asked.models else as_it_is


@dataclass(frozen=True)
class VolumeQuestion:
    """What a pod that mounts the volume is to check, as JSON on its command line."""

    inputs: Mapping[str, str]
    models: Sequence[str]  # the inputs that are models
    copies: Mapping[str, int]  # input -> how many times its size is written
    coming: int = 0  # bytes to be uploaded to the volume

    def to_json(self) -> str:
        """Return the question as JSON for `vasevqa doctor --look`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> VolumeQuestion:
        """Return the question that `to_json` wrote."""
        return cls(**json.loads(text))


def volume_findings(volume: Path, question: VolumeQuestion) -> Iterator[Finding]:
    """Check the volume as mounted here: is it writable, are inputs and models complete, is there enough space?"""
    top = volume
    while not top.exists():
        top = top.absolute().parent
    if not os.access(top, os.W_OK):
        yield Finding("volume", BAD, f"{top} can't be written by uid {os.getuid()}; change its owner or mode", 74)
    need = RESERVE + question.coming
    for name, value in question.inputs.items():
        path = volume / value
        if path.exists():
            need += question.copies.get(name, 0) * size(path)
            yield _model(name, path) if name in question.models else Finding(f"input {name}", OK, str(path))
        elif name in question.models and HUB_ID.fullmatch(value):
            yield Finding(f"input {name}", UNKNOWN, f"{value} comes from a hub; its size is not counted")
        else:
            yield Finding(
                f"input {name}", BAD, f"there is no {path}; `vasevqa upload` brings it, or correct the recipe", 2
            )
    free = files.free_bytes(volume)
    text = f"{free / 2**30:.1f} GiB free on {volume}, about {need / 2**30:.1f} GiB needed"
    yield Finding(
        "space",
        OK if free > need else BAD,
        text if free > need else f"{text}; free some (`vasevqa clean` lists what can go)",
        0 if free > need else 74,
    )


def _model(name: str, path: Path) -> Finding:
    from vasevqa.models import check_model

    if name != "model":  # other models, such as CLIP, have other layouts; their stages check them
        return Finding(f"input {name}", OK, str(path))
    try:
        model = check_model(path)
    except VaseError as error:
        return Finding(f"input {name}", BAD, str(error), error.exit_code)
    return Finding(f"input {name}", OK, f"{path}, whole: {model.parameters / 1e9:.2f} billion parameters")


def _local(asked: Requirements) -> Iterator[Finding]:
    """Check /dev/shm and the GPUs of this machine."""
    most = max((quantity_bytes(resources.shm) for resources in asked.resources.values()), default=0)
    has = files.free_bytes(Path(SHM))
    if most:
        text = f"{has / 2**30:.1f} GiB free, {most / 2**30:.1f} GiB asked for"
        yield Finding(
            SHM, OK if has >= most else WARNING, text if has >= most else f"{text}; fewer data loader workers need less"
        )
    yield from _devices(asked)


def _devices(asked: Requirements, engine: str = "") -> Iterator[Finding]:
    """Check the GPUs of this machine, unless the container engine is on another one.

    A step that asks for more GPUs than there are fails; it doesn't fall back to the CPU.
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
            f"{most} asked for, and the engine is on another machine (DOCKER_HOST), whose GPUs can't be seen from here",
        )
    elif not short:
        yield Finding("GPUs", OK, f"{there} here, {most} asked for")
    elif not there and (DEV / "dxg").exists():
        yield Finding(
            "GPUs", UNKNOWN, f"{most} asked for, and WSL does not report how many there are; `nvidia-smi` does"
        )
    else:
        text = (
            f"{there} here, {most} asked for by {', '.join(short)}; run it on a machine with GPUs, or set `device: cpu`"
            " where that is enough"
        )
        yield Finding("GPUs", BAD, text, DeviceError.exit_code)


def _docker(cluster: Cluster, asked: Requirements) -> Iterator[Finding]:
    """Check the container engine and the images."""
    from vasevqa.backends.docker.engine import built_here, connect

    engine = connect()
    yield Finding("engine", OK, f"Docker {engine.version()['Version']}")
    for image in dict.fromkeys(cluster.image(stage) for stage in asked.stages.values()):
        if engine.images.list(name=image):
            yield Finding(f"image {image}", OK, "there")
        elif built_here(cluster, image):
            yield Finding(
                f"image {image}",
                BAD,
                f"not on this machine; `make image STAGE={stage_of(image)}` builds it, or set `registry`",
                69,
            )
        else:
            yield Finding(f"image {image}", UNKNOWN, "not on this machine; it will be pulled")
    yield from _devices(asked, os.environ.get("DOCKER_HOST", ""))


def _kubernetes(request: DoctorRequest, asked: Requirements, coming: int) -> Iterator[Finding]:
    from vasevqa.backends.kubernetes import checks
    from vasevqa.backends.kubernetes.session import Session

    remote, question = request.remote, VolumeQuestion(asked.inputs, asked.models, asked.copies, coming)
    access = Session(cluster_of(request.cluster, request.namespace))
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
        yield Finding(SHM, OK, f"each pod gets its own, up to {shm / 2**30:.1f} GiB of its memory")
    if not remote:
        yield from volume_findings(request.volume, question)
    if request.pull and all(access.allowed(verb, "", "pods") for verb in ("create", "delete")):
        # If the volume is mounted here, the launcher runs here; otherwise it runs in a pod too.
        yield from checks.pulls(
            access,
            [access.cluster.image(stage) for stage in (*(("launcher",) if remote else ()), *asked.stages.values())],
        )
        if remote and not any(finding.state == BAD for finding in claims):
            yield from _look(access, question)
    elif remote:
        yield Finding("volume", UNKNOWN, "only a pod can read it, and no pod may be created (or --no-pull is set)")
    else:
        yield Finding("images", UNKNOWN, "no pod may be created to test them (or --no-pull is set)")


def _look(access: Session, question: VolumeQuestion) -> Iterator[Finding]:
    """Check the volume through a pod that mounts it."""
    from vasevqa.transfer.connection import volume_pod

    words = ["vasevqa", "doctor", "--volume", VOLUME, "--json", "--look", question.to_json()]
    out = bytearray()
    try:
        with volume_pod(access, "doctor") as pod:
            access.run_in(pod, words, out.extend, lambda block: None)
        yield from (found(json.loads(line)) for line in out.decode().splitlines())
    except (ClusterError, ValueError, KeyError) as error:
        yield Finding("volume", BAD, f"it could not be checked: {error}", 69)
