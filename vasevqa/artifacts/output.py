"""The output folder of a stage. Under a launcher, a lease protects it, and artifact.json marks it as complete."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from vasevqa import files
from vasevqa.artifacts.contents import RECORD, is_temporary, list_files, read_record, tree
from vasevqa.artifacts.lease import Lease
from vasevqa.errors import DataError, VaseError

SCHEMA = 1


class StageOutput:
    """The output folder of a stage (see `spec.Output`). Under a launcher, a lease guards the folder."""

    def __init__(self, root: Path, lease: Lease | None = None) -> None:
        self._root = root
        self._lease = lease
        self._linked: dict[str, tuple[Path, int, str]] = {}  # name -> source, inode and recorded digest
        self._records: dict[Path, dict[str, Any]] = {}
        self._immutable: dict[Path, Path | None] = {}
        root.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """The folder to write into."""
        return self._root

    @property
    def standalone(self) -> bool:
        """True if the stage runs without a launcher."""
        return self._lease is None

    @property
    def final(self) -> Path:
        """The path that the folder has once it is complete."""
        return self._root.with_suffix("") if self._lease is not None and self._root.suffix == ".partial" else self._root

    @property
    def volume(self) -> Path | None:
        """The root of the volume that contains the folder; None without a launcher."""
        return self._root.parents[2] if self._lease is not None else None

    def check(self) -> None:
        """Raise LeaseLost if this process no longer holds the lease of the folder."""
        if self._lease is not None:
            self._lease.check()

    def _target(self, name: str) -> Path:
        target = self._root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise VaseError(f"'{name}' lies outside the output folder {self._root}; give a name inside it.")
        return target

    @contextlib.contextmanager
    def writing(self, name: str, mode: str = "wb") -> Iterator[IO[Any]]:
        """Open a stream for the file `name`. The file appears only when it is complete."""
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
        """Create the image `name` as a hard link if `source` belongs to an artifact, otherwise as a reflink or a copy.

        Return 'link', 'reflink' or 'copy'. Raise DataError if the file `source` was removed meanwhile.
        """
        self.check()
        folder = source.parent
        if folder not in self._immutable:
            self._immutable[folder] = files.immutable_root(source)
        root = self._immutable[folder]
        try:
            how = files.place(source, self._target(name), immutable=root is not None)
        except FileNotFoundError:
            if files.exists(source):
                raise
            raise DataError(
                f"{source} was removed while the step read it; start again, and don't change the folder during the run."
            ) from None
        if how == "link" and root is not None:
            if root not in self._records:
                self._records[root] = (read_record(root) or {}).get("files", {})
            inside = source.resolve().relative_to(root).as_posix()
            if inside in self._records[root]:
                self._linked[name] = (source, source.stat().st_ino, self._records[root][inside]["sha256"])
        return how

    def _refuse_changed(self, listed: Mapping[str, Mapping[str, object]]) -> None:
        """Raise DataError if the content of a hard-linked image differs from the record of its original artifact."""
        for name, (source, inode, digest) in self._linked.items():
            if name not in listed or listed[name]["sha256"] == digest:
                continue
            if (self._root / name).stat().st_ino == inode:  # otherwise the stage has replaced the link
                raise DataError(
                    f"{source} differs from what its step wrote; set its artifact aside with `vasevqa verify"
                    " --repair`, and run the same command again."
                )

    def seal(self, record: Mapping[str, object]) -> None:
        """Write artifact.json as the last file of an artifact. This file marks all other files as complete."""
        self.check()
        for name in [name for name, _ in tree(self._root) if is_temporary(name)]:
            (self._root / name).unlink(missing_ok=True)
        listed = list_files(self._root)
        self._refuse_changed(listed)
        files.sync_volume(self._root)
        with files.writing(self._root / RECORD, "w", self.check) as stream:
            json.dump({"schema": SCHEMA, **record, "files": listed}, stream, indent=1, ensure_ascii=False)
