"""Read tables as mappings from heading to cell. Each row comes with its place (its line, or its sheet and row)."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from vasevqa.dataset.columns import MOST, Columns
from vasevqa.dataset.problems import Problem

Cells = tuple[str, list[str]]  # the place of a row, and its texts
DELIMITERS = ",;\t|"
BEFORE = 10  # maximum number of lines before the headings


def delimited(name: str, text: str, columns: Columns, problems: list[Problem]) -> Iterator[Cells]:
    """Yield the rows of a text in CSV or a similar format, each with its place.

    If a quotation mark is never closed, its row is dropped and reported as a problem. The next lines are still read.
    """
    csv.field_size_limit((1 << 31) - 1)
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text)
    start = 0
    told = re.fullmatch(r'"?sep=(.)"?', lines[0].strip("\r\n")) if lines else None
    if told:
        start = 1
    delimiter = told[1] if told else _delimiter(name, lines[:BEFORE], columns)
    at = start

    def feed() -> Iterator[str]:
        nonlocal at
        while at < len(lines):
            at += 1
            yield lines[at - 1]

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while at < len(lines):
        begin = at
        where = f"{name}, line {begin + 1}"
        try:
            cells = next(reader)
            swallowed = at - begin > 1 and _rows_inside(lines[begin + 1 : at], len(cells), delimiter)
        except StopIteration:
            break
        except csv.Error:
            cells, swallowed = [], at - begin > 1 or at >= len(lines)
            if at - begin == 1:
                cells = next(csv.reader(lines[begin:at], delimiter=delimiter), [])
                swallowed = bool(re.search(r"[\r\n]", "".join(cells)))
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        if swallowed:
            what = "a quotation mark opens here and is never closed, so the row is dropped; double or remove the mark"
            problems.append(Problem("lone quote", where, what))
            at = begin + 1
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        elif any(cell.strip() for cell in cells):
            yield where, cells


def _rows_inside(lines: Sequence[str], width: int, delimiter: str) -> bool:
    """Return whether lines inside a quoted cell look like rows of the table.

    If they do, the cell's quotation mark was never closed.
    """
    return width > 2 and all(line.count(delimiter) >= width - 1 for line in lines)


def _delimiter(name: str, lines: Sequence[str], columns: Columns) -> str:
    # The delimiter is chosen by the headings. csv.Sniffer guesses wrong if an apostrophe is next to a comma.
    best = "\t" if name.lower().endswith(".tsv") else ","
    most = (0, 0)
    for delimiter in dict.fromkeys(best + DELIMITERS):
        for line in lines:
            cells = next(csv.reader([line[:1_000_000]], delimiter=delimiter), [])
            fits = (len(columns.fields(cells[:MOST]) - {""}), len(cells))
            if fits > most:
                best, most = delimiter, fits
    return best


def keyed(
    name: str, rows: Iterable[Cells], columns: Columns, problems: list[Problem]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row as a mapping from heading to cell.

    Lines before the headings are skipped. Rows whose number of cells differs from the number of headings are dropped.
    Both are reported as problems. Raise ValueError if none of the first `BEFORE` lines has known headings, or if two
    headings are equal.
    """
    rest = iter(rows)
    header: list[str] = []
    first: list[str] = []
    seen: list[Cells] = []
    for where, cells in rest:
        if len(cells) > MOST:
            raise ValueError(f"it has {len(cells)} columns; a table of vases has at most {MOST}")
        first = first if len(first) > 1 else cells
        seen.append((where, cells))
        try:
            columns.check(filter(None, (cell.strip() for cell in cells)))
        except ValueError:
            if len(seen) == BEFORE:
                break
            continue
        header = [cell.strip() for cell in cells]
        break
    if not header:
        columns.check(filter(None, (cell.strip() for cell in first)))
        return
    problems += [Problem("line before the headings", where, " ".join(cells)[:80]) for where, cells in seen[:-1]]
    twice = next((name for name, count in Counter(filter(None, header)).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"its headings contain '{twice}' twice")
    while header and not header[-1]:
        header.pop()
    for where, cells in chain(rest):
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(header):
            what = f"it has {len(cells)} columns, but the first line has {len(header)}"
            problems.append(Problem("broken row", where, what))
        else:
            yield where, {heading: cell for heading, cell in zip(header, cells, strict=True) if heading or cell}
