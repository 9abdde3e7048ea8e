"""A file of JSON lines that grows while a stage works, so that a killed stage resumes where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vasevqa import files


class Journal:
    """The rows that were appended to `path` before, and more of them.

    A line that was cut off by a kill is dropped. With a `header`, rows only count if the file's first line is the same:
    it says what the rows were made for.
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
        """Write rows of JSON values to the end of the file."""
        added = list(rows)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_text(added))
        self.rows += added


def _text(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
