"""Annotations in the formats that people have, as records: what is known of a vase, and what was asked and answered
about pictures.

Read are a JSON list (or an object by vase id), JSON lines and CSV of attributes per vase; the original's list of
`{images, caption, conversations}`; and ShareGPT conversations (`from`/`value`, or `role`/`content`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vasevqa.reward.vocabulary import ATTRIBUTES
from vasevqa.text import IMAGE_TAG

IDS = ("vase_id", "vase", "id", "uuid")
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
ALIASES = {"shape_name": "shape"}
MAX_BYTES = 2 << 30
MEDIA = re.compile(r"<(?:image|video|audio)>")  # each of them would make ms-swift look for one more file
THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
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
    sources = _sources(path)
    if not sources:
        problems.append(
            Problem("unreadable file", str(path), f"the folder holds no annotation file ({', '.join(SUFFIXES)})")
        )
    for name, source in sources:
        try:
            entries = list(_entries(name, _text(source), problems))
        except (ValueError, RecursionError) as error:
            problems.append(
                Problem(
                    "unreadable file", name, "nested too deeply" if isinstance(error, RecursionError) else str(error)
                )
            )
            continue
        for where, entry in entries:
            records += _record(where, entry, problems)
    return records, problems


def _sources(path: Path) -> list[tuple[str, Path]]:
    """Annotation files by their name below `path`; hidden ones (an editor's, a Mac's) are nobody's annotations."""
    if not path.is_dir():
        return [(path.name, path)]
    found = [
        (entry.relative_to(path), entry)
        for entry in path.rglob("*")
        if entry.suffix.lower() in SUFFIXES and entry.is_file()
    ]
    return sorted(
        (name.as_posix(), entry) for name, entry in found if not any(part.startswith(".") for part in name.parts)
    )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 30} GiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from None


def _entries(name: str, text: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    kind = PurePosixPath(name).suffix.lower()
    if kind == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut inside a text, at U+2028
            if line.strip():
                try:
                    yield f"{name}, line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
                    problems.append(Problem("broken JSON", f"{name}, line {number}", what))
    elif kind in (".csv", ".tsv"):
        yield from _table(name, text, problems)
    else:
        try:
            loaded = json.loads(text)
        except json.JSONDecodeError as error:
            problems.append(
                Problem("broken JSON", f"{name}, line {error.lineno}", f"{error.msg} (column {error.colno})")
            )
            return
        if isinstance(loaded, dict) and not {_key(key) for key in loaded} & {
            *ATTRIBUTES,
            "images",
            "conversations",
            "messages",
        }:
            loaded = [{"vase_id": key, **value} if isinstance(value, dict) else value for key, value in loaded.items()]
        elif isinstance(loaded, dict):
            loaded = [loaded]
        if not isinstance(loaded, list):
            raise ValueError("neither a list nor an object by vase id")
        for number, entry in enumerate(loaded, 1):
            yield f"{name}, entry {number}", entry


def _table(name: str, text: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    first = next((line for line in text.split("\n") if line.strip()), "")
    # From the first line alone: csv.Sniffer also guesses quotes, and wrongly where an apostrophe stands beside a comma.
    delimiter = "\t" if name.lower().endswith(".tsv") else max(",;\t", key=first.count)
    csv.field_size_limit((1 << 31) - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] = []
    while True:
        where = f"{name}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            problems.append(Problem("broken row", where, str(error)))
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [_key(cell) for cell in cells]
            _check_header(header)
        elif len(cells) != len(header):
            problems.append(
                Problem("broken row", where, f"it has {len(cells)} columns, the first line has {len(header)}")
            )
        else:
            yield where, dict(zip(header, cells, strict=True))
    if not header:
        _check_header(header)


def _check_header(header: list[str]) -> None:
    if not set(header) & {*IDS, "image", "images"}:
        raise ValueError(f"its first line names no column {', '.join(IDS)} or images")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"its first line names the column {twice} twice")


def _key(name: Any) -> str:
    key = "_".join(str(name).lower().replace("_", " ").split())
    return ALIASES.get(key, key)


def _record(where: str, entry: Any, problems: list[Problem]) -> Iterator[Record]:
    if not isinstance(entry, dict):
        problems.append(Problem("broken row", where, f"a {type(entry).__name__} where an object is needed"))
        return
    try:
        json.dumps(entry, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problems.append(Problem("broken row", where, "half a surrogate pair, which UTF-8 can't encode"))
        return
    entry = {_key(name): value for name, value in entry.items()}
    nested = entry.get("attributes")
    known = {**entry, **{_key(name): value for name, value in nested.items()}} if isinstance(nested, dict) else entry
    ids = (known[name] for name in IDS if isinstance(known.get(name), str | int | float))
    vase = next((str(value).strip().lower() for value in ids if str(value).strip()), None)
    images = _images(entry)
    if images is None:
        problems.append(Problem("broken row", where, "its images are not a list of paths"))
        return
    attributes = _attributes(where, known, problems)
    turns = _turns(where, entry.get("conversations") or entry.get("messages"), problems)
    if not attributes and not turns:
        problems.append(Problem("empty row", where, "neither attributes nor a conversation with answers"))
    elif vase is None and not images:
        problems.append(
            Problem("row without an image", where, f"it names neither images nor a vase ({', '.join(IDS)})")
        )
    else:
        yield Record(where, vase, images, attributes, turns)


def _attributes(where: str, known: Mapping[str, object], problems: list[Problem]) -> dict[str, str]:
    attributes = {}
    for name in ATTRIBUTES:
        value = known.get(name)
        if value is None:
            continue
        if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
            value = ", ".join(str(item) for item in value if item is not None)
        if isinstance(value, list | dict):
            problems.append(Problem("broken row", where, f"{name} is neither a text nor a list of texts"))
            continue
        answer = _answer(str(value))
        if answer.lower() in UNKNOWN:
            problems.append(Problem("empty answer", where, f"{name} says nothing"))
        elif MEDIA.search(answer):
            problems.append(Problem("broken row", where, f"{name} holds {IMAGE_TAG} or the like"))
        else:
            attributes[name] = " ".join(answer.split())
    return attributes


def _answer(text: str) -> str:
    """The answer without the reasoning before it; nothing is left of one that breaks off while thinking."""
    told = THOUGHT.sub("", text).strip()
    return "" if "<think>" in told.lower() or "</think>" in told.lower() else told


def _images(entry: Mapping[str, object]) -> tuple[str, ...] | None:
    value = entry.get("images") or entry.get("image") or ()
    if isinstance(value, str):
        value = [part.strip() for part in value.split(";")] if ";" in value else [value]
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    found = [item.get("path") or item.get("url") if isinstance(item, dict) else item for item in value]
    return tuple(str(item) for item in found if item)


def _turns(where: str, value: Any, problems: list[Problem]) -> tuple[Turn, ...]:
    """The turns up to the last answer that says something; () without any."""
    if value is None:
        return ()
    if not isinstance(value, list):
        problems.append(Problem("broken row", where, "its conversation is not a list"))
        return ()
    turns: list[Turn] = []
    shown = 0  # images of questions that were left out: the pictures keep their order only if they are shown later
    for turn in value:
        role = ROLES.get(str(turn.get("from") or turn.get("role")).lower()) if isinstance(turn, dict) else None
        text = (turn.get("value") or turn.get("content") or "") if isinstance(turn, dict) else ""
        wrong = _wrong_turn(role, text)
        if role is None or wrong:
            problems.append(Problem("broken row", where, f"{wrong}: {str(turn)[:80]}"))
            return ()
        text = _answer(text) if role == "assistant" else text.strip()
        if role == "assistant" and text.lower() in UNKNOWN:
            problems.append(Problem("empty answer", where, "an answer in the conversation is empty"))
            if turns and turns[-1][0] == "user":
                shown += turns.pop()[1].count(IMAGE_TAG)
            continue
        if role == "user" and shown:
            text, shown = IMAGE_TAG * shown + text, 0
        turns.append((role, text))
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    order = [role for role, _ in turns if role != "system"]
    if order != ["user", "assistant"] * (len(order) // 2):
        problems.append(Problem("broken row", where, "questions and answers do not alternate"))
        return ()
    return tuple(turns)


def _wrong_turn(role: str | None, text: Any) -> str:
    if role is None:
        return "a turn by an unknown speaker"
    if not isinstance(text, str):
        return "a turn whose content is not text"
    media = {match[0] for match in MEDIA.finditer(THOUGHT.sub("", text) if role == "assistant" else text)}
    if media - {IMAGE_TAG}:
        return "a turn about a video or a sound"
    return f"{IMAGE_TAG} where no image is allowed" if media and role != "user" else ""
