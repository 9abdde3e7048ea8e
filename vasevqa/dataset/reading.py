"""How names of photographs and tables are read, as a recipe says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """How names and tables are read, as a recipe says it."""

    name_pattern: str | Sequence[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    records: str | None = None
