"""The problems in annotations: the parts that are left out of a dataset, and what is read in another way."""

from __future__ import annotations

from dataclasses import dataclass

from vasevqa.text import printable

# The kinds of problems that leave nothing out of the dataset, and what is done about them.
NOTHING_LOST = {
    "empty answer": "Without an answer, the question is not asked.",
    "encoding guessed": "The whole file is read.",
    "line before the headings": "The table begins at its headings.",
    "no JSON value": "The value is read as unknown.",
}


@dataclass(frozen=True)
class Problem:
    """A problem: its kind, the place, and the content. Each kind that NOTHING_LOST doesn't hold is a part that was left
    out.
    """

    kind: str
    where: str
    what: str

    def __post_init__(self) -> None:
        # The report is UTF-8. Names of files and keys of JSON may hold characters that UTF-8 can't encode.
        for name in ("where", "what"):
            object.__setattr__(self, name, printable(getattr(self, name)))
