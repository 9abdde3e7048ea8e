"""The settings that say how photographs' names and annotation tables are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """A recipe's settings that say how photographs' names and annotation tables are read.

    `name_pattern` is for the names of photographs. `columns` and `records` are for tables.
    """

    name_pattern: str | Sequence[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    records: str | None = None
