"""Pictures and annotations find each other: by the files that an annotation names, else by its vase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vasevqa.dataset.annotations import Problem, Record, Turn
from vasevqa.text import IMAGE_TAG

if TYPE_CHECKING:
    from vasevqa.curation.images import ImageFile

LEFT = "left the volume"
NO_IMAGE = "row without an image"


@dataclass
class Picture:
    """A readable image, its vase, the records that speak of it, and its side of the split: train, val or eval."""

    found: ImageFile
    vase: str
    records: list[Record] = field(default_factory=list)
    side: str = "train"


@dataclass(frozen=True)
class Conversation:
    """Turns about pictures, which are given by their numbers, in the order of their tags."""

    pictures: tuple[int, ...]
    turns: tuple[Turn, ...]
    where: str


class _Index:
    """Pictures by relative name, file name, stem and vase."""

    def __init__(self, pictures: Sequence[Picture], roots: Sequence[Path]) -> None:
        self.roots = roots
        self.by: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(4)]
        for number, picture in enumerate(pictures):
            path = PurePosixPath(picture.found.name)
            for table, key in zip(self.by, (path.as_posix(), path.name, path.stem, picture.vase), strict=True):
                table[key].append(number)

    def vase(self, vase: str) -> list[int]:
        return self.by[3].get(vase, [])

    def image(self, written: str) -> int | str:
        """The picture that an annotation names, or the kind of problem."""
        path = PurePosixPath(written.replace("\\", "/").removeprefix("file://"))
        left = ".." in path.parts
        if path.is_absolute():
            below = next((root for root in self.roots if path.is_relative_to(root)), None)
            left = below is None
            path = path.relative_to(below) if below is not None else path
        for length in range(len(path.parts) if not left else 0, 0, -1):
            found = self.by[0].get(PurePosixPath(*path.parts[-length:]).as_posix(), [])
            if len(found) == 1:
                return found[0]
        for table, key in ((self.by[1], path.name), (self.by[2], path.stem)):
            if len(table.get(key, [])) == 1:
                return table[key][0]
        return LEFT if left else NO_IMAGE


def join(
    pictures: Sequence[Picture], records: Sequence[Record], roots: Sequence[Path], problems: list[Problem]
) -> list[Conversation]:
    """Give each picture the records that speak of it, and its vase where only they name it; returns conversations.

    Absolute paths in annotations are looked up below `roots`. To `problems` are added the rows without images, those
    with more tags than images, and the images without rows.
    """
    index = _Index(pictures, roots)
    spoken: set[int] = set()
    conversations = []
    for record in records:
        matched = _matched(record, index, problems)
        spoken.update(matched)
        if record.attributes:
            for number in matched:
                pictures[number].records.append(record)
                if record.vase is not None and pictures[number].vase == pictures[number].found.name.lower():
                    pictures[number].vase = record.vase
        if matched and record.turns:
            told = _tagged(record, matched, problems)
            if told is not None:
                conversations.append(told)
    for number, picture in enumerate(pictures):
        if number not in spoken:
            problems.append(Problem("image without a row", picture.found.name, f"no annotation of vase {picture.vase}"))
    return conversations


def _matched(record: Record, index: _Index, problems: list[Problem]) -> tuple[int, ...]:
    """The pictures that a record names, else those of its vase; where there is none, that is a problem."""
    matched: list[int] = []
    why = (NO_IMAGE, f"no image of vase {record.vase}")
    for written in record.images:
        answer = index.image(written)
        if isinstance(answer, int):
            matched.append(answer)
        else:
            why = (answer, written)
            if answer == LEFT:
                problems.append(Problem(answer, record.where, written))
    if not matched and record.vase is not None and why[0] != LEFT:
        matched = index.vase(record.vase)
    if not matched and why[0] != LEFT:
        problems.append(Problem(why[0], record.where, why[1]))
    return tuple(dict.fromkeys(matched))


def _tagged(record: Record, matched: tuple[int, ...], problems: list[Problem]) -> Conversation | None:
    """The conversation with as many <image> tags as pictures: a lone picture's missing tag is put in front."""
    tags = sum(text.count(IMAGE_TAG) for role, text in record.turns if role == "user")
    turns = list(record.turns)
    if tags == 0 or tags > len(matched):
        turns = [(role, text.replace(IMAGE_TAG, "").strip()) for role, text in turns]
        first = next(number for number, (role, _) in enumerate(turns) if role == "user")
        images = len(record.images or matched)
        if tags > images:
            problems.append(Problem("too many image tags", record.where, f"{tags} tags and {images} images"))
            return None
        turns[first] = ("user", IMAGE_TAG * len(matched) + turns[first][1])
    elif tags < len(matched):
        matched = matched[:tags]
    return Conversation(matched, tuple(turns), record.where)
