"""Compute the sketches (see duplicates.Sketch) of a dataset's photographs.

A photograph is not decoded if an earlier run on the same volume has stored its sketch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa.artifacts.known import KnownPhotographs
from vasevqa.cores import available_cores
from vasevqa.curation.images import ImageFile, Unreadable, open_image
from vasevqa.curation.reports import QuarantinedFile
from vasevqa.dataset.duplicates import Sketch, sketch

if TYPE_CHECKING:
    from vasevqa.spec import Progress

COVER = 128  # pixels of the shorter side that are decoded
CHUNK = 1024


@dataclass
class Sketched:
    """The readable photographs with their sketches, in the given order, and the files that can't be read.

    `known` is the number of photographs whose sketches were read from an earlier run.
    """

    files: list[ImageFile] = field(default_factory=list)
    sketches: list[Sketch] = field(default_factory=list)
    quarantined: list[QuarantinedFile] = field(default_factory=list)
    known: int = 0


@dataclass(frozen=True)
class Store:
    """The place where sketches are stored.

    `volume` is None if the stage runs without a launcher. Sketches are then not stored. `made_for` identifies the
    version of the stage and of the code that computes sketches.
    """

    volume: Path | None
    made_for: Mapping[str, object]


def sketch_all(
    photographs: Sequence[ImageFile], folder: Path, store: Store, workers: int, progress: Progress
) -> Sketched:
    """Return the sketches of the photographs in `folder`, and store the new sketches on the volume."""
    names = [item.name for item in photographs if not item.problem]
    known = KnownPhotographs(store.volume, folder, names, store.made_for)
    results: dict[str, Sketch | str] = {name: Sketch.from_bytes(value) for name, value in known.values.items()}
    new = [item for item in photographs if item.name not in results]
    if results:
        progress.note(f"{len(results)} images are known from earlier runs, {len(new)} are new")
    found = Sketched(known=len(results))
    progress.start("reading", len(new))
    with ThreadPoolExecutor(workers or available_cores()) as pool:
        for begin in range(0, len(new), CHUNK):
            some = new[begin : begin + CHUNK]
            for one, result in zip(some, pool.map(_sketch, some), strict=True):
                progress.advance()
                results[one.name] = result
    known.keep({item.name: made.as_bytes() for item in new if isinstance(made := results[item.name], Sketch)})
    for item in photographs:
        result = results[item.name]
        if isinstance(result, str):
            found.quarantined.append(QuarantinedFile(name=item.name, reason=result))
        else:
            found.files.append(item)
            found.sketches.append(result)
    return found


def _sketch(photograph: ImageFile) -> Sketch | str:
    """Return the sketch, or the reason why the photograph can't be read."""
    if photograph.problem:
        return photograph.problem
    try:
        return sketch(open_image(photograph.path, COVER))
    except Unreadable as error:
        return error.reason
