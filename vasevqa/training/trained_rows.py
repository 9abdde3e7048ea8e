"""Count the tokens of a training's rows before the model is loaded, and exclude rows that can't be used.

A separate process counts the tokens with ms-swift's own template (vasevqa/training/swift/lengths.py).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa import files
from vasevqa.dataset.row_checks import CheckedRows
from vasevqa.errors import DataError
from vasevqa.training.params import TrainingParams
from vasevqa.training.swift.messages import LengthsTask, ended

if TYPE_CHECKING:
    from vasevqa.spec import Output, Progress

CHILD = "vasevqa.training.swift.lengths"
DROPPED = "dropped_rows.csv"
LEFT_OUT_AT_MOST = 0.05  # maximum fraction of a file's rows; a larger fraction means a wrong setting or broken dataset


@dataclass(frozen=True)
class LeftOut:
    """A row that the training does not use: the row's file and line, and the reason.

    `length` is the row's length in tokens; None for a broken row.
    """

    file: str
    line: int
    why: str
    length: int | None


@dataclass(frozen=True)
class TrainedRows:
    """The rows that ms-swift gets: the file `path` with `count` rows.

    `left_out` holds the rows of the dataset that are not used.
    """

    path: Path
    count: int
    left_out: tuple[LeftOut, ...] = ()

    def summary(self) -> dict[str, int]:
        """Return the number of rows that are not used, by reason. The mapping is empty if all rows are used."""
        long = sum(one.length is not None for one in self.left_out)
        counted = {"too_long": long, "broken": len(self.left_out) - long}
        return {why: number for why, number in counted.items() if number}


@dataclass(frozen=True)
class Reading:
    """How ms-swift reads the rows: the kind of training, ms-swift's arguments, and the environment of the process."""

    kind: str
    argv: list[str]
    environ: Mapping[str, str]
    root: Path
    model: Path


def trainable_rows(
    checked: Mapping[str, CheckedRows], reading: Reading, params: TrainingParams, output: Output, progress: Progress
) -> dict[str, TrainedRows]:
    """Count the tokens of every row, exclude the rows that can't be used for training, and report these rows.

    Raise DataError if too many rows would be excluded, or if ms-swift can't read the files.
    """
    began = time.monotonic()
    measured = lengths(list(checked.values()), reading, cache_folder(output), output.check)
    found = {}
    for name, part in checked.items():
        rows = trainable(part, measured[part.path], params, output.root / "training")
        found[name] = rows
        progress.event(
            "rows", file=part.path.name, rows=rows.count, seconds=round(time.monotonic() - began, 1), **rows.summary()
        )
        if rows.left_out:
            progress.note(
                f"{part.path.name}: {len(rows.left_out)} of {len(part.lines)} rows left out ({said(rows)}); {DROPPED}"
                " lists them"
            )
    write_left_out(output, found.values())
    return found


def cache_folder(output: Output) -> Path:
    """Return the folder in which the lengths of rows are stored.

    If there is a volume, the folder is on the volume, so that any later training can use the lengths. Otherwise the
    folder is in the training's own folder.
    """
    return output.volume / ".cache/row-lengths" if output.volume else output.root / "training/rows"


def lengths(
    checked: Sequence[CheckedRows], reading: Reading, cache: Path, alive: Callable[[], None]
) -> dict[Path, list[tuple[int | None, str]]]:
    """Return a pair for every row of each file, in the order of the rows.

    The pair is (length in tokens, ''). For a broken row, the pair is (None, reason). A separate process counts the
    tokens with ms-swift's own template. The result is stored in the folder `cache`. The stored result is used again if
    rows, pictures, model and arguments are the same. The function calls `alive` repeatedly while the process works. If
    `alive` raises an error, the process is killed.
    """
    kept = cache / f"row-lengths-{_key(checked, reading)}.json"
    try:
        found: dict[str, list[tuple[int | None, str]]] = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = _count(checked, reading, alive)
        with contextlib.suppress(OSError):  # a full or read-only volume stores no lengths
            cache.mkdir(parents=True, exist_ok=True)
            files.write_json(kept, found, indent=None)
    return {rows.path: found[rows.path.name] for rows in checked}


def _key(checked: Sequence[CheckedRows], reading: Reading) -> str:
    """Return a digest of all facts that decide the lengths: rows, pictures, model, arguments and ms-swift's version."""
    pictures = []
    for name in sorted({image for rows in checked for image in rows.images}):
        status = (reading.root / name).stat()
        pictures.append((name, status.st_size, status.st_mtime_ns))
    texts = sorted(path for path in reading.model.iterdir() if path.suffix in (".json", ".txt", ".jinja"))
    facts = {
        "counting": 1,
        "kind": reading.kind,
        "argv": [word for word in reading.argv if word != str(reading.model)],
        "max_pixels": reading.environ.get("MAX_PIXELS"),
        "rows": {rows.path.name: files.digest_file(rows.path) for rows in checked},
        "pictures": pictures,
        "model": {path.name: files.digest_file(path) for path in texts},
        "ms-swift": version("ms-swift"),
    }
    return files.digest_json(facts)[:16]


def _count(
    checked: Sequence[CheckedRows], reading: Reading, alive: Callable[[], None]
) -> dict[str, list[tuple[int | None, str]]]:
    with tempfile.TemporaryDirectory(prefix="vasevqa-") as folder:
        spec = Path(folder) / "spec.json"
        images = sorted({image for rows in checked for image in rows.images})
        counts = {str(rows.path): len(rows.lines) for rows in checked}
        LengthsTask(reading.kind, reading.argv, counts, images, str(reading.root), str(reading.model)).write(spec)
        child = subprocess.Popen(
            [sys.executable, "-m", CHILD, str(spec)],
            env=reading.environ,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        try:
            while child.poll() is None:
                alive()
                time.sleep(0.1)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        result = ended(spec, child.returncode or 1, "The process that counts the tokens of the rows")
    if result.exit_code:
        raise result.raised() or RuntimeError(f"Counting the tokens of the rows failed: {result.message}")
    return {Path(path).name: rows for path, rows in result.figures["lengths"].items()}


def trainable(
    checked: CheckedRows, measured: Sequence[tuple[int | None, str]], params: TrainingParams, folder: Path
) -> TrainedRows:
    """Exclude the rows that are broken or longer than max_length, and write the remaining rows to `folder`/rows.

    If the user's truncation_strategy shortens long rows, no row counts as too long. If no row is excluded, nothing is
    written.

    Raise DataError if too many rows would be excluded.
    """
    cut = params.extra_args.get("truncation_strategy") in ("left", "right", "split")
    left_out = []
    for line, (length, problem) in zip(checked.lines, measured, strict=True):
        if length is None:
            left_out.append(LeftOut(checked.path.name, line, problem, None))
        elif length > params.max_length and not cut:
            why = f"{length} tokens, more than max_length ({params.max_length})"
            left_out.append(LeftOut(checked.path.name, line, why, length))
    rows = TrainedRows(checked.path, len(checked.lines) - len(left_out), tuple(left_out))
    if not left_out:
        return rows
    if params.on_long_rows == "error" or len(left_out) > LEFT_OUT_AT_MOST * len(checked.lines):
        raise DataError(_refusal(checked, rows, params))
    gone = {one.line for one in left_out}
    kept = folder / "rows" / checked.path.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(kept, "wb") as target, checked.path.open("rb") as source:
        target.writelines(line for number, line in enumerate(source, 1) if number not in gone)
    return replace(rows, path=kept)


def _refusal(checked: CheckedRows, rows: TrainedRows, params: TrainingParams) -> str:
    first, counted = rows.left_out[0], rows.summary()
    remedies = []
    if "too_long" in counted:
        longest = max(one.length for one in rows.left_out if one.length is not None)
        remedies.append(
            f"raise max_length ({params.max_length}; the longest row has {longest} tokens), lower max_pixels"
            f" ({params.max_pixels}) or shorten the rows"
        )
    if "broken" in counted:
        remedies.append("correct or remove the broken rows")
    limit = "none" if params.on_long_rows == "error" else f"at most {LEFT_OUT_AT_MOST:.0%}"
    return (
        f"{checked.path}: {len(rows.left_out)} of {len(checked.lines)} rows ({said(rows)}) can't be trained on,"
        f" and on_long_rows ({params.on_long_rows}) leaves out {limit}; the first such row is"
        f" line {first.line} ({first.why}); {' and '.join(remedies)}."
    )


def expected(parts: Mapping[str, TrainedRows], params: TrainingParams) -> tuple[int | None, int | None]:
    """Return the numbers of rows that ms-swift must read for training and for validation.

    The number for validation is None if there are no validation rows. Both numbers are None if the user's arguments
    change how many rows ms-swift reads.
    """
    if {"split_dataset_ratio", "truncation_strategy", "streaming"} & set(params.extra_args):
        return None, None
    return parts["train"].count, parts["validation"].count if "validation" in parts else None


def said(rows: TrainedRows) -> str:
    """Return a short summary of the excluded rows, such as '3 too long, 1 broken'."""
    return ", ".join(f"{number} {why.replace('_', ' ')}" for why, number in rows.summary().items())


def write_left_out(output: Output, parts: Iterable[TrainedRows]) -> None:
    """Write the table of the excluded rows (dropped_rows.csv). Write nothing if no row was excluded."""
    left_out = [one for rows in parts for one in rows.left_out]
    if left_out:
        with output.writing(DROPPED, "w") as stream:
            cells = ((one.file, one.line, one.why, one.length) for one in left_out)
            files.write_table(stream, ("file", "line", "why", "length"), cells)
