"""Read caption files in the original project's format.

The format is `[{"images": [...], "caption": ..., "data_by": ...}]`. A file may hold captions by one or several models.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vasevqa.errors import DataError
from vasevqa.evaluation.original import Caption

Key = tuple[str, ...]  # the file names of the images, sorted


@dataclass
class Captions:
    """The captions by one model.

    `entries` holds all captions in the order of the files. `by` maps the names of an entry's images to the caption.
    `problems` maps each kind of problem to the entries or images that have this problem.
    """

    name: str
    entries: list[Caption] = field(default_factory=list)
    by: dict[Key, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def read_captions(path: Path) -> list[Captions]:
    """Return the captions in a file, or in all .json files of a folder, grouped by model.

    The name of the model is `data_by`, or the file name if `data_by` is missing. Raise DataError if a file is invalid.
    """
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path} holds no caption file (.json); give files in the format `[{{images, caption, data_by}}]`."
        )
    sets: dict[str, Captions] = {}
    for file in files:
        for number, entry in enumerate(_entries(file), 1):
            where = f"{file.name}, entry {number}"
            if not isinstance(entry, dict):
                raise DataError(f"{where} is not an object; write the entry as `{{images, caption, data_by}}`.")
            name = str(entry.get("data_by") or file.stem)
            captions = sets.setdefault(name, Captions(name))
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
            if key and isinstance(text, str):
                captions.entries.append(Caption(_first(entry["images"]), text))
    return list(sets.values())


def _entries(file: Path) -> list[Any]:
    try:
        loaded = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not valid JSON ({error}); correct or remove the file.") from None
    if not isinstance(loaded, list):
        raise DataError(f"{file} is not a list; write the file in the format `[{{images, caption, data_by}}]`.")
    return loaded


def _first(images: Any) -> str:
    return str(images if isinstance(images, str) else images[0])


def _key(images: Any) -> Key:
    if isinstance(images, str):
        images = [images]
    if not isinstance(images, list):
        return ()
    return tuple(sorted({PurePosixPath(str(image).replace("\\", "/")).name for image in images if image}))


def pair(captions: Captions, truth: Captions) -> list[tuple[Key, str, str]]:
    """Return (images, caption, true caption) for all images that have both captions, in the order of `truth`.

    Images with only one of the two captions are added to the problems of `captions`.
    """
    pairs = []
    for key, right in truth.by.items():
        if key in captions.by:
            pairs.append((key, captions.by[key], right))
        else:
            captions.problems["missing"].append(", ".join(key))
    captions.problems["unknown images"] += [", ".join(key) for key in captions.by if key not in truth.by]
    return pairs
