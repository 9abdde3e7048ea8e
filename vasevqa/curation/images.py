"""Find photographs in a folder, and count the other files. The module curation.decoding opens the photographs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vasevqa.curation.decoding import MISSING, Unreadable, decode_image, open_image
from vasevqa.folders import (
    FOREIGN,
    HIDDEN,
    OUTSIDE,
    SUFFIXES,
    PassedOver,
    boundary_of,
    is_photograph,
    leads_out,
    passed_over,
)
from vasevqa.text import printable

__all__ = [
    "SUFFIXES",
    "ImageFile",
    "PassedOver",
    "Quarantined",
    "Unreadable",
    "decode_image",
    "find_images",
    "open_image",
]


@dataclass(frozen=True)
class ImageFile:
    """A file with an image's suffix. `name` is the POSIX path relative to the folder that was searched.

    `problem` is the reason why the file must not be opened (a link out of the volume, or a name that isn't valid
    UTF-8). It is empty if the file may be opened.
    """

    path: Path
    name: str
    problem: str = ""


@dataclass(frozen=True)
class Quarantined:
    """A file that can't be read as an image. Such a file is not scored, not counted as rejected, and never chosen."""

    name: str
    path: Path
    reason: str


def find_images(folder: Path, boundary: Path | None = None, others: PassedOver | None = None) -> Iterator[ImageFile]:
    """Yield every image file below `folder`. The order depends on the names only.

    If several symbolic links lead to one image, only the first link is yielded. A link that leads out of `boundary`
    (default: folders.boundary_of) is not followed. If such a link has an image's suffix or leads to a folder, it is
    yielded with a `problem`. A link to a file inside `folder` is skipped if the search also finds the file under its
    own name. Otherwise the link is followed, because git-annex and model hubs store content in hidden folders, in files
    without suffixes. `others` counts files without an image's suffix, images whose format needs a missing package,
    hidden images, and files and folders of other programs.
    """
    inside = (boundary or boundary_of(folder)).resolve()
    yield from _walk(
        folder, "", _Search(folder.resolve(), inside, set(), others if others is not None else PassedOver())
    )


@dataclass
class _Search:
    root: Path
    boundary: Path
    seen: set[tuple[int, int]]
    others: PassedOver


def _walk(folder: Path, prefix: str, search: _Search) -> Iterator[ImageFile]:
    identity = folder.stat()
    if (identity.st_dev, identity.st_ino) in search.seen:
        return
    search.seen.add((identity.st_dev, identity.st_ino))
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    folders = []
    for entry in entries:
        name = prefix + entry.name
        if reason := passed_over(entry.name) or (HIDDEN if entry.name.startswith(".") else ""):
            if reason == FOREIGN or is_photograph(entry.name):
                search.others.add(name, reason)
            continue
        kind = _kind(entry, search)
        if kind == "folder":
            folders.append((Path(entry.path), name))
        elif kind == "outside":
            yield ImageFile(Path(entry.path), printable(name), OUTSIDE)
        elif kind == "other":
            search.others.add(name, _suffix(entry.name))
        elif kind == "image" and (lack := MISSING.get(Path(entry.name).suffix.lower())):
            search.others.add(name, f"{_suffix(entry.name)} need {lack}")
        elif kind == "image":
            problem = "" if _is_utf8(name) else "the file name is not valid UTF-8; rename the file"
            yield ImageFile(Path(entry.path), printable(name), problem)
    for path, name in folders:
        yield from _walk(path, name + "/", search)


def _kind(entry: os.DirEntry[str], search: _Search) -> str:
    """Return the kind of a directory entry: 'folder', 'image', 'outside', or 'other' (any other file).

    'outside' is a link that leads out of the boundary and that has an image's suffix or leads to a folder. Return ''
    for an entry that must be skipped, because the search yields or counts the same file under a different name.
    """
    named = "image" if is_photograph(entry.name) else "other"
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "" if named == "image" and _was_seen(entry.stat(follow_symlinks=False), search) else named
    path = Path(entry.path)
    if leads_out(path, search.boundary):
        return "outside" if named == "image" or path.is_dir() else "other"
    if path.is_dir():
        return "folder"
    target = Path(os.path.realpath(path))
    if target.is_relative_to(search.root) and _is_met(target, search.root, named):
        return ""
    if named == "image" and target.exists():
        linked = target.stat()
        if _was_seen(linked, search):
            return ""
        search.seen.add((linked.st_dev, linked.st_ino))
    return named


def _is_met(target: Path, root: Path, named: str) -> bool:
    """Return whether the search also finds a link's target under the target's own name.

    `named` is 'image' if the link's name has an image's suffix, and otherwise 'other'. For 'image', the target's own
    name must have the suffix of an image that can be read, too.
    """
    hidden = any(passed_over(part) or part.startswith(".") for part in target.relative_to(root).parts)
    is_read = is_photograph(target.name) and target.suffix.lower() not in MISSING
    return target.is_file() and not hidden and (is_read or named == "other")


def _was_seen(status: os.stat_result, search: _Search) -> bool:
    """Return whether an earlier link led to this file."""
    return (status.st_dev, status.st_ino) in search.seen


def _suffix(name: str) -> str:
    return Path(name).suffix.lower() or "without a suffix"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
