"""Read and write splits.csv, which assigns each vase to a side of the split: train, val or eval.

build-dataset writes this file. A user can also give such a file to build-dataset.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

from vasevqa import files
from vasevqa.curation.file_names import plain
from vasevqa.errors import ConfigError, DataError
from vasevqa.storage import refuse_failed

FILE = "splits.csv"
HEADER = ("vase", "side")
SIDES = ("train", "val", "eval")


def write(stream: IO[str], sides: Mapping[str, str]) -> None:
    """Write the side of each vase, sorted by vase."""
    files.write_table(stream, HEADER, sorted(sides.items()))


def read(path: Path) -> dict[str, str]:
    """Return the side of each vase from a file that `write` wrote, or from a user's file in the same format.

    Raise DataError if the content is invalid. The message names the invalid line. Raise ConfigError if the file can't
    be read.
    """
    sides: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.reader(stream)
            header = [cell.strip().lower() for cell in next(table, [])]
            if header[:2] != list(HEADER):
                raise DataError(f"{path}, line 1: the header is `{','.join(header)[:60]}`; write `{','.join(HEADER)}`.")
            for cells in table:
                if not any(cell.strip() for cell in cells):
                    continue
                where = f"{path}, line {table.line_num}"
                if len(cells) < 2:
                    raise DataError(f"{where} has no side; write the line as `vase,side`.")
                vase, side = plain(cells[0]), cells[1].strip().lower()
                if side not in SIDES:
                    raise DataError(f"{where}: there is no side '{side}'; write one of {', '.join(SIDES)}.")
                if sides.setdefault(vase, side) != side:
                    raise DataError(f"{where}: {vase} is on two sides ({sides[vase]} and {side}); keep one.")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}); save the file as CSV in UTF-8.") from None
    except OSError as error:
        refuse_failed(error, path)
        raise ConfigError(
            f"{path} can't be read ({error.strerror}); give a CSV file with the columns `vase` and `side`."
        ) from None
    if not sides:
        raise DataError(f"{path} names no vase; write one line `vase,side` for each vase.")
    return sides


def refuse_too_few(vases: int, groups: int, val_fraction: float, eval_fraction: float, why: str = "") -> None:
    """Raise DataError if there are too few groups of vases to put at least one group on each side of the split.

    `why` is added to the message. It describes the most common problem in the input.
    """
    wanted = ["train", *(["val"] if val_fraction else []), *(["eval"] if eval_fraction else [])]
    if groups >= len(wanted):
        return
    joined = f" ({groups} if vases with near-duplicates or in one row count as one)" if groups < vases else ""
    raise DataError(
        f"The split into {', '.join(wanted)} needs at least {len(wanted)} vases with annotations, and there"
        f" {'is' if vases == 1 else 'are'} {vases}{joined}{why}; add vases, or set val_fraction or eval_fraction to 0."
    )


def without_picture(given: Mapping[str, str], vases: Collection[str]) -> list[str]:
    """Return the sorted list of the vases in `given` that have no picture.

    `given` maps vases to sides. `vases` holds all vases that have a picture. Raise DataError if none of the vases in
    `given` has a picture.
    """
    absent = sorted(set(given) - set(vases))
    if given and len(absent) == len(given):
        raise DataError(
            f"None of the {len(given)} vases in the splits file, such as {absent[0]}, has a photograph; list the vases"
            f" that the photographs show, such as {', '.join(sorted(vases)[:3])}."
        )
    return absent


def side_of(vases: set[str], given: Mapping[str, str]) -> str | None:
    """Return the side that `given` assigns to a group of vases. Return None if `given` names none of these vases.

    All vases of a group must be on one side, because their pictures are near-duplicates or occur in one row. Raise
    DataError if `given` assigns different sides to the vases of the group.
    """
    sides = {vase: given[vase] for vase in sorted(vases) if vase in given}
    if len(set(sides.values())) > 1:
        (one, first), (other, second) = next(
            (pair, another) for pair in sides.items() for another in sides.items() if pair[1] != another[1]
        )
        raise DataError(
            f"The splits file assigns {one} to {first} and {other} to {second}, but these vases have near-duplicate"
            " photographs or occur in one row; assign both to one side, or set group_duplicates to false."
        )
    return next(iter(sides.values()), None)
