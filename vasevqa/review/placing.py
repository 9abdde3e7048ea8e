"""Copy labelled photographs to 0/ (low) and 1/ (high), the folders that train-classifier reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vasevqa import files
from vasevqa.curation.images import find_images
from vasevqa.errors import ConfigError
from vasevqa.review.labels import FILE
from vasevqa.review.photographs import Photograph

SIDES = ("0", "1")


def refuse_foreign(into: Path) -> None:
    """Raise ConfigError if `into` is not a folder, or if it holds labelled photographs that no review copied there."""
    if into.exists() and not into.is_dir():
        raise ConfigError(f"{into} is a file; give a folder as --into.")
    if (into / FILE).exists():
        return
    for side in SIDES:
        if (into / side).is_dir() and next(find_images(into / side), None) is not None:
            raise ConfigError(
                f"{into / side} holds photographs that no review placed there; give another folder as --into."
            )


def settle(into: Path, photograph: Photograph, digest: str, answer: bool | None) -> None:
    """Copy a photograph to the folder of its answer, 0/ or 1/, and remove its copy from the other folder.

    If `answer` is None, copies in both folders are removed. The copy is a reflink if the file system supports reflinks.
    If there is already a different picture at the path of the copy, the copy goes to a folder named after the digest.
    Raise ConfigError if there is a different picture in that folder, too.
    """
    wanted = None if answer is None else SIDES[answer]
    placed = False
    for side in SIDES:
        for known in _targets(into / side, photograph, digest):
            if known.is_file() and _is_same(known, photograph, digest):
                if side == wanted:
                    placed = True
                else:
                    known.unlink()
    if wanted is not None and not placed:
        free = (target for target in _targets(into / wanted, photograph, digest) if not target.exists())
        target = next(free, None)
        if target is None:
            raise ConfigError(
                f"{into / wanted} holds different pictures called {photograph.place}; move these pictures elsewhere."
            )
        files.copy(photograph.path, target)


def _targets(folder: Path, photograph: Photograph, digest: str) -> Iterator[Path]:
    yield folder / photograph.place
    yield folder / digest[:8] / photograph.place


def _is_same(target: Path, photograph: Photograph, digest: str) -> bool:
    """Return whether `target` is a copy of the photograph. If both have the same size and time, `target` isn't read."""
    status = target.stat()
    with contextlib.suppress(FileNotFoundError):  # the photograph was removed, but its copy remains
        if f"{status.st_size}:{status.st_mtime_ns}" == photograph.stamp:
            return True
    return files.digest_file(target) == digest
