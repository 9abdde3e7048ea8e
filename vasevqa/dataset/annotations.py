"""Read annotation files, which describe the attributes of vases or hold conversations about pictures.

dataset/formats.py reads the file formats, and dataset/columns.py maps column headings to fields. A conversation may
have the format of the original project (a list of `{images, caption, conversations}`), of ShareGPT (with the keys
`from` and `value`, or `role` and `content`), of LLaVA, or of ms-swift.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vasevqa.curation.file_names import plain
from vasevqa.dataset import formats
from vasevqa.dataset.columns import IDS, MOST, RIGHTS, Columns
from vasevqa.dataset.formats import SUFFIXES
from vasevqa.dataset.problems import Problem
from vasevqa.dataset.talks import Turn, answered, joined_parts, part_images, says_nothing, talk
from vasevqa.reward.vocabulary import ATTRIBUTES
from vasevqa.text import IMAGE_TAG, cell_text, printable

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
MEDIA = re.compile(r"<(?:image|video|audio)>")  # ms-swift expects one file for each such tag
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL | re.IGNORECASE)
_SPACE = re.compile(r"[^\S\x1c-\x1f]+")  # not ASCII's separators: dataset/texts.py replaces them by "; "
WHOLE_ROWS = (
    "broken JSON",
    "broken row",
    "lone quote",
    "key given twice",
)  # problems for which the whole entry is dropped

__all__ = ["MEDIA", "Annotations", "Problem", "Record", "Turn", "read_annotations"]


@dataclass(frozen=True)
class Record:
    """One annotation.

    `where` is its place in the file. `images` holds the names of images as the file spells them. `turns` holds the
    turns of the conversation, or () if the annotation has no conversation.
    """

    where: str
    vase: str | None = None
    images: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()
    rights: Mapping[str, str] = field(default_factory=dict)  # licence, rights holder, credit line, source


@dataclass
class Annotations:
    """The records in the annotation files, and the problems that were found in these files.

    `unread` is the number of entries that could not be read as records.
    """

    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unread: int = 0


def read_annotations(path: Path, columns: Columns | None = None, records: str | None = None) -> Annotations:
    """Return the records and the problems in a file, or in all annotation files of a folder.

    The files of a folder are read in the order of their names. `columns` maps headings to fields, and it counts the
    rows in which each heading is used. If a file holds a JSON object, `records` names the list of records in this
    object. Raise ConfigError if the user named a heading that no file has.
    """
    columns = columns if columns is not None else Columns()
    told = Annotations()
    problems = told.problems
    sources = _sources(path)
    if not sources:
        problems.append(
            Problem("unreadable file", str(path), f"the folder holds no annotation file ({', '.join(SUFFIXES)})")
        )
    for name, source in sources:
        before = len(problems)
        try:
            entries = list(formats.entries(name, source, records, columns, problems))
            _check_keys(entries, columns)
        except (ValueError, RecursionError) as error:
            problems.append(
                Problem(
                    "unreadable file", name, "nested too deeply" if isinstance(error, RecursionError) else str(error)
                )
            )
            continue
        told.unread += len({problem.where for problem in problems[before:] if problem.kind in WHOLE_ROWS})
        for where, entry in entries:
            try:
                record = _record(where, entry, columns, problems)
            except RecursionError:
                record = None
                problems.append(Problem("broken row", where, "nested too deeply"))
            if record is None:
                told.unread += 1
            else:
                told.records.append(record)
    columns.check_given()
    return told


def _sources(path: Path) -> list[tuple[str, Path]]:
    """Return the annotation files below `path`, sorted by name. Hidden files (of editors or macOS) are skipped."""
    if not path.is_dir():
        return [(path.name, path)]
    entries = [
        (entry.relative_to(path), entry)
        for entry in path.rglob("*")
        if entry.suffix.lower() in SUFFIXES and entry.is_file()
    ]
    return sorted(
        (printable(name.as_posix()), entry)
        for name, entry in entries
        if not any(part.startswith((".", "~$")) for part in name.parts)  # ~$: the lock file of an open workbook
    )


def _check_keys(entries: list[tuple[str, Any]], columns: Columns) -> None:
    """Raise ValueError if the keys of the entries show that the entries don't describe vases.

    The entries need a key for a vase or an image, and a key for an attribute or a conversation. All entries together
    may have at most `MOST` different keys.
    """
    keys: dict[str, None] = {}
    for _, entry in entries:
        if isinstance(entry, dict):
            keys.update(dict.fromkeys(map(str, entry)))
            if isinstance(entry.get("attributes"), dict):
                keys.update(dict.fromkeys(map(str, entry["attributes"])))
    if len(keys) > MOST:
        raise ValueError(f"it has {len(keys)} different keys; an annotation file may have at most {MOST}")
    if keys:
        columns.check(keys)


def _record(where: str, entry: Any, columns: Columns, problems: list[Problem]) -> Record | None:
    """Return the record of an entry. If no record can be made from the entry, add a problem and return None."""
    if not isinstance(entry, dict):
        problems.append(Problem("broken row", where, f"it is a {type(entry).__name__}, not an object"))
        return None
    try:
        json.dumps(entry, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problems.append(Problem("broken row", where, "a lone surrogate, which UTF-8 can't encode"))
        return None
    entry = columns.rename({str(name): value for name, value in entry.items()})
    nested = entry.get("attributes")
    known = entry
    if isinstance(nested, dict):
        known = {**entry, **columns.rename({str(name): value for name, value in nested.items()})}
    ids = (cell_text(known[name]) for name in IDS if isinstance(known.get(name), str | int | float))
    vase = next((plain(value) for value in ids if not says_nothing(value)), None)
    images = _images(entry)
    if images is None:
        problems.append(Problem("broken row", where, "its images are not a list of paths"))
        return None
    attributes = _attributes(where, known, problems)
    turns = _turns(where, talk(entry), problems)
    if not attributes and not turns:
        problems.append(Problem("empty row", where, "it has neither attributes nor a conversation with answers"))
    elif vase is None and not images:
        problems.append(
            Problem("row without an image", where, f"it names neither images nor a vase ({', '.join(IDS)})")
        )
    else:
        return Record(where, vase, images, attributes, turns, _rights(known))
    return None


def _attributes(where: str, known: Mapping[str, object], problems: list[Problem]) -> dict[str, str]:
    attributes = {}
    for name in ATTRIBUTES:
        value = known.get(name)
        if value is None:
            continue
        if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
            value = ", ".join(cell_text(item) for item in value if item is not None)
        if isinstance(value, list | dict):
            problems.append(Problem("broken value", where, f"{name} is neither a text nor a list of texts"))
            continue
        answer = _answer(cell_text(value))
        if says_nothing(answer):
            problems.append(Problem("empty answer", where, f"{name} is empty or a placeholder"))
        elif MEDIA.search(answer):
            problems.append(Problem("broken value", where, f"{name} holds a tag such as {IMAGE_TAG}"))
        else:
            attributes[name] = _SPACE.sub(" ", answer).strip()
    return attributes


def _rights(known: Mapping[str, object]) -> dict[str, str]:
    rights = {name: known[name] for name in RIGHTS if isinstance(known.get(name), str | int | float)}
    if str(rights.get("licence")).lower() in ("true", "false"):  # the Metropolitan Museum's "Is Public Domain"
        rights["licence"] = "public domain" if str(rights["licence"]).lower() == "true" else "not in the public domain"
    return {name: " ".join(cell_text(value).split()) for name, value in rights.items() if str(value).strip()}


def _answer(text: str) -> str:
    """Return an answer without its reasoning (<think>...</think>).

    Return "" if a <think> tag is never closed, or if a </think> tag was never opened.
    """
    told = _without_thoughts(text).strip()
    return "" if "<think>" in told.lower() or "</think>" in told.lower() else told


def _without_thoughts(text: str) -> str:
    """Return a text without its thoughts (<think>...</think>). A thought that is never closed stays."""
    # A tag that is never closed matches up to the end of the text, so that the search doesn't begin again at each tag.
    return _THOUGHT.sub(lambda found: "" if found[1] else found[0], text)


def _images(entry: Mapping[str, object]) -> tuple[str, ...] | None:
    value = entry.get("images") or entry.get("image") or part_images(entry.get("messages")) or ()
    if isinstance(value, str):
        value = [value]  # one cell may list several images; dataset/lookup.py splits it
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    paths = [item.get("path") or item.get("url") if isinstance(item, dict) else item for item in value]
    return tuple(str(item) for item in paths if item)


def _turns(where: str, value: Any, problems: list[Problem]) -> tuple[Turn, ...]:
    """Return the turns of a conversation up to the last non-empty answer.

    Return () if all answers are empty. If the conversation is invalid, add a problem and return ().
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        problems.append(Problem("broken row", where, "its conversation is not a list"))
        return ()
    turns: list[Turn] = []
    for number, turn in enumerate(value):
        role = ROLES.get(str(turn.get("from") or turn.get("role")).lower()) if isinstance(turn, dict) else None
        text = (turn.get("value") or joined_parts(turn.get("content")) or "") if isinstance(turn, dict) else ""
        wrong = _wrong_turn(role, text, number)
        if role is None or wrong:
            problems.append(Problem("broken row", where, f"{wrong}: {str(turn)[:80]}"))
            return ()
        turns.append((role, _answer(text) if role == "assistant" else text.strip()))
    kept = answered(turns, where, problems)
    order = [role for role, _ in kept if role != "system"]
    if order != ["user", "assistant"] * (len(order) // 2):
        problems.append(Problem("broken row", where, "its questions and answers do not alternate"))
        return ()
    return kept


def _wrong_turn(role: str | None, text: Any, number: int) -> str:
    if role is None:
        return "a turn by an unknown speaker"
    if role == "system" and number:
        return "a system turn after the first turn"
    if not isinstance(text, str):
        return "a turn whose content is not text"
    media = {match[0] for match in MEDIA.finditer(_without_thoughts(text) if role == "assistant" else text)}
    if media - {IMAGE_TAG}:
        return "a turn about a video or a sound"
    return f"{IMAGE_TAG} where no image is allowed" if media and role != "user" else ""
