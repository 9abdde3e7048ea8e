"""Artifacts on the volume: where they lie, how they are sealed by a stage and committed by a launcher."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.artifacts.contents import RECORD, verify
from vasevqa.artifacts.lease import Lease
from vasevqa.errors import ConfigError, DataError


@dataclass(frozen=True)
class Volume:
    """The shared directory that holds inputs, models, artifacts and runs."""

    root: Path

    @property
    def artifacts(self) -> Path:
        """`artifacts/<step>/<key>/`."""
        return self.root / "artifacts"

    @property
    def runs(self) -> Path:
        """`runs/<run>/`."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time: the stat cache, HF_HOME."""
        return self.root / ".cache"

    def artifact(self, step: str, key: str) -> Artifact:
        """The artifact of `step` with `key`, whether it exists or not."""
        return Artifact(step, key, self.artifacts / step / key)

    def complete(self, step: str) -> list[Artifact]:
        """The complete artifacts of `step`, oldest first."""
        folder = self.artifacts / step
        found = (
            [
                Artifact(step, entry.name, entry)
                for entry in folder.iterdir()
                if (entry / RECORD).is_file() and not entry.suffix
            ]
            if folder.is_dir()
            else []
        )
        return sorted(found, key=lambda artifact: (artifact.path / RECORD).stat().st_mtime)

    def relative(self, path: Path) -> Path:
        """`path` relative to the volume; ConfigError if it lies outside."""
        try:
            return path.resolve().relative_to(self.root.resolve())
        except ValueError:
            raise ConfigError(f"{path} lies outside the volume {self.root}; copy it there first.") from None


@dataclass(frozen=True)
class Artifact:
    """An immutable directory written by one step: complete once its artifact.json exists at `path`."""

    step: str
    key: str
    path: Path

    @property
    def partial(self) -> Path:
        """Where the step works; a stable name, so that a retry finds its checkpoints."""
        return self.path.with_name(f"{self.key}.partial")

    @property
    def lease(self) -> Path:
        """The file that names the attempt that may write."""
        return self.path.with_name(f"{self.key}.lease")

    @property
    def complete(self) -> bool:
        """True once it can be used."""
        return (self.path / RECORD).is_file()

    @property
    def sealed(self) -> bool:
        """True when a stage finished its work and no launcher has committed it yet."""
        return (self.partial / RECORD).is_file()

    def record(self) -> dict[str, Any]:
        """The content of artifact.json; DataError if it can't be read."""
        try:
            record: dict[str, Any] = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"Artifact {self.step}/{self.key} is not complete; run the step first.") from None
        except ValueError:
            raise DataError(f"{self.path / RECORD} is damaged; remove {self.path} and run the step again.") from None
        return record

    def commit(self, attempt: str) -> bool:
        """Verify what the stage sealed and give it its final name. False if another launcher did so before.

        Raises DataError when a file is missing or differs from the record, LeaseHeld while another writer works.
        """
        lease = Lease.acquire(self.lease, attempt)
        lease.keep(on_lost=lambda: None)  # verifying a large model takes longer than a silent holder is trusted
        try:
            if self.complete:
                return False
            verify(self.partial, lease)
            lease.check()
            if self.path.exists():  # left by hand or by a damaged volume, without a record: never used, so it may go
                self.path.rename(self.path.with_name(f"{self.key}.{os.urandom(3).hex()}.aside"))
            self.partial.rename(self.path)
        finally:
            lease.release()
        return True

    def put_aside(self, path: Path, attempt: str) -> Path:
        """Rename `path` (this artifact or its partial folder) to a name that nothing looks for, and return that.

        Raises LeaseHeld while somebody writes it: an artifact is removed by one rename, never file by file.
        """
        lease = Lease.acquire(self.lease, attempt)
        try:
            aside = self.path.with_name(f"{self.key}.{os.urandom(4).hex()}.aside")
            path.rename(aside)
        finally:
            lease.release()
        return aside
