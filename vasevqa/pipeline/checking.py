"""`vasevqa verify`: read artifacts again, compare them with their records, and set damaged artifacts aside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vasevqa.artifacts.contents import differences, read_record
from vasevqa.artifacts.lease import LeaseHeld
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.errors import ConfigError
from vasevqa.pipeline.in_use import ArtifactsInUse, InUse
from vasevqa.pipeline.runs import all_runs, find_run
from vasevqa.text import nearest


@dataclass(frozen=True)
class Checked:
    """An artifact, its differences from its record, and the artifacts that were made from it."""

    artifact: Artifact
    differences: tuple[str, ...]
    readers: tuple[str, ...] = ()


def artifacts_of(volume: Volume, name: str | None) -> list[Artifact]:
    """Return the artifacts of a run or a step; for None, of the whole volume. Artifacts without a record are included.

    Raise ConfigError if there is no such run or step.
    """
    steps = sorted(path.name for path in volume.artifacts.iterdir()) if volume.artifacts.is_dir() else []
    if name is None or name in steps:
        return [artifact for step in steps if name in (None, step) for artifact in _folders(volume, step)]
    runs = [run.name for run in all_runs(volume)]
    if not any(run.startswith(name) for run in runs):
        raise ConfigError(f"There is no run and no step '{name}'.{nearest(name, [*steps, *runs[-5:]])}")
    return [Artifact(step, path.name, path) for step, path in find_run(volume, name).artifacts().items()]


def _folders(volume: Volume, step: str) -> Iterator[Artifact]:
    for entry in sorted((volume.artifacts / step).iterdir()):
        if entry.is_dir() and not entry.suffix:
            yield Artifact(step, entry.name, entry)


def check(volume: Volume, artifacts: list[Artifact]) -> Iterator[Checked]:
    """Read each artifact again, and yield it with its differences. A file with several hard links is read once."""
    known: dict[tuple[int, int], str] = {}
    for artifact in artifacts:
        found = differences(artifact.path, known)
        yield Checked(artifact, tuple(found), tuple(_readers(volume, artifact)) if found else ())


def _readers(volume: Volume, artifact: Artifact) -> Iterator[str]:
    """Yield the complete artifacts whose input is this artifact, as `step/key`."""
    for step in sorted(volume.artifacts.iterdir()):
        for other in volume.complete(step.name):
            inputs = (read_record(other.path) or {}).get("inputs", {})
            if any(str(given.get("key", "")).partition("/")[0] == artifact.key for given in inputs.values()):
                yield f"{other.step}/{other.key[:10]}"


def set_aside(volume: Volume, artifact: Artifact) -> Path:
    """Rename a damaged artifact, so that the next run makes it anew. Return the new path.

    Raise InUse if a running run uses the artifact, or if a process writes it.
    """
    usage = ArtifactsInUse(volume)

    def refuse_used(now: float) -> None:
        if (artifact.step, artifact.key) in usage.worked_on():
            raise InUse("a running run uses it; repair it after the run")

    try:
        return artifact.put_aside(artifact.path, f"verify-{os.getpid()}", refuse_used)
    except LeaseHeld as held:
        raise InUse(f"it is in use by {held}") from None
