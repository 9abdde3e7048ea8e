"""The problems in annotations, such as dropped rows, dropped values and guessed encodings."""

from __future__ import annotations

from dataclasses import dataclass

from vasevqa.text import printable

# The kinds of problems for which no row is dropped, and how the reader handles them.
NOTHING_LOST = {
    "empty answer": "Without an answer, the question is not asked.",
    "encoding guessed": "The whole file is read.",
    "line before the headings": "The table begins at its headings.",
    "not a JSON value": "The value is read as unknown.",
}


@dataclass(frozen=True)
class Problem:
    """A problem with its kind, its place, and a description.

    If the kind is in `NOTHING_LOST`, no data was dropped. For any other kind, a file, a sheet, a row, a value or an
    image was dropped.
    """

    kind: str
    where: str
    what: str

    def __post_init__(self) -> None:
        # The report is UTF-8. Names of files and keys of JSON may hold characters that UTF-8 can't encode.
        for name in ("where", "what"):
            object.__setattr__(self, name, printable(getattr(self, name)))
