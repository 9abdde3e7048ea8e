"""Read rows from a JSON text.

The text may be a list of rows, JSON lines, a mapping from vase ids to rows, an API's response, or a COCO caption file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from vasevqa.dataset.columns import IDS, IMAGES, TALKS, Columns
from vasevqa.dataset.problems import Problem
from vasevqa.errors import ConfigError
from vasevqa.reward.vocabulary import ATTRIBUTES
from vasevqa.text import nearest

Found = tuple[str, Any]  # the place of an entry, and the entry
WRAPPERS = (
    "records data items results rows objects docs vases entries features annotations value hits".split()  # noqa: SIM905
)
_SPACE = re.compile(r"\s*")
NESTED = "nested too deeply"


class _Reader:
    """A JSON decoder that records invalid constants, such as NaN, and keys that have two different values."""

    def __init__(self) -> None:
        self.twice: list[str] = []
        self.constants: list[str] = []
        self._at, self._line = 0, 1
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, parse_int=_integer
        )

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) < len(pairs):
            first: dict[str, object] = {}
            self.twice += [key for key, value in pairs if first.setdefault(key, value) != value]
        return values

    def _constant(self, name: str) -> None:
        self.constants.append(name)

    def decode(self, text: str, at: int) -> tuple[Any, int]:
        """Return the value that begins at the position `at` in `text`, and the position after this value."""
        self.twice, self.constants = [], []
        value, end = self._decoder.raw_decode(text, _skip(text, at))
        return value, _skip(text, end)

    def line(self, text: str, at: int) -> int:
        """Return the line number of the position `at` in `text`.

        The lines are counted from the position of the previous call. This saves time in large files.
        """
        if at >= self._at:
            self._line += text.count("\n", self._at, at)
        else:
            self._line -= text.count("\n", at, self._at)
        self._at = at
        return self._line


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < 1000 else digits


def entries(name: str, text: str, records: str | None, columns: Columns, problems: list[Problem]) -> Iterator[Found]:
    """Yield each row of a JSON text as (place, row).

    `records` is the name of the list of rows, if the user gave it. Raise ConfigError if the text has no list of this
    name. Raise ValueError if the text is neither a list nor an object, or if it holds several lists of rows and
    `records` is None.
    """
    reader = _Reader()
    if name.lower().endswith((".jsonl", ".ndjson")) and not text.lstrip().startswith("["):
        yield from _lines(name, text, records, problems)
        return
    try:
        if text.lstrip().startswith("[") and records is None:
            yield from list(_list(name, text, reader, problems))
            return
        value, end = reader.decode(text, 0)
        if end < len(text):
            yield from _several(name, text, end, records, problems)
            return
    except json.JSONDecodeError as error:
        if _has_lines(text):
            yield from _lines(name, text, records, problems)
        else:
            problems.append(
                Problem("broken JSON", f"{name}, line {error.lineno}", f"{error.msg} (column {error.colno})")
            )
        return
    if _faults(name, text, 0, reader, problems) and not isinstance(value, dict):
        return
    yield from _numbered(name, _unwrapped(value, records, columns))


def _faults(name: str, text: str, at: int, reader: _Reader, problems: list[Problem]) -> bool:
    """Add the problems of the value that `reader` decoded last.

    Return True if a key in this value has two different values. The value must then be dropped.
    """
    for key in reader.twice:
        pattern = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:")
        places = [match.start() for match in islice(pattern.finditer(text, at), 2)]
        line = reader.line(text, places[-1] if places else at)
        problems.append(Problem("key given twice", f"{name}, line {line}", f"{key} has two values"))
    for constant in dict.fromkeys(reader.constants):
        line = reader.line(text, max(text.find(constant, at), at))
        problems.append(Problem("not a JSON value", f"{name}, line {line}", f"{constant}, read as null"))
    return bool(reader.twice)


def _list(name: str, text: str, reader: _Reader, problems: list[Problem]) -> Iterator[Found]:
    """Yield the entries of a JSON list.

    The entries are decoded one by one, so that each problem is reported with its line.
    """
    at, number = _skip(text, _skip(text, 0) + 1), 0
    while not text.startswith("]", at) or number:
        begin = at
        value, at = reader.decode(text, begin)
        number += 1
        if not (reader.twice or reader.constants) or not _faults(name, text, begin, reader, problems):
            yield f"{name}, entry {number}", value
        if text.startswith("]", at):
            break
        if not text.startswith(",", at):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _skip(text, at + 1)
    if _skip(text, at + 1) < len(text):
        raise json.JSONDecodeError("Extra data", text, _skip(text, at + 1))


def _has_lines(text: str) -> bool:
    """Return whether at least two of the first 1000 lines are complete JSON objects."""
    count = 0
    for line in text.split("\n")[:1000]:
        if line.startswith("{"):
            try:
                count += isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                continue
    return count > 1


def _lines(name: str, text: str, records: str | None, problems: list[Problem]) -> Iterator[Found]:
    reader = _Reader()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):  # splitlines would also cut at U+2028
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            value, end = reader.decode(line, 0)
            if end < len(line):
                raise json.JSONDecodeError("Extra data", line, end)
        except (ValueError, RecursionError) as error:
            what = NESTED if isinstance(error, RecursionError) else str(error)
            problems.append(Problem("broken JSON", where, what))
            continue
        for key in reader.twice:
            problems.append(Problem("key given twice", where, f"{key} has two values"))
        for constant in dict.fromkeys(reader.constants):
            problems.append(Problem("not a JSON value", where, f"{constant}, read as null"))
        if not reader.twice:
            yield from [(where, value)] if records is None else _numbered(where, _named(value, records))


def _numbered(where: str, rows: Iterable[Any]) -> Iterator[Found]:
    for number, row in enumerate(rows, 1):
        yield f"{where}, entry {number}", row


def _several(name: str, text: str, end: int, records: str | None, problems: list[Problem]) -> Iterator[Found]:
    """Yield the rows of a text that holds several JSON values, such as JSON lines. The first value ends at `end`."""
    if "\n" not in text[:end].rstrip() and _has_lines(text):
        yield from _lines(name, text, records, problems)
        return
    reader, number = _Reader(), 0
    at = 0
    while at < len(text):
        begin = at
        try:
            value, at = reader.decode(text, begin)
        except json.JSONDecodeError as error:
            problems.append(Problem("broken JSON", f"{name}, line {error.lineno}", error.msg))
            return
        except RecursionError:
            problems.append(Problem("broken JSON", f"{name}, line {reader.line(text, begin)}", NESTED))
            return
        if not _faults(name, text, begin, reader, problems):
            rows = _named(value, records) if records is not None else value if isinstance(value, list) else [value]
            for entry in rows:
                number += 1
                yield f"{name}, entry {number}", entry


def _unwrapped(value: Any, records: str | None, columns: Columns) -> list[Any]:
    if records is not None:
        return _named(value, records)
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ValueError("it is neither a list nor an object with vase ids as keys")
    coco = _coco(value)
    if coco is not None:
        return coco
    lists = dict(_lists(value))
    wanted = {*IDS, *IMAGES, *ATTRIBUTES}
    wrapped = {
        key: entries
        for key, entries in lists.items()
        if key.split(".")[-1].lower() in WRAPPERS and columns.fields(map(str, entries[0])) & wanted
    }
    if wrapped:
        return _only(wrapped)
    if columns.fields(map(str, value)) & {*ATTRIBUTES, *IMAGES, *TALKS}:
        return [value]
    by_vase = [entry for entry in value.values() if isinstance(entry, dict)]
    if by_vase and any(columns.fields(map(str, entry)) & {*ATTRIBUTES, *IMAGES, *TALKS} for entry in by_vase):
        return [{"vase_id": key, **entry} if isinstance(entry, dict) else entry for key, entry in value.items()]
    if lists:
        return _only(lists)
    return [{"vase_id": key, **entry} if isinstance(entry, dict) else entry for key, entry in value.items()]


def _only(lists: Mapping[str, list[Any]]) -> list[Any]:
    if len(lists) > 1:
        raise ValueError(f"it holds several lists ({', '.join(lists)}); choose one with --records")
    return next(iter(lists.values()))


def _lists(value: Mapping[str, Any], before: str = "", depth: int = 3) -> Iterator[tuple[str, list[Any]]]:
    """Yield the dotted name and the content of each list of objects in the first `depth` levels of a JSON object."""
    for key, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield f"{before}{key}", inner
        elif isinstance(inner, dict) and depth > 1:
            yield from _lists(inner, f"{before}{key}.", depth - 1)


def _named(value: Any, records: str) -> list[Any]:
    inner = value
    for part in [records] if isinstance(value, dict) and records in value else records.split("."):
        if not isinstance(inner, dict) or part not in inner:
            known = list(inner)[:40] if isinstance(inner, dict) else []
            raise ConfigError(
                f"records: '{records}' doesn't occur in the annotations, because there is no key '{part}'."
                f"{nearest(part, known)}"
            )
        inner = inner[part]
    if isinstance(inner, dict):
        return [{"vase_id": key, **entry} if isinstance(entry, dict) else entry for key, entry in inner.items()]
    if not isinstance(inner, list):
        raise ConfigError(
            f"records: '{records}' has the type {type(inner).__name__}; give the name of a list of objects."
        )
    return inner


def _coco(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the captions of a COCO file as rows (https://cocodataset.org/#format-data).

    Return None if the file doesn't have COCO's format.
    """
    images, captions = value.get("images"), value.get("annotations")
    if not isinstance(images, list) or not isinstance(captions, list):
        return None
    licences = {
        one.get("id"): one.get("name") or one.get("url") for one in value.get("licenses") or () if isinstance(one, dict)
    }
    by_id = {str(one.get("id")): one for one in images if isinstance(one, dict)}
    rows: list[Any] = []
    for caption in captions:
        if not isinstance(caption, dict) or "image_id" not in caption:
            rows.append(caption)
            continue
        image = by_id.get(str(caption["image_id"]), {})
        row = {key: text for key, text in caption.items() if key not in ("id", "image_id")}
        rows.append({**row, "image": image.get("file_name"), "licence": licences.get(image.get("license"))})
    return rows
