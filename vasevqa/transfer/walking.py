"""Choose the files below a folder for a transfer, and report each skipped file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.text import plain

LISTED = 20  # at most this number of skipped files is listed for each reason; all are counted

OUTSIDE = "a link out of the folder"
FOLDER_LINK = "a link to a folder"
LOOP = "a link to a folder that contains the link"
NOTHING = "a link to nothing"
UNFINISHED = "not complete: another program may still be writing the file"
SPECIAL = "no file or folder: a pipe, socket or device"


@dataclass
class Skipped:
    """The files that a transfer skips: their number and their first names, for each reason."""

    names: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        """Count the file `name`, which is skipped because of `reason`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        first = self.names.setdefault(reason, [])
        if len(first) < LISTED:
            first.append(plain(name))

    def lines(self) -> Iterator[str]:
        """Yield a line for each listed file, and a line with the number of the other files."""
        for reason, names in self.names.items():
            yield from (f"Skipped: {name} ({reason})" for name in names)
            if more := self.counts[reason] - len(names):
                yield f"Skipped: {more} more ({reason})"

    @property
    def number(self) -> int:
        """The number of skipped files."""
        return sum(self.counts.values())


def walk(
    top: Path, skip: Callable[[str, str], None], boundary: Path | None = None, follow: bool = False
) -> Iterator[tuple[str, Path]]:
    """Yield the relative name and the path of each file below `top`. If `top` itself is a file, the name is empty.

    A link to a file inside `boundary` is treated as a file. Without `boundary`, the target must be inside `top`. Other
    links, special files and unfinished files are skipped: `skip` gets the name and the reason. With `follow`, all
    links to files and folders are followed. Raise OSError if a folder can't be read.
    """
    if top.is_file():
        yield "", top
        return
    inside = (boundary or top).resolve()
    pending: list[tuple[Path, str, frozenset[Path]]] = [(top, "", frozenset({top.resolve()}))]
    while pending:
        folder, prefix, parents = pending.pop()
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        inner = []
        for entry in entries:
            name, path = prefix + entry.name, folder / entry.name
            if reason := _reason(entry, parents, inside, follow):
                skip(name, reason)
            elif entry.is_dir():
                # A folder that is no link can't contain itself, so only the targets of links are remembered.
                inner.append((path, f"{name}/", parents | {path.resolve()} if follow else parents))
            else:
                yield name, path
        pending += reversed(inner)


def _reason(entry: os.DirEntry[str], parents: frozenset[Path], inside: Path, follow: bool) -> str:
    """Return why an entry of a folder is skipped; '' if it is transferred."""
    if entry.is_symlink():
        if not Path(entry.path).exists():
            return NOTHING
        target = Path(os.path.realpath(entry.path))
        if not follow and not target.is_relative_to(inside):
            return OUTSIDE
        if entry.is_dir():
            if not follow:
                return FOLDER_LINK
            if target in parents:
                return LOOP
    if entry.is_dir():
        return ""
    if not entry.is_file():
        return SPECIAL
    return UNFINISHED if unfinished(entry.name) else ""


def unfinished(name: str) -> bool:
    """Return True if `name` is the temporary name of a file that is not complete yet."""
    return name.startswith(".") and name.endswith((".part", ".tmp"))
