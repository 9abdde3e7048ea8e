"""Read binary tables (Excel's .xlsx, and Parquet) as rows of texts or values."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from vasevqa.dataset.columns import MOST
from vasevqa.dataset.tables import Cells
from vasevqa.storage import refuse_failed
from vasevqa.text import cell_text

MAX_PART = 512 << 20  # maximum size of an unpacked part in bytes


def sheets(path: Path) -> list[tuple[str, list[Cells]]]:
    """Return the title and the rows of each non-empty sheet. Raise ValueError if the workbook can't be read.

    The value of a formula is the value that Excel stored. Whole numbers are written without a decimal point. Dates have
    the form 2024-05-01.
    """
    _check(path)
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            return [(sheet.title, rows) for sheet in book.worksheets if (rows := list(_rows(sheet)))]
        finally:
            book.close()
    except ValueError:
        raise
    except Exception as error:  # openpyxl raises many kinds of error on damaged content
        refuse_failed(error, path)
        what = str(error)[:80] or type(error).__name__
        raise ValueError(f"it is not a complete workbook ({what}); open it in Excel and save it as CSV UTF-8") from None


def _check(path: Path) -> None:
    """Raise ValueError if the archive is not a readable workbook.

    Also raise it if a part of the archive declares XML entities or is too large to read.
    """
    try:
        with zipfile.ZipFile(path) as book:
            parts = {part.filename: part for part in book.infolist()}
            for part in parts.values():
                # An entity of XML can expand to gigabytes. Excel writes no entities.
                if part.filename.endswith(".xml") and b"<!DOCTYPE" in book.open(part).read(4096):
                    raise ValueError(f"its part {part.filename} declares XML entities; save the table as CSV UTF-8")
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"it is not a complete workbook ({error}); open it in Excel and save it as CSV UTF-8"
        ) from None
    except (NotImplementedError, RuntimeError, EOFError, zlib.error):
        raise ValueError("it is encrypted or packed in an unknown way; save it as CSV UTF-8") from None
    if "xl/workbook.xml" not in parts:
        kind = "an OpenDocument table" if "content.xml" in parts else "a zip archive without a workbook"
        raise ValueError(f"it is {kind}; save the table as .xlsx or as CSV UTF-8")
    for part in parts.values():
        if part.file_size > MAX_PART:
            size = f"{MAX_PART >> 20} MiB"
            raise ValueError(f"its part {part.filename} is larger than {size}; save the table as CSV UTF-8")


def _rows(sheet: Any) -> Iterator[Cells]:
    sheet.reset_dimensions()  # some programs write wrong dimensions
    width = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        if len(row) > MOST:
            raise ValueError(f"sheet {sheet.title} has more than {MOST} columns, so it is not a table of vases")
        cells = [_text(value) for value in row]
        if any(cell.strip() for cell in cells):
            width = max(width, len(cells))
            yield f"sheet {sheet.title}, row {number}", cells + [""] * (width - len(cells))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, str) and value.startswith("#") and value.endswith(("!", "?", "/A"))):
        return ""  # #REF!, #NAME?, #N/A
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date) else cell_text(value)


def parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the values of each row of a Parquet file.

    If a cell holds a picture in Hugging Face's format, the bytes of the picture are dropped and its path is kept. Raise
    ValueError if the file can't be read, or if a picture has no path.
    """
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet as reader

    try:
        file = reader.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", {key: _plain(value) for key, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        refuse_failed(error, path)
        raise ValueError(f"it is not a complete Parquet file ({str(error)[:120]}); write it again") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes) and not value.get("path"):
            raise ValueError("it holds pictures without names; save the pictures as files and name them in a column")
        return {key: _plain(inner) for key, inner in value.items() if key != "bytes"}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
