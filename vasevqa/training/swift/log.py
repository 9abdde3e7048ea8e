"""Read ms-swift's logging.jsonl, which has one line for each logging step."""

from __future__ import annotations

import json
from pathlib import Path

LogRow = dict[str, float]  # `step` and `max_steps` (whole numbers), and ms-swift's measurements


def read_log(path: Path) -> list[LogRow]:
    """Return the lines of logging.jsonl as rows with `step` and `max_steps`.

    If a step was repeated after a resume, only the step's last row is returned.
    """
    rows: dict[tuple[int, bool], LogRow] = {}
    if not path.is_file():
        return []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        row = log_row(line)
        if row is not None:
            rows[int(row["step"]), "eval_loss" in row] = row
    return [rows[key] for key in sorted(rows)]


def log_row(line: str) -> LogRow | None:
    """Return one line of logging.jsonl as a row.

    Return None for the last line, which is a summary, and for a line that was not written completely.
    """
    try:
        row = json.loads(line)
        done, _, total = str(row["global_step/max_steps"]).partition("/")
        if "train_runtime" in row:  # averages over the whole training
            return None
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        return {"step": int(done), "max_steps": int(total), **numbers}
    except (ValueError, KeyError, TypeError):
        return None
