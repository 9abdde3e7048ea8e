"""A stage under a launcher: it takes the lease, works in the partial folder of the planned artifact, and seals it."""

from __future__ import annotations

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
from vasevqa.artifacts.lease import Lease, LeaseHeld, lease_ttl
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Volume
from vasevqa.errors import ConfigError, Interrupted, LeaseLost
from vasevqa.runtime.progress import StageProgress
from vasevqa.spec import Options, Params, Stage, StageCall


def run_task(
    stage: Stage,
    params: Params,
    options: Options,
    inputs: Mapping[str, Path],
    folder: Path | None,
    task_file: Path,
    progress: StageProgress,
) -> None:
    """Run under a launcher: take the lease, work in the artifact's partial folder, seal it."""
    task = json.loads(task_file.read_text(encoding="utf-8"))
    key = artifact_key(stage, params, {name: given["key"] for name, given in task["inputs"].items()})
    if key != task["key"]:
        raise ConfigError(
            f"This {stage.name} (vasevqa {__version__}, stage version {stage.version}) doesn't make the artifact that"
            " was planned; use the version that the launcher has."
        )
    artifact = Volume(Path(task["volume"])).artifact(task["step"], key)
    if folder is None or folder.resolve() != artifact.partial.resolve():
        raise ConfigError(
            f"{stage.output_flag} {folder} is not the folder of the planned artifact, {artifact.partial}."
        )
    if artifact.complete:
        progress.event("sealed", already=True)
        return
    try:
        lease = Lease.wait(artifact.lease, task["attempt"], seconds=1.5 * lease_ttl())
    except LeaseHeld as held:
        raise Interrupted(f"{artifact.step}/{key[:10]} is being written by {held}; wait for it.") from None
    started = datetime.now(UTC)
    try:
        if artifact.complete or artifact.sealed:
            progress.event("sealed", already=True)
            return
        lease.keep(on_lost=lambda: _die_without_lease(progress, task["attempt"]))
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
            }
        )
        progress.event("sealed")
    finally:
        lease.release()


def _provenance(task: Mapping[str, object], started: datetime) -> dict[str, object]:
    """Where, when and by what an artifact was made; nothing of it is in the key."""
    return {
        "versions": _versions(),
        "host": socket.gethostname(),
        "image": os.environ.get("VASEVQA_IMAGE"),
        "run": task["run"],
        "attempt": task["attempt"],
        "started": started.isoformat(),
        "finished": datetime.now(UTC).isoformat(),
    }


def _die_without_lease(progress: Any, attempt: str) -> None:
    # From the lease's thread: the main thread may be deep in a library call, and must not write again.
    progress.error(
        "LeaseLost",
        LeaseLost.exit_code,
        f"Attempt {attempt} lost its lease to another attempt and stopped; no action is needed.",
    )
    sys.stdout.flush()
    os._exit(LeaseLost.exit_code)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"vasevqa": __version__, "python": sys.version.split()[0]}
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
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    revision = os.environ.get("VASEVQA_REVISION")
    return {**found, "revision": revision} if revision else found
