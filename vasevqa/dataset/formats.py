"""Recognize the format of an annotation file by its content, and read the file.

The file's name is used only for a text file whose content fits several formats.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vasevqa.dataset import json_texts, tables, workbooks
from vasevqa.dataset.columns import Columns
from vasevqa.dataset.problems import Problem
from vasevqa.storage import patiently, refuse_failed

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet", ".gz", ".xls", ".ods")
MAX_BYTES = 2 << 30
_GZIP, _ZIP, _PARQUET, _OLD_EXCEL = b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def entries(
    name: str, path: Path, records: str | None, columns: Columns, problems: list[Problem]
) -> Iterator[tuple[str, Any]]:
    """Yield each row of a file as (place in the file, row). Raise ValueError if the file can't be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 30} GiB")
        start = patiently(lambda: _start(path), path)
        if start == _PARQUET:
            yield from _checked((f"{name}, {where}", row) for where, row in workbooks.parquet(path))
            return
        if start == _ZIP:
            yield from _workbook(name, path, columns, problems)
            return
        if start == _OLD_EXCEL:
            raise ValueError("it is a workbook in the format of Excel 97 to 2003; save it as .xlsx or as CSV UTF-8")
        text = _text(name, _bytes(path, start), problems)
    except OSError as error:
        refuse_failed(error, path)
        raise ValueError(f"can't be read: {error.strerror or error}") from None
    if _is_json(name, text):
        yield from json_texts.entries(name, text, records, columns, problems)
    elif text.lstrip()[:1] == "<":
        raise ValueError("it is XML or HTML; export the table as CSV UTF-8 or as JSON")
    else:
        yield from tables.keyed(name, tables.delimited(name, text, columns, problems), columns, problems)


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4)


def _checked(rows: Iterator[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return list(rows)  # read completely, so that a truncated file gives no rows


def _workbook(name: str, path: Path, columns: Columns, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    """Yield the rows of the first sheet that has known headings. Report all other sheets as problems."""
    sheets = workbooks.sheets(path)
    if not sheets:
        raise ValueError("all its sheets are empty; save the workbook again")
    chosen, first_error = None, None
    for sheet, rows in sheets:
        tried: list[Problem] = []
        named = [(f"{name}, {where}", cells) for where, cells in rows]
        try:
            keyed = list(tables.keyed(name, named, columns, tried)) if chosen is None else []
        except ValueError as error:
            first_error = first_error or ValueError(f"sheet {sheet}: {error}")
            problems.append(Problem("sheet not read", f"{name}, sheet {sheet}", str(error)))
            continue
        if chosen is None:
            chosen = keyed
            problems += tried
        else:
            problems.append(Problem("sheet not read", f"{name}, sheet {sheet}", "an earlier sheet has the annotations"))
    if chosen is None:
        raise first_error or ValueError("none of its sheets can be read")
    yield from chosen


def _bytes(path: Path, start: bytes) -> bytes:
    if not start.startswith(_GZIP):
        return path.read_bytes()
    try:
        with gzip.open(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"its gzip compression is damaged ({error}); compress it again") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 30} GiB when unpacked")
    if data.startswith((_ZIP, _PARQUET)):
        raise ValueError("it is a gzip-compressed workbook or Parquet file; decompress it with gunzip")
    return data


def _text(name: str, data: bytes, problems: list[Problem]) -> str:
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None) or _without_mark(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or data.lstrip()[:1] in (b"[", b"{"):
            raise ValueError(f"not {encoding.upper().removesuffix('-SIG')} (byte {error.start})") from None
        first = error.start
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise ValueError(f"it is neither UTF-8 (see byte {first}) nor Windows' cp1252; save it as UTF-8") from None
    what = f"not UTF-8 (byte {first}); the whole file is read as Windows' cp1252; check letters with accents"
    problems.append(Problem("encoding guessed", name, what))
    return text


def _without_mark(data: bytes) -> str:
    """Return the encoding of a text that has no byte order mark.

    In UTF-16, every Latin letter has a NUL byte. These bytes are either all at even or all at odd positions. If a text
    has many NUL bytes, and nearly all of them are at even positions or nearly all at odd positions, the encoding is
    UTF-16. Otherwise the encoding is UTF-8.
    """
    start = data[:2000]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if len(start) > 3 and max(even, odd) > len(start) / 5 and min(even, odd) * 10 < max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"


def _is_json(name: str, text: str) -> bool:
    stripped = text.lstrip()
    if not stripped or stripped[0] in "[{":
        names = PurePosixPath(name.lower().removesuffix(".gz"))
        return bool(stripped) or names.suffix in (".json", ".jsonl", ".ndjson", "")
    if ".json" not in name.lower() and ".ndjson" not in name.lower():
        return False
    line = stripped.splitlines()[0]
    if not any(delimiter in line for delimiter in tables.DELIMITERS):
        return True
    try:
        json.loads(line)
    except ValueError:
        return line[0] == "'"
    return True
