"""The settings for reading the names of photographs and tables of annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """The settings in a recipe for reading the names of photographs (`name_pattern`) and tables of annotations."""

    name_pattern: str | Sequence[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    records: str | None = None
