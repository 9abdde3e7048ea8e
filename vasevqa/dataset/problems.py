"""The parts of annotations that are left out of a dataset, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from vasevqa.text import printable


@dataclass(frozen=True)
class Problem:
    """A part that was left out: the kind of problem, the place, and the content."""

    kind: str
    where: str
    what: str

    def __post_init__(self) -> None:
        # The report is UTF-8. Names of files and keys of JSON may hold characters that UTF-8 can't encode.
        for name in ("where", "what"):
            object.__setattr__(self, name, printable(getattr(self, name)))
