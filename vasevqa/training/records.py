"""Annotations in the formats that people have, as records: what is known of a vase, and what was asked and answered about pictures.

Read are a JSON list (or an object by vase id), JSON lines and CSV of attributes per vase; the original's list of
`{images, caption, conversations}`; and ShareGPT conversations (`from`/`value`, or `role`/`content`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ATTRIBUTES = ("fabric", "technique", "shape", "provenance", "date", "attribution", "decoration", "caption")
IDS = ("vase_id", "vase", "id", "uuid")
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant", "system": "system"}
MAX_BYTES = 2 << 30
UNKNOWN = ("", "none", "null", "nan", "n/a", "unknown", "-", "?")

Turn = tuple[str, str]  # role and text


@dataclass(frozen=True)
class Problem:
    """Something that was left out: what kind, where it stands, and what it was."""

    kind: str
    where: str
    what: str


@dataclass(frozen=True)
class Record:
    """One annotation. `images` as they are written; `turns` is a conversation, if there is one."""

    where: str
    vase: str | None = None
    images: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()


def read_annotations(path: Path) -> tuple[list[Record], list[Problem]]:
    """The records of a file, or of all annotation files in a folder (by name), and what could not be read."""
    records: list[Record] = []
    problems: list[Problem] = []
    sources = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES and entry.is_file()) if path.is_dir() else [path]
    if not sources:
        problems.append(Problem("unreadable file", str(path), f"the folder holds no annotation file ({', '.join(SUFFIXES)})"))
    for source in sources:
        try:
            text = _text(source)
            entries = list(_entries(source, text, problems))
        except ValueError as error:
            problems.append(Problem("unreadable file", source.name, str(error)))
            continue
        for where, entry in entries:
            records += _record(where, entry, problems)
    return records, problems


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 30} GiB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None


def _entries(path: Path, text: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield f"{path.name}, line {number}", json.loads(line)
                except ValueError as error:
                    problems.append(Problem("broken JSON", f"{path.name}, line {number}", str(error)))
    elif kind in (".csv", ".tsv"):
        yield from _table(path, text, problems)
    else:
        try:
            loaded = json.loads(text)
        except json.JSONDecodeError as error:
            problems.append(Problem("broken JSON", f"{path.name}, line {error.lineno}", f"{error.msg} (column {error.colno})"))
            return
        if isinstance(loaded, dict) and not set(loaded) & {*ATTRIBUTES, "images", "conversations", "messages"}:
            loaded = [{"vase_id": key, **value} if isinstance(value, dict) else value for key, value in loaded.items()]
        elif isinstance(loaded, dict):
            loaded = [loaded]
        if not isinstance(loaded, list):
            raise ValueError("neither a list nor an object by vase id")
        for number, entry in enumerate(loaded, 1):
            yield f"{path.name}, entry {number}", entry


def _table(path: Path, text: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    try:
        dialect: Any = csv.excel_tab if path.suffix.lower() == ".tsv" else csv.Sniffer().sniff(text[:4096], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    reader = csv.DictReader(io.StringIO(text), dialect=dialect)
    header = [str(name).strip().lower() for name in reader.fieldnames or []]
    if not set(header) & {*IDS, "image", "images"}:
        raise ValueError(f"its first line names no column {', '.join(IDS)} or images")
    reader.fieldnames = header
    for row in reader:
        where = f"{path.name}, line {reader.line_num}"
        if None in row or None in row.values():
            problems.append(Problem("broken row", where, "it has another number of columns than the first line"))
        else:
            yield where, row


def _record(where: str, entry: Any, problems: list[Problem]) -> Iterator[Record]:
    if not isinstance(entry, dict):
        problems.append(Problem("broken row", where, f"a {type(entry).__name__} where an object is needed"))
        return
    nested = entry.get("attributes")
    known = {**entry, **nested} if isinstance(nested, dict) else entry
    vase = next((str(known[name]).strip().lower() for name in IDS if known.get(name) not in (None, "")), None)
    images = _images(entry)
    attributes = {}
    for name in ATTRIBUTES:
        value = known.get(name)
        if isinstance(value, list):
            value = ", ".join(str(item) for item in value)
        if value is None or isinstance(value, dict):
            continue
        if str(value).strip().lower() in UNKNOWN:
            problems.append(Problem("empty answer", where, f"{name} says nothing"))
        else:
            attributes[name] = " ".join(str(value).split())
    turns = _turns(where, entry.get("conversations") or entry.get("messages"), problems)
    if not attributes and not turns:
        problems.append(Problem("empty row", where, "neither attributes nor a conversation with answers"))
    elif vase is None and not images:
        problems.append(Problem("row without an image", where, f"it names neither images nor a vase ({', '.join(IDS)})"))
    else:
        yield Record(where, vase, images, attributes, turns)


def _images(entry: Mapping[str, Any]) -> tuple[str, ...]:
    value = entry.get("images") or entry.get("image") or ()
    if isinstance(value, str):
        value = [part.strip() for part in value.split(";")] if ";" in value else [value]
    found = [item.get("path") or item.get("url") if isinstance(item, dict) else item for item in value]
    return tuple(str(item) for item in found if item)


def _turns(where: str, value: Any, problems: list[Problem]) -> tuple[Turn, ...]:
    """The turns up to the last answer that says something; () without any."""
    if value is None:
        return ()
    if not isinstance(value, list):
        problems.append(Problem("broken row", where, "its conversation is no list"))
        return ()
    turns: list[Turn] = []
    for turn in value:
        role = ROLES.get(str(turn.get("from") or turn.get("role")).lower()) if isinstance(turn, dict) else None
        text = (turn.get("value") or turn.get("content") or "") if isinstance(turn, dict) else ""
        if role is None or not isinstance(text, str):
            problems.append(Problem("broken row", where, f"a turn by nobody known: {str(turn)[:80]}"))
            return ()
        if role == "assistant" and text.strip().lower() in UNKNOWN:
            problems.append(Problem("empty answer", where, "an answer in the conversation says nothing"))
            if turns and turns[-1][0] == "user":
                turns.pop()
            continue
        turns.append((role, text.strip()))
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    order = [role for role, _ in turns if role != "system"]
    if order != ["user", "assistant"] * (len(order) // 2):
        problems.append(Problem("broken row", where, "questions and answers don't take turns"))
        return ()
    return tuple(turns)
