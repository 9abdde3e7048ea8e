"""Inspect a folder of photographs and the files beside it, and find the last step that a recipe can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa.dataset.collection import Collection, look_at
from vasevqa.starting.found import FoundModel, labels_near, models_near
from vasevqa.starting.machine import Machine, this_machine
from vasevqa.starting.tables import Confirm, Table, confirmed, fitting_tables, table_of

FEWEST = 3  # minimum number of vases for the three sides of a split


@dataclass(frozen=True)
class Beginning:
    """The photographs, tables and models that `begin` found.

    `table` is the table with the data of the vases. If several tables fit, or if the user rejected the only table that
    fits, `table` is None and `others` holds the tables that fit. `labels` is a folder of labelled photographs.
    `trusted` is False if the user said that the vases found from the file names are wrong. `cluster` is True if the
    steps will run in a cluster.
    """

    collection: Collection
    machine: Machine
    table: Table | None = None
    others: Sequence[Table] = ()
    labels: Path | None = None
    models: Sequence[FoundModel] = ()
    trusted: bool = True
    cluster: bool = False

    @property
    def vases_by_table(self) -> bool:
        """True if some file names don't identify a vase, and the table names the vase of every such photograph."""
        return bool(self.collection.unmatched) and self.table is not None and not self.table.annotated.untold

    @property
    def vases_told(self) -> bool:
        """True if the vase of every photograph is known."""
        return self.trusted and (not self.collection.unmatched or self.vases_by_table)

    @property
    def gpus(self) -> bool:
        """True if the steps run in a cluster, or if this machine has GPUs."""
        return self.cluster or self.machine.gpus > 0

    def model(self, name: str) -> FoundModel | None:
        """Return the first complete model for the recipe input `name`; None if there is none."""
        return next((model for model in self.models if model.input == name and not model.problem), None)

    def end(self) -> tuple[str | None, str]:
        """Return the step at which the recipe should end, and the reason; (None, '') if it should run all steps."""
        if not self.vases_told:
            return "clip-filter", "it isn't clear which photographs show the same vase"
        if self.table is None:
            why = "several tables fit, and none is chosen" if self.others else "there is no table of the vases"
            return "select-views", why
        told = self.table.annotated
        if 2 * told.photographs < len(self.collection.files):
            return "select-views", f"only {told.photographs} of {len(self.collection.files)} photographs have a row"
        if len(told.vases) < FEWEST:
            return (
                "select-views",
                f"a dataset needs at least {FEWEST} vases with a row, and there are {len(told.vases)}",
            )
        if not self.gpus:
            return "build-dataset", "training needs a GPU, and this machine has none"
        return None, ""


def begin(folder: Path, annotations: Path | None, out: Path, cluster: bool, confirm: Confirm) -> Beginning:
    """Inspect the folder and the files beside it.

    `confirm` asks the user about each guess. Raise ConfigError or DataError if the folder or a table can't be used.
    """
    collection = look_at(folder)
    if annotations is not None:
        tables = [table_of(annotations, collection)]
    else:
        tables = fitting_tables(collection)
    table = tables[0] if len(tables) == 1 else None
    if (
        table is not None
        and annotations is None
        and not confirm((f"Does {table.path} contain the data of the vases?"), True)
    ):
        table = None
    if table is not None:
        table = confirmed(table, collection, confirm)
    beside = folder.absolute().parent
    return Beginning(
        collection,
        this_machine(),
        table,
        tables if table is None else (),
        labels_near(beside, folder),
        models_near(list(dict.fromkeys((out.absolute().parent, beside)))),
        _told_rightly(collection, confirm),
        cluster,
    )


def examples(collection: Collection) -> list[tuple[str, str]]:
    """Return up to three photographs of different vases, each with the name of its vase."""
    return [(names[0], vase) for vase, names in list(collection.vases.items())[:3]]


def _told_rightly(collection: Collection, confirm: Confirm) -> bool:
    shown = "; ".join(f"{name} shows {vase}" for name, vase in examples(collection))
    return not collection.vases or confirm(f"Are these vases correct? {shown}.", True)
