"""Caption files in the original's format:

`[{"images": [...], "caption": ..., "data_by": ...}]`, one or several models a file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vasevqa.errors import DataError

Key = tuple[str, ...]  # the file names of the images, sorted


@dataclass
class Captions:
    """One model's captions by images, and what was left out."""

    name: str
    by: dict[Key, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def read_captions(path: Path) -> list[Captions]:
    """The captions in a file, or in all .json files of a folder: a set for each `data_by` (or file name).

    DataError for a broken file.
    """
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path} holds no caption file (.json); give files in the format [{{images, caption, data_by}}]."
        )
    found: dict[str, Captions] = {}
    for file in files:
        for number, entry in enumerate(_entries(file), 1):
            where = f"{file.name}, entry {number}"
            if not isinstance(entry, dict):
                raise DataError(f"{where} is no object; the format is [{{images, caption, data_by}}].")
            name = str(entry.get("data_by") or file.stem)
            captions = found.setdefault(name, Captions(name))
            key = _key(entry.get("images"))
            text = entry.get("caption")
            if not key:
                captions.problems["without images"].append(where)
            elif not isinstance(text, str) or not text.strip():
                captions.problems["without a caption"].append(where)
            elif key in captions.by:
                captions.problems["doubled"].append(f"{where}: {', '.join(key)}")
            else:
                captions.by[key] = text.strip()
    return list(found.values())


def _entries(file: Path) -> list[Any]:
    try:
        loaded = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not valid JSON ({error}); correct it or leave it out.") from None
    if not isinstance(loaded, list):
        raise DataError(f"{file} is no list; the format is [{{images, caption, data_by}}].")
    return loaded


def _key(images: Any) -> Key:
    if isinstance(images, str):
        images = [images]
    if not isinstance(images, list):
        return ()
    return tuple(sorted({PurePosixPath(str(image).replace("\\", "/")).name for image in images if image}))


def pair(captions: Captions, truth: Captions) -> list[tuple[Key, str, str]]:
    """(images, caption, truth) in the truth's order; what has no partner is noted among the problems."""
    pairs = []
    for key, right in truth.by.items():
        if key in captions.by:
            pairs.append((key, captions.by[key], right))
        else:
            captions.problems["missing"].append(", ".join(key))
    captions.problems["unknown images"] += [", ".join(key) for key in captions.by if key not in truth.by]
    return pairs
