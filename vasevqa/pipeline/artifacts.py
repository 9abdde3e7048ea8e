"""Artifacts on the volume: where they lie, how they are sealed by a stage and committed by a launcher."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vasevqa import files
from vasevqa.errors import ConfigError, DataError, VaseError
from vasevqa.pipeline.lease import Lease
from vasevqa.pipeline.spec import Params, Stage

RECORD = "artifact.json"
SCHEMA = 1
KEY_LENGTH = 32  # hexadecimal digits: 128 bits of the SHA-256


def artifact_key(stage: Stage, params: Params, inputs: Mapping[str, str]) -> str:
    """The key of what `stage` makes with `params` from `inputs` (name -> the input's own key): what decides the result, nothing else."""
    return files.digest_json({"stage": stage.name, "version": stage.version, "params": params.model_dump(mode="json"), "inputs": dict(inputs)})[:KEY_LENGTH]


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
        found = [Artifact(step, entry.name, entry) for entry in folder.iterdir() if (entry / RECORD).is_file() and not entry.suffix] if folder.is_dir() else []
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


def _tree(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif name != RECORD:
                    yield name, entry


def _temporary(name: str) -> bool:
    """True for what `files.writing` leaves when its process is killed."""
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(".tmp")


def list_files(root: Path, known: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of every file below `root` (not artifact.json itself), by relative name.

    `known` holds digests that need not be computed again (of hard links into other artifacts).
    """
    known = known or {}
    sizes = {name: entry.stat(follow_symlinks=False).st_size for name, entry in _tree(root)}
    unknown = [name for name in sizes if name not in known]
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = dict(zip(unknown, pool.map(lambda name: files.digest_file(root / name), unknown), strict=True))
    return {name: {"size": size, "sha256": known.get(name) or digests[name]} for name, size in sorted(sizes.items())}


def verify(root: Path, lease: Lease | None = None) -> dict[str, Any]:
    """Compare the folder with its artifact.json and return the record; DataError names the first file that differs.

    Files that are hard links into other artifacts were verified there: only their size is compared.
    """
    record: dict[str, Any] = json.loads((root / RECORD).read_text(encoding="utf-8"))
    listed: dict[str, dict[str, Any]] = dict(record["files"])
    for name, entry in _tree(root):
        stat = entry.stat(follow_symlinks=False)
        if _temporary(name):
            continue
        expected = listed.pop(name, None)
        if expected is None:
            raise DataError(f"{root / name} appeared after its step had finished; remove {root} and run the step again.")
        if stat.st_size != expected["size"] or (stat.st_nlink == 1 and files.digest_file(root / name) != expected["sha256"]):
            raise DataError(f"{root / name} differs from what its step wrote; remove {root} and run the step again.")
        if lease is not None:
            lease.check()
    if listed:
        raise DataError(f"{root / next(iter(listed))} is missing though its step wrote it; remove {root} and run the step again.")
    return record


class StageOutput:
    """The Output handed to a stage: a folder, guarded by a lease when a launcher started the stage."""

    def __init__(self, root: Path, lease: Lease | None = None) -> None:
        self._root = root
        self._lease = lease
        self._linked: dict[str, str] = {}
        self._records: dict[Path, dict[str, Any]] = {}
        self._immutable: dict[Path, Path | None] = {}
        root.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """The folder to write into."""
        return self._root

    @property
    def standalone(self) -> bool:
        """True without a launcher."""
        return self._lease is None

    @property
    def final(self) -> Path:
        """The folder's path once it is complete."""
        return self._root.with_suffix("") if self._lease is not None and self._root.suffix == ".partial" else self._root

    @property
    def volume(self) -> Path | None:
        """The volume's root: `<volume>/artifacts/<step>/<key>.partial`."""
        return self._root.parents[2] if self._lease is not None else None

    def check(self) -> None:
        """Raise LeaseLost if another attempt owns this output now."""
        if self._lease is not None:
            self._lease.check()

    def _target(self, name: str) -> Path:
        target = self._root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise VaseError(f"'{name}' would leave the output folder {self._root}.")
        return target

    @contextlib.contextmanager
    def writing(self, name: str, mode: str = "wb") -> Iterator[IO[Any]]:
        """A stream for the file `name`, which appears only when complete."""
        self.check()
        with files.writing(self._target(name), mode, self.check) as stream:
            yield stream

    def write_text(self, name: str, text: str) -> None:
        """Write a text file atomically."""
        with self.writing(name, "w") as stream:
            stream.write(text)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def place(self, source: Path, name: str) -> str:
        """Put an image at `name`: hard link out of an artifact, copy (or reflink) of a user's file."""
        self.check()
        folder = source.parent
        if folder not in self._immutable:
            self._immutable[folder] = files.immutable_root(source)
        root = self._immutable[folder]
        how = files.place(source, self._target(name), immutable=root is not None)
        if how == "link" and root is not None:
            if root not in self._records:
                self._records[root] = json.loads((root / RECORD).read_text(encoding="utf-8"))["files"]
            inside = source.resolve().relative_to(root).as_posix()
            if inside in self._records[root]:
                self._linked[name] = self._records[root][inside]["sha256"]
        return how

    def seal(self, record: Mapping[str, Any]) -> None:
        """Write artifact.json, the last file of an artifact: its existence says that everything else is there."""
        self.check()
        for name in [name for name, _ in _tree(self._root) if _temporary(name)]:
            (self._root / name).unlink(missing_ok=True)
        listed = list_files(self._root, self._linked)
        os.sync()
        with files.writing(self._root / RECORD, "w", self.check) as stream:
            json.dump({"schema": SCHEMA, **record, "files": listed}, stream, indent=1, ensure_ascii=False)
