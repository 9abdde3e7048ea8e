"""Report where each artifact of a run comes from: its key, run, host, image, seed and package versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vasevqa.artifacts.contents import RECORD
from vasevqa.runtime.usage import Usage


@dataclass(frozen=True)
class Origin:
    """Where the artifact of a step comes from. A field is empty if the artifact's record doesn't contain the value."""

    step: str
    stage: str  # name and version of the stage
    key: str
    run: str
    host: str
    seed: str
    image: str


@dataclass(frozen=True)
class Packages:
    """The package versions that several steps have in common."""

    steps: str
    versions: str


@dataclass(frozen=True)
class Provenance:
    """The origins of all artifacts, and the package versions."""

    origins: tuple[Origin, ...]
    packages: tuple[Packages, ...]


class Record(BaseModel):
    """The part of an artifact.json that the report shows."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str = ""
    summary: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    stage: str = ""
    stage_version: int | None = None
    run: str = ""
    host: str = ""
    seed: int | None = None
    image: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    usage: Usage | None = None  # None in the records of earlier versions


def read_records(artifacts: Mapping[str, Path]) -> dict[str, Record]:
    """Return the readable records of the artifacts, by step."""
    return {step: record for step, folder in artifacts.items() if (record := _read(folder / RECORD)) is not None}


def provenance(records: Mapping[str, Record]) -> Provenance:
    """Return the provenance of the artifacts whose records contain a key."""
    records = {step: record for step, record in records.items() if record.key}
    by_versions: dict[str, list[str]] = {}
    for step, record in records.items():
        if record.versions:
            text = ", ".join(f"{name} {version}" for name, version in record.versions.items())
            by_versions.setdefault(text, []).append(step)
    return Provenance(
        tuple(_origin(step, record) for step, record in records.items()),
        tuple(Packages(", ".join(steps), text) for text, steps in by_versions.items()),
    )


def _read(path: Path) -> Record | None:
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _origin(step: str, record: Record) -> Origin:
    version = "" if record.stage_version is None else str(record.stage_version)
    return Origin(
        step=step,
        stage=f"{record.stage} {version}".strip(),
        key=record.key,
        run=record.run,
        host=record.host,
        seed="" if record.seed is None else str(record.seed),
        image=record.image or "",
    )
