"""A file of JSON lines that a stage appends to, so that a killed stage can resume."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vasevqa import files


class Journal:
    """The rows that earlier calls appended to the file `path`. `append` adds new rows.

    If the process was killed while it wrote a line, this incomplete last line is dropped. `header` identifies the
    settings that the rows depend on. Existing rows are used only if the first line of the file equals `header`.
    """

    def __init__(self, path: Path, header: str | None = None) -> None:
        self.path = path
        self.rows: list[Any] = []
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
        if header is not None and lines[:1] != [header]:
            lines = []
        for line in lines[0 if header is None else 1 :]:
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                continue
        if header is not None or path.is_file():
            files.write_text(path, "".join(f"{line}\n" for line in [header] if line is not None) + _text(self.rows))

    def append(self, rows: Iterable[Any]) -> None:
        """Append rows of JSON values to the file."""
        added = list(rows)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_text(added))
        self.rows += added


def _text(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
