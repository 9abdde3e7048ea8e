"""predictions.csv: the probability and the class of each image. classify writes it, and select-views reads it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vasevqa import files
from vasevqa.errors import DataError

FILE = "predictions.csv"
_HEADER = ("path", "probability", "class")


@dataclass(frozen=True)
class Prediction:
    """The class of an image (0 or 1), and the probability of class 1.

    `probability` is None for an image that was classified only by an earlier call with the same output folder.
    """

    name: str
    label: int
    probability: float | None = None


def write(stream: IO[str], predictions: Iterable[Prediction]) -> None:
    """Write predictions.csv to `stream`."""
    rows = ((one.name, "" if one.probability is None else f"{one.probability:.6f}", one.label) for one in predictions)
    files.write_table(stream, _HEADER, rows)


def read(folder: Path) -> Iterator[Prediction]:
    """Yield the predictions in `folder`. Yield nothing if `folder` holds no predictions.csv.

    Raise DataError if the file doesn't have classify's format. If a row is wrong, the message gives its number.
    """
    path = folder / FILE
    if not path.is_file():
        return
    number = 1
    try:
        for row in files.read_table(path):
            yield _prediction(row)
            number += 1
    except UnicodeDecodeError:
        raise _damaged(path, "it is not UTF-8 text") from None
    except KeyError as error:
        raise _damaged(path, f"row {number} has no {error}") from None
    except (ValueError, csv.Error) as error:
        raise _damaged(path, f"row {number}: {error}") from None


def _prediction(row: Mapping[str, str]) -> Prediction:
    probability, label = row["probability"], row["class"]
    if label not in ("0", "1"):
        raise ValueError(f"the class is '{label}', neither 0 nor 1")
    return Prediction(row["path"], int(label), float(probability) if probability else None)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is not a file of classify with the columns {','.join(_HEADER)} ({why}); move it elsewhere, and run"
        " classify again."
    )
