"""Reading what an earlier call left in a folder that is merged into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Protocol

    class _Output(Protocol):
        @property
        def root(self) -> Path: ...

        def check(self) -> None: ...


def read_report(path: Path) -> dict[str, Any]:
    """The mapping in a JSON report; {} if it isn't there or can't be read (a report is never needed to go on)."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def earlier_rows(path: Path) -> list[dict[str, Any]]:
    """The image rows of an earlier filtering report, those that it had itself kept from before included."""
    report = read_report(path)
    rows = [*report.get("earlier_images", []), *report.get("images", [])]
    return [
        row
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("name"), str) and isinstance(row.get("accepted"), bool)
    ]


def remove_ours(output: _Output, name: str) -> None:
    """Remove a file that an earlier report says we placed at `name`; nothing outside the output folder."""
    output.check()
    target = output.root / name
    if ".." not in Path(name).parts and not Path(name).is_absolute():
        target.unlink(missing_ok=True)
