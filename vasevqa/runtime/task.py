"""Run a stage for a launcher, so that its output becomes an artifact."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vasevqa import __version__
from vasevqa.artifacts.keys import artifact_key
from vasevqa.artifacts.lease import Lease, LeaseHeld, Loss, lease_ttl
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.errors import ConfigError, Interrupted, LeaseLost, TransientStorageError
from vasevqa.runtime.progress import StageProgress
from vasevqa.runtime.usage import UsageMeter
from vasevqa.spec import Options, Params, Stage, StageCall
from vasevqa.storage import patiently


def run_task(
    stage: Stage,
    params: Params,
    options: Options,
    inputs: Mapping[str, Path],
    folder: Path | None,
    task_file: Path,
    progress: StageProgress,
) -> None:
    """Run `stage` for a launcher, so that its output becomes an artifact.

    The function takes the artifact's lease, so that no other process writes to `folder`. After the stage, it writes
    artifact.json, which marks the output as complete. The launcher then gives the folder its final name.
    """
    task = json.loads(patiently(lambda: task_file.read_text(encoding="utf-8"), task_file))
    key = artifact_key(stage, params, {name: given["key"] for name, given in task["inputs"].items()})
    if key != task["key"]:
        raise ConfigError(
            f"{stage.name} (vasevqa {__version__}, stage version {stage.version}) would make another artifact than the"
            " launcher has planned; use the launcher's version of vasevqa."
        )
    artifact = Volume(Path(task["volume"])).artifact(task["step"], key)
    if folder is None or folder.resolve() != artifact.partial.resolve():
        raise ConfigError(
            f"{stage.output_flag} {folder} is not the folder that the launcher has planned; give {artifact.partial}."
        )
    if artifact.complete:
        progress.event("sealed", already=True)
        return
    lease, started, meter = _lease(artifact, task["attempt"]), datetime.now(UTC), UsageMeter()
    try:
        if artifact.complete or artifact.sealed:
            progress.event("sealed", already=True)
            return
        lease.keep(on_lost=lambda loss: _die_without_lease(progress, loss))
        output = StageOutput(artifact.partial, lease)
        stage.run(StageCall(params, options, inputs, output, progress))
        output.seal(
            {
                "step": task["step"],
                "stage": stage.name,
                "stage_version": stage.version,
                "key": key,
                "params": params.model_dump(mode="json"),
                "options": options.model_dump(mode="json"),
                "inputs": task["inputs"],
                "seed": getattr(params, "seed", None),
                **_provenance(task, started),
                "summary": progress.last_summary,
                "figures": progress.figures,
                "usage": meter.read().model_dump(),
            }
        )
        progress.event("sealed")
    except LeaseLost as error:
        if error.taken_over:
            raise
        raise TransientStorageError(str(error)) from error  # the launcher pauses before the next attempt
    finally:
        lease.release()


def _lease(artifact: Artifact, attempt: str) -> Lease:
    try:
        return Lease.wait(artifact.lease, attempt, seconds=1.5 * lease_ttl())
    except LeaseHeld as held:
        raise Interrupted(
            f"{artifact.step}/{artifact.key[:10]} is being written by {held}; wait until that attempt ends."
        ) from None


def _provenance(task: Mapping[str, object], started: datetime) -> dict[str, object]:
    """Return the values that tell where, when and with which versions the artifact was made.

    They are part of the artifact's record, but not of its key.
    """
    return {
        "versions": _versions(),
        "host": socket.gethostname(),
        "image": os.environ.get("VASEVQA_IMAGE"),
        "run": task["run"],
        "attempt": task["attempt"],
        "started": started.isoformat(),
        "finished": datetime.now(UTC).isoformat(),
    }


def _die_without_lease(progress: Any, loss: Loss) -> None:
    # The lease's thread ends the process. The main thread may be in a long library call, and must not write again.
    kind = LeaseLost if loss.taken_over else TransientStorageError
    with contextlib.suppress(OSError):  # the log may be on the same storage
        progress.error(kind.__name__, kind.exit_code, str(loss))
        sys.stdout.flush()
    os._exit(kind.exit_code)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"vasevqa": __version__, "python": sys.version.split()[0]}
    for package in (
        "torch",
        "torchvision",
        "open_clip_torch",
        "transformers",
        "ms-swift",
        "peft",
        "trl",
        "numpy",
        "pillow",
        "scikit-learn",
    ):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    revision = os.environ.get("VASEVQA_REVISION")
    return {**versions, "revision": revision} if revision else versions
