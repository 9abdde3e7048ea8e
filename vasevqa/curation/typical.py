"""Read which photographs are typical of a group of look-alikes."""

from __future__ import annotations

import csv
from pathlib import Path

FILE = "typical.csv"


def read(folder: Path) -> dict[str, tuple[int, int]]:
    """Return cluster and rank by the photograph's name, as clip-filter wrote them; {} if `folder` has no such file."""
    path = folder / FILE
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["name"]: (int(row["cluster"]), int(row["rank"])) for row in csv.DictReader(stream)}
