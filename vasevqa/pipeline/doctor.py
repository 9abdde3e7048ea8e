"""Is the place fit for the recipe, before it costs anything? One finding for each thing that is looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasevqa import files
from vasevqa.backends.checks import BAD, OK, UNKNOWN, WARNING, Finding, found, stage_of
from vasevqa.backends.cluster import Cluster, cluster_of
from vasevqa.backends.kubernetes.launcher_job import VOLUME
from vasevqa.errors import ClusterError, DeviceError, VaseError
from vasevqa.models import HUB_ID
from vasevqa.pipeline.garbage import size
from vasevqa.pipeline.recipe import absolute, known_step, load_recipe
from vasevqa.pipeline.requirements import Wanted, missing_inputs, wanted
from vasevqa.spec import Pipeline, quantity_bytes

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes.session import Access


DEV = Path("/dev")
SHM = "/dev/shm"  # noqa: S108 - what data loaders share
RESERVE = 1 << 30  # bytes that logs, reports and checkpoints of adapters take


def findings(pipeline: Pipeline, given: dict[str, Any]) -> Iterator[Finding]:
    """What there is to say of the place that the options name, one thing after the other."""
    if given["look"]:
        yield from volume_findings(given["volume"], **json.loads(given["look"]))
        return
    remote = given["backend"] == "kubernetes" and not given["volume"].is_dir()
    recipe = None
    if given["recipe"]:
        try:
            inputs = absolute(given["inputs"]) if given["upload"] else given["inputs"]
            recipe = load_recipe(
                given["recipe"], pipeline, given["overrides"], inputs, given["inputs_from"], here=not remote
            )
            recipe = replace(recipe, to=known_step(pipeline, given["last"]) or recipe.to)
        except VaseError as error:
            yield Finding("recipe", BAD, str(error), error.exit_code)
        else:
            yield Finding("recipe", OK, f"{recipe.name}: {', '.join(wanted(pipeline, recipe).stages)}")
    asked = wanted(pipeline, recipe) if recipe else Wanted({}, {}, {}, (), {})
    yield from missing_inputs(pipeline, recipe, asked)
    coming = 0
    if remote and given["upload"]:
        here = {
            name: Path(os.path.normpath(given["recipe"].parent / Path(value).expanduser()))
            for name, value in asked.inputs.items()
        }
        for name, path in here.items():
            if path.exists():
                coming += (1 + asked.copies.get(name, 0)) * size(path)
                yield (
                    _model(name, path)
                    if name in asked.models
                    else Finding(f"input {name}", OK, f"{path} here, to be uploaded")
                )
        asked = replace(asked, inputs={name: value for name, value in asked.inputs.items() if not here[name].exists()})
    try:
        if given["backend"] == "kubernetes":
            yield from _kubernetes(given, asked, remote, coming)
            return
        cluster = cluster_of(given["cluster"], None)
        if given["backend"] == "docker":
            yield from _docker(cluster, asked)
        else:
            yield from _local(asked)
    except ClusterError as error:
        yield Finding("cluster" if given["backend"] == "kubernetes" else "engine", BAD, str(error), error.exit_code)
        if remote:  # this machine's disk says nothing of it
            return
    yield from volume_findings(given["volume"], asked.inputs, asked.models, asked.copies)


def volume_findings(
    volume: Path, inputs: Mapping[str, str], models: Any, copies: Mapping[str, int], coming: int = 0
) -> Iterator[Finding]:
    """The volume as it is seen here: can it be written, do the inputs exist, are the models whole, does the space
    suffice?
    """
    top = volume
    while not top.exists():
        top = top.absolute().parent
    if not os.access(top, os.W_OK):
        yield Finding("volume", BAD, f"{top} can't be written by uid {os.getuid()}; change its owner or mode", 74)
    need = RESERVE + coming  # bytes on their way here
    for name, value in inputs.items():
        path = volume / value
        if path.exists():
            need += copies.get(name, 0) * size(path)
            yield _model(name, path) if name in models else Finding(f"input {name}", OK, str(path))
        elif name in models and HUB_ID.fullmatch(value):
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

    if name != "model":  # CLIP and others have layouts of their own, which their stages know
        return Finding(f"input {name}", OK, str(path))
    try:
        model = check_model(path)
    except VaseError as error:
        return Finding(f"input {name}", BAD, str(error), error.exit_code)
    return Finding(f"input {name}", OK, f"{path}, whole: {model.parameters / 1e9:.2f} billion parameters")


def _local(asked: Wanted) -> Iterator[Finding]:
    """This machine: /dev/shm and GPUs."""
    most = max((quantity_bytes(resources.shm) for resources in asked.resources.values()), default=0)
    has = files.free_bytes(Path(SHM))
    if most:
        text = f"{has / 2**30:.1f} GiB free, {most / 2**30:.1f} GiB asked for"
        yield Finding(
            SHM, OK if has >= most else WARNING, text if has >= most else f"{text}; fewer data loader workers need less"
        )
    yield from _devices(asked)


def _devices(asked: Wanted, engine: str = "") -> Iterator[Finding]:
    """The GPUs of this machine, unless the engine is elsewhere: a step that asks for more of them ends, it doesn't fall
    back to the CPU.
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
            f"{most} asked for, and the engine is on another machine (DOCKER_HOST), whose GPUs are not seen from here",
        )
    elif not short:
        yield Finding("GPUs", OK, f"{there} here, {most} asked for")
    elif not there and (DEV / "dxg").exists():
        yield Finding("GPUs", UNKNOWN, f"{most} asked for, and WSL doesn't tell how many there are; `nvidia-smi` does")
    else:
        text = (
            f"{there} here, {most} asked for by {', '.join(short)}; run it where the GPUs are, or say `device: cpu`"
            " where that will do"
        )
        yield Finding("GPUs", BAD, text, DeviceError.exit_code)


def _docker(cluster: Cluster, asked: Wanted) -> Iterator[Finding]:
    """The engine and the images."""
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


def _kubernetes(given: dict[str, Any], asked: Wanted, remote: bool, coming: int) -> Iterator[Finding]:
    from vasevqa.backends.kubernetes import checks
    from vasevqa.backends.kubernetes.session import Access

    access = Access(cluster_of(given["cluster"], given["namespace"]))
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
        yield from volume_findings(given["volume"], asked.inputs, asked.models, asked.copies)
    if given["pull"] and all(access.allowed(verb, "", "pods") for verb in ("create", "delete")):
        # Who sees the volume launches from here; else the launcher is a pod too.
        yield from checks.pulls(
            access,
            [access.cluster.image(stage) for stage in (*(("launcher",) if remote else ()), *asked.stages.values())],
        )
        if remote and not any(finding.state == BAD for finding in claims):
            yield from _look(access, asked, coming)
    elif remote:
        yield Finding("volume", UNKNOWN, "only a pod sees it, and none may be made (or --no-pull)")
    else:
        yield Finding("images", UNKNOWN, "no pod may be made to try them (or --no-pull)")


def _look(access: Access, asked: Wanted, coming: int) -> Iterator[Finding]:
    """The volume, through a pod that mounts it."""
    from vasevqa.transfer.connection import volume_pod

    look = json.dumps({"inputs": asked.inputs, "models": asked.models, "copies": asked.copies, "coming": coming})
    out = bytearray()
    try:
        with volume_pod(access, "doctor") as pod:
            access.run_in(
                pod, ["vasevqa", "doctor", "--volume", VOLUME, "--json", "--look", look], out.extend, lambda block: None
            )
        yield from (found(json.loads(line)) for line in out.decode().splitlines())
    except (ClusterError, ValueError, KeyError) as error:
        yield Finding("volume", BAD, f"it could not be looked at: {error}", 69)
