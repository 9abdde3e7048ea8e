"""What `vasevqa doctor` finds, wherever it looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, BAD, UNKNOWN = "ok", "warning", "bad", "not checked"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it stands, and for what isn't well what to do.

    `code` is the exit code that it would cost.
    """

    what: str
    state: str
    text: str
    code: int = 0

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def stage_of(image: str) -> str:
    """The stage that an image's name says: classify of registry.example.org:5000/me/vasevqa/classify:1."""
    return re.split(r"[@:]", image.rpartition("/")[2])[0]


def found(given: Mapping[str, Any]) -> Finding:
    """A Finding from `plain`."""
    return Finding(str(given["what"]), str(given["state"]), str(given["text"]), int(given["code"]))
