"""Artifacts on the volume: the paths of artifacts, and how a launcher commits an artifact."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vasevqa import files
from vasevqa.artifacts.contents import RECORD, has_record, protect, read_record, verify
from vasevqa.artifacts.lease import Lease, holder
from vasevqa.errors import ConfigError, DataError


@dataclass(frozen=True)
class Volume:
    """The shared directory that holds inputs, models, artifacts and runs."""

    root: Path

    @property
    def artifacts(self) -> Path:
        """The folder of all artifacts. It holds `<step>/<key>/`."""
        return self.root / "artifacts"

    @property
    def runs(self) -> Path:
        """The folder of all runs. It holds `<run>/`."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """The folder of files that can be deleted at any time, such as the digest cache and HF_HOME."""
        return self.root / ".cache"

    def artifact(self, step: str, key: str) -> Artifact:
        """Return the artifact of `step` with `key`. The artifact may not exist yet."""
        return Artifact(step, key, self.artifacts / step / key)

    def complete(self, step: str) -> list[Artifact]:
        """Return the complete artifacts of `step`, oldest first."""
        folder = self.artifacts / step
        artifacts = (
            [Artifact(step, entry.name, entry) for entry in folder.iterdir() if not entry.suffix and has_record(entry)]
            if folder.is_dir()
            else []
        )
        return sorted(artifacts, key=lambda artifact: (artifact.path / RECORD).stat().st_mtime)

    def relative(self, path: Path) -> Path:
        """Return `path` relative to the volume. Raise ConfigError if `path` is outside the volume."""
        try:
            return path.resolve().relative_to(self.root.resolve())
        except ValueError:
            raise ConfigError(f"{path} lies outside the volume {self.root}; copy it to the volume first.") from None


@dataclass(frozen=True)
class Artifact:
    """An immutable directory written by one step. It is complete once `path` holds artifact.json."""

    step: str
    key: str
    path: Path

    @property
    def partial(self) -> Path:
        """The folder that the step writes to. All attempts use the same name, so a retry finds the checkpoints."""
        return self.path.with_name(f"{self.key}.partial")

    @property
    def lease(self) -> Path:
        """The lease file, which names the attempt that may write."""
        return self.path.with_name(f"{self.key}.lease")

    @property
    def complete(self) -> bool:
        """True if the artifact is complete, so that steps can read it. A damaged artifact.json doesn't count."""
        return has_record(self.path)

    @property
    def sealed(self) -> bool:
        """True if a stage has finished its work and no launcher has committed it yet."""
        return has_record(self.partial)

    def record(self) -> dict[str, object]:
        """Return the content of artifact.json. Raise DataError if the file is missing or damaged."""
        record = read_record(self.path)
        if record is None and files.exists(self.path / RECORD):
            raise DataError(
                f"{self.path / RECORD} is damaged; set the artifact aside with `vasevqa verify {self.step} --repair`,"
                " and run the step again."
            )
        if record is None:
            raise DataError(f"Artifact {self.step}/{self.key} is not complete; run the step first.")
        return record

    def commit(self, attempt: str) -> bool:
        """Verify the files in the partial folder, make them read-only, and rename the folder to its final name.

        Return False if another launcher has already committed the artifact. Raise DataError if a file is missing or
        differs from the record. Raise LeaseHeld while another process writes the artifact.
        """
        lease = Lease.acquire(self.lease, attempt)
        lease.keep(on_lost=lambda loss: None)  # verifying a large model can take longer than the lease's TTL
        try:
            if self.complete:
                return False
            verify(self.partial, lease)
            lease.check()
            if self.path.exists():  # no run uses a folder without a record, so the folder can be renamed
                self.path.rename(self.path.with_name(f"{self.key}.{os.urandom(3).hex()}.aside"))
            made = (self.partial / RECORD).stat().st_mtime_ns
            with contextlib.suppress(PermissionError):  # the stage ran as another user
                os.utime(self.partial, ns=(made, made))  # a later time of the folder is a mark of use
            protect(self.partial)
            self.partial.rename(self.path)
            files.sync_folder(self.path.parent)
        finally:
            lease.release()
        return True

    def put_aside(self, path: Path, attempt: str, check: Callable[[float], None] | None = None) -> Path:
        """Rename `path` (this artifact or its partial folder) to an unused name, and return the new path.

        If a later deletion is interrupted, no half-deleted artifact is left under the old name. Raise LeaseHeld while
        another process writes the artifact. `check` is called with the present time of the volume's clock, while this
        process holds the lease. If `check` raises an error, the folder is not renamed.
        """
        lease = Lease.acquire(self.lease, attempt)
        try:
            if check is not None:
                check(self.lease.stat().st_mtime)
            aside = self.path.with_name(f"{self.key}.{os.urandom(4).hex()}.aside")
            os.utime(path)  # `clean` keeps a folder that was put aside a moment ago
            path.rename(aside)
            files.sync_folder(aside.parent)
        finally:
            lease.release()
        return aside

    @property
    def busy(self) -> bool:
        """True while a process has the lease: it writes, commits or removes the artifact."""
        return holder(self.lease) is not None

    def mark_used(self) -> None:
        """Set the folder's time to now, so that `clean` doesn't remove the artifact before a run has linked it."""
        with contextlib.suppress(OSError):  # for example on a read-only volume
            os.utime(self.path)
