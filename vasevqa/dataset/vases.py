"""Find the vase of each photograph of a dataset, from the report of select-views or from the file names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.curation import naming
from vasevqa.curation.file_names import Naming, as_list, parse_name, plain, vase_group
from vasevqa.curation.reports import BestViewsReport
from vasevqa.dataset.params import BuildParams


@dataclass(frozen=True)
class Vases:
    """The vase of each photograph.

    `known` maps names of photographs to vases. It comes from the report of select-views. `own` holds the names of
    photographs that select-views treated as separate vases.
    """

    naming: Naming
    known: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    @classmethod
    def of(cls, params: BuildParams, reports: Sequence[Path], names: Sequence[str]) -> Vases:
        """Return the vases of `names`.

        If the parameters give name patterns, these are used. Otherwise, the patterns come from the report of
        select-views, if one of the folders `reports` holds it. Without a report, the patterns are chosen from `names`.
        The stage select-views may have chosen other patterns, because it may have read more names. Raise ConfigError if
        a pattern in the parameters is invalid or matches no name.
        """
        patterns = as_list(params.name_pattern)
        report = None
        for folder in reports:
            report = report or BestViewsReport.read(folder)
        if report is None or report.named_by is None or (patterns and patterns != report.named_by):
            return cls(naming.naming_of(patterns, names))
        known = {view.name: row.vase for row in report.vases for view in row.views}
        return cls(naming.recorded(report.named_by), known, frozenset(report.unmatched))

    def of_name(self, name: str) -> str:
        """Return the vase of the relative path `name`, or the name itself if the vase is unknown.

        The result is in lower case and in the Unicode form NFC.
        """
        return plain(self.known.get(name) or vase_group(name, self.naming))

    def untold(self, names: Iterable[str]) -> list[str]:
        """Return the names from which no vase can be read, sorted.

        The result doesn't hold names that select-views treated as separate vases.
        """
        return sorted(
            name
            for name in names
            if name not in self.known and name not in self.own and parse_name(name, self.naming) is None
        )
