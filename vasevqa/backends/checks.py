"""The results of the checks that `vasevqa doctor` makes, in one form for all backends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, BAD, UNKNOWN = "ok", "warning", "bad", "not checked"


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was checked, its state, and a text for the user.

    If something is wrong, `text` says what to do. `code` is the exit code of `vasevqa doctor` for this finding. It is 0
    unless `state` is BAD.
    """

    what: str
    state: str
    text: str
    code: int = 0

    def plain(self) -> dict[str, object]:
        """Return the finding as a mapping for JSON."""
        return asdict(self)


def stage_of(image: str) -> str:
    """Return the stage in an image's name, such as `classify` in `registry.example.org:5000/me/vasevqa/classify:1`."""
    return re.split(r"[@:]", image.rpartition("/")[2])[0]


def finding_of(given: Mapping[str, Any]) -> Finding:
    """Convert a mapping from `Finding.plain` back to a Finding."""
    return Finding(str(given["what"]), str(given["state"]), str(given["text"]), int(given["code"]))
