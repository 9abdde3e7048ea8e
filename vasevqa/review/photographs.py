"""List the photographs to review, with their vases. No picture is decoded and no digest is computed for the list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vasevqa import files
from vasevqa.curation.file_names import plain
from vasevqa.dataset.collection import Collection


@dataclass(frozen=True)
class Photograph:
    """A photograph to review.

    `name` is the path relative to the reviewed folder. If the vase isn't known, the name is used as `vase`. `place` is
    the path of the photograph's copy below 0/ or 1/. train-classifier reads the vase from this path.
    """

    path: Path
    name: str
    vase: str
    place: str

    @property
    def stamp(self) -> str:
        """The file's size and time of modification."""
        return stamp_of(self.path)

    def digest(self) -> str:
        """Return the SHA-256 of the file."""
        return files.digest_file(self.path)


def stamp_of(path: Path) -> str:
    """Return a file's size and time of modification as a text, to recognise a changed file."""
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def photographs_of(collection: Collection, by_table: Mapping[str, str] | None = None) -> list[Photograph]:
    """Return the photographs of a folder in the order of their names, without those that have a problem.

    `by_table` maps names to the vases of a table. It is used for photographs whose names contain no vase.
    """
    by_name = {name: vase for vase, names in collection.vases.items() for name in names}
    found = []
    for item in collection.files:
        if not item.problem:
            told = by_name.get(item.name) or (by_table or {}).get(item.name)
            place = item.name if item.name in by_name or told is None else _below_vase(told, item.name)
            found.append(Photograph(item.path, item.name, told or plain(item.name), place))
    return found


def _below_vase(vase: str, name: str) -> str:
    """Return a path in a folder named after the vase. Slashes in `name` become underscores."""
    folder = vase.replace("/", "_").lstrip(".") or "_"
    return str(PurePosixPath(folder, name.replace("/", "_")))
