"""Find the table with the data of the photographed vases, and the meaning of its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vasevqa.dataset.collection import Annotated, Collection, look_at_table, vase_heading
from vasevqa.dataset.columns import key_of
from vasevqa.dataset.reading import Reading
from vasevqa.errors import ConfigError, VaseError
from vasevqa.starting.found import tables_near

Confirm = Callable[[str, bool], bool]  # arguments: a question, and True if the guess is certain


@dataclass(frozen=True)
class Table:
    """A table, and its data about the photographs.

    Some headings aren't recognised automatically, so the recipe must name them. `vase_column` is the heading of the
    column that names the vases, if this heading isn't recognised. `columns` maps other fields to headings that aren't
    recognised. `unsure` maps a field to the headings that may mean this field.
    """

    path: Path
    annotated: Annotated
    vase_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    unsure: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def mapped(self) -> list[str]:
        """The recognised headings that differ from the name of their field, as texts such as `Gattung is fabric`."""
        return [f"{heading} is {name}" for heading, name in self.annotated.columns.used if key_of(heading) != name]


def table_of(path: Path, collection: Collection) -> Table:
    """Return the table in the file `path`. Raise VaseError if nothing in the table can be used."""
    error: VaseError | None = None
    plain: Annotated | None = None
    try:
        plain = look_at_table(path, collection)
    except ModuleNotFoundError as missing:
        raise ConfigError(f"{path} needs {missing.name}, which isn't installed here; save it as CSV UTF-8.") from None
    except VaseError as caught:
        error = caught
    if plain is not None and 2 * len(plain.vases) >= max(1, len(collection.vases)):
        return _with_unsure(Table(path, plain))
    heading = vase_heading(path, collection)
    if heading is not None:
        try:
            by_heading = look_at_table(path, collection, Reading(columns={"vase_id": heading}))
        except VaseError as caught:
            error = error or caught
        else:
            if plain is None or len(by_heading.vases) > len(plain.vases):
                return _with_unsure(Table(path, by_heading, heading))
    if plain is None:
        assert error is not None
        raise error
    return _with_unsure(Table(path, plain))


def confirmed(table: Table, collection: Collection, confirm: Confirm) -> Table:
    """Ask the user about the uncertain headings, and return the table with the headings that the user confirms."""
    taken = {
        name: headings[0]
        for name, headings in table.unsure.items()
        if confirm(f"Does the column '{headings[0]}' of {table.path.name} contain the {name} of a vase?", False)
    }
    if not taken:
        return table
    given = {**taken, **({"vase_id": table.vase_column} if table.vase_column else {})}
    annotated = look_at_table(table.path, collection, Reading(columns=given))
    unsure = {name: headings for name, headings in table.unsure.items() if name not in taken}
    return replace(table, annotated=annotated, columns=taken, unsure=unsure)


def fitting_tables(collection: Collection) -> list[Table]:
    """Return the tables in the photographs' folder and beside it that contain data about the vases."""
    tables = []
    for path in tables_near([collection.folder, collection.folder.absolute().parent]):
        try:
            table = table_of(path, collection)
        except VaseError:
            continue
        tables += [table] if table.annotated.photographs else []
    return tables


def _with_unsure(table: Table) -> Table:
    columns = table.annotated.columns
    idle = [heading for heading in columns.unused if heading.strip()]
    candidates = columns.candidates([*idle, *(heading for heading, _ in columns.used)])
    return replace(
        table, unsure={name: found for name, found in candidates.items() if name not in ("image", "vase_id")}
    )
