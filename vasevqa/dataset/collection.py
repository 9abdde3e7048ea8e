"""Summarize a folder of photographs and the table that annotates them.

No photograph is decoded. A summary of thousands of photographs therefore takes about a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation import naming
from vasevqa.curation.file_names import Naming, parse_name, plain
from vasevqa.curation.images import ImageFile, find_images
from vasevqa.dataset import formats
from vasevqa.dataset.annotations import read_annotations
from vasevqa.dataset.columns import Columns
from vasevqa.dataset.join import Picture, join
from vasevqa.dataset.reading import Reading
from vasevqa.errors import ConfigError, DataError
from vasevqa.folders import PassedOver


@dataclass(frozen=True)
class Collection:
    """The photographs in a folder. `vases` maps each vase to the names of its photographs.

    `unmatched` holds the names from which no vase can be read. `others` counts the other files in the folder.
    """

    folder: Path
    files: tuple[ImageFile, ...]
    others: PassedOver
    naming: Naming
    vases: Mapping[str, Sequence[str]]
    unmatched: tuple[str, ...]

    def said(self) -> str:
        """Return a line such as `96 photographs (5 other files: …), 24 vases, 4 views each`."""
        line = f"{len(self.files)} photograph{'s' if len(self.files) > 1 else ''}{self.others.hint()}"
        if not self.vases:
            return f"{line}; their names do not show the vase (such as {self.unmatched[0]})"
        views = sorted(map(len, self.vases.values()))
        each = f"{views[0]} views" if views[0] == views[-1] else f"{views[0]} to {views[-1]} views"
        line += f", {len(self.vases)} vases, {'1 view' if views[-1] == 1 else each} each"
        return line + (f"; {len(self.unmatched)} names do not show the vase" if self.unmatched else "")


@dataclass(frozen=True)
class Annotated:
    """A collection matched with a table of annotations.

    `rows` is the number of rows in the table. `vases` holds the vases that have a row, and `everyone` is the number of
    all vases. `photographs` is the number of photographs that have a row. `vase_of` maps the names of photographs to
    vases. The vase is read from the photograph's name or from a row. If neither names a vase, the photograph is counted
    in `untold`.
    """

    columns: Columns
    rows: int
    vases: frozenset[str]
    photographs: int
    everyone: int
    untold: int
    vase_of: Mapping[str, str]

    def said(self) -> str:
        """Return a line such as `22 of 24 vases annotated`."""
        return f"{len(self.vases)} of {self.everyone} vases annotated, by {self.rows} rows"


def look_at(folder: Path, reading: Reading | None = None) -> Collection:
    """Find the photographs in a folder, and group their names by vase.

    Raise ConfigError if `folder` is not a folder or if the name pattern is invalid. Raise DataError if the folder has
    no photograph.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder; unpack it, and give the folder of the photographs.")
    others = PassedOver()
    found = list(find_images(folder, others=others))
    if not found:
        raise DataError(f"There is no photograph in {folder}{others.hint()}; give the folder of the photographs.")
    names = [item.name for item in found]
    named = naming.naming_of(reading.name_pattern if reading else None, names)
    vases: dict[str, list[str]] = defaultdict(list)
    unmatched = []
    for name in names:
        view = parse_name(name, named)
        if view is None:
            unmatched.append(name)
        else:
            vases[view.vase].append(name)
    return Collection(folder, tuple(found), others, named, dict(vases), tuple(unmatched))


def look_at_table(path: Path, collection: Collection, reading: Reading | None = None) -> Annotated:
    """Match a table, or a folder of tables, with the photographs of a collection.

    Raise DataError if no table can be read. Raise ConfigError if `reading` names a heading that no table has.
    """
    reading = reading or Reading()
    columns = Columns(reading.columns)
    told = read_annotations(path, columns, reading.records)
    unread = next((problem for problem in told.problems if problem.kind == "unreadable file"), None)
    if not told.records and unread is not None:
        raise DataError(f"{path}: {unread.what}.")
    vase_of = {name: vase for vase, names in collection.vases.items() for name in names}
    pictures = [Picture(item, vase_of.get(item.name, plain(item.name))) for item in collection.files]
    roots = [path if path.is_dir() else path.parent, collection.folder]
    problems = list(told.problems)

    def vase(name: str) -> str:
        view = parse_name(name, collection.naming)
        return view.vase if view else plain(name)

    joined = join(pictures, told.records, roots, problems, vase)
    spoken = {pictures[number].vase for number in joined.spoken}
    everyone = {picture.vase for picture in pictures}
    untold = sum(not picture.has_vase for picture in pictures)
    known = {picture.file.name: picture.vase for picture in pictures if picture.has_vase}
    return Annotated(columns, joined.records, frozenset(spoken), len(joined.spoken), len(everyone), untold, known)


class _AnyHeadings(Columns):
    """A mapping of columns that accepts any table, even a table without a known heading."""

    def check(self, headings: object) -> None:
        """Accept all headings."""


def vase_heading(path: Path, collection: Collection) -> str | None:
    """Return the heading of the column whose cells name the most vases of the collection.

    Return None if no column names at least half of the vases, or if the table can't be read.
    """
    try:
        rows = [row for _, row in formats.entries(path.name, path, None, _AnyHeadings(), []) if isinstance(row, dict)]
    except (ValueError, RecursionError):
        return None
    named: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for heading, cell in row.items():
            if isinstance(cell, str | int) and (vase := plain(str(cell))) in collection.vases:
                named[str(heading)].add(vase)
    best = max(named, key=lambda heading: len(named[heading]), default=None)
    return best if best is not None and 2 * len(named[best]) >= len(collection.vases) else None
