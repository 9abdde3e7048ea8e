"""Join pictures and annotations by the image files that an annotation names, or by the vase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vasevqa.curation.file_names import plain
from vasevqa.dataset.annotations import Problem, Record, Turn
from vasevqa.dataset.lookup import LEFT, NO_IMAGE, Index, local_path
from vasevqa.text import IMAGE_TAG

if TYPE_CHECKING:
    from vasevqa.curation.images import ImageFile


@dataclass
class Picture:
    """A readable image with its vase, its records, and its side of the split (train, val or eval)."""

    file: ImageFile
    vase: str
    records: list[Record] = field(default_factory=list)
    side: str = "train"

    @property
    def has_vase(self) -> bool:
        """True if the picture's vase is known. If it is not known, `vase` holds the picture's own name."""
        return self.vase != plain(self.file.name)


@dataclass(frozen=True)
class Conversation:
    """A conversation about pictures. `pictures` holds the indices of the pictures in the order of the image tags."""

    pictures: tuple[int, ...]
    turns: tuple[Turn, ...]
    where: str
    rights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Match:
    """The pictures for a record. A picture that the record names twice occurs twice.

    `by_vase` is True if the pictures were found by the record's vase, because no file name in the record matched.
    """

    pictures: tuple[int, ...]
    missing: tuple[str, ...] = ()  # names in the record for which there is no picture
    by_vase: bool = False


@dataclass(frozen=True)
class Joined:
    """The result of the join.

    `records` is the number of all records. `dropped` is the number of records that are not used at all. Two names can
    match although they differ, for example in case. `lenient` counts such matches by the kind of difference.
    """

    conversations: list[Conversation]
    records: int
    dropped: int
    spoken: frozenset[int]  # the indices of the pictures with a record
    lenient: Mapping[str, int]


def join(
    pictures: Sequence[Picture],
    records: Sequence[Record],
    roots: Sequence[Path],
    problems: list[Problem],
    vase_of: Callable[[str], str],
) -> Joined:
    """Assign records to pictures. If a picture's own name doesn't give its vase, take the vase from a record.

    Absolute paths in annotations are looked up below `roots`. `vase_of` returns the vase for a photograph's relative
    name. Add a problem for each record without a picture, for each conversation that lacks a picture or has a wrong
    number of image tags, and for each picture without a record.
    """
    _take_vases(pictures, records, _index(pictures, roots, vase_of))
    index = _index(pictures, roots, vase_of)
    spoken: set[int] = set()
    conversations = []
    dropped = 0
    for record in records:
        match = _matched(record, index, problems)
        if record.attributes:
            spoken.update(match.pictures)
            for number in dict.fromkeys(match.pictures):
                pictures[number].records.append(record)
        _take_vase(pictures, record, match.pictures)
        one_vase = _one_vase(match, pictures, vase_of)
        told = _conversation(record, match, one_vase, problems) if match.pictures and record.turns else None
        if told is not None:
            spoken.update(told.pictures)
            conversations.append(replace(told, rights=record.rights))
        dropped += told is None and not (match.pictures and record.attributes)
    for number, picture in enumerate(pictures):
        if number not in spoken:
            problems.append(Problem("image without a row", picture.file.name, f"no annotation of vase {picture.vase}"))
    return Joined(conversations, len(records), dropped, frozenset(spoken), index.lenient)


def _index(pictures: Sequence[Picture], roots: Sequence[Path], vase_of: Callable[[str], str]) -> Index:
    names, vases = [picture.file.name for picture in pictures], [picture.vase for picture in pictures]
    return Index(names, vases, roots, vase_of)


def _take_vases(pictures: Sequence[Picture], records: Sequence[Record], index: Index) -> None:
    """If a record names a picture whose vase is unknown, assign the record's vase to this picture.

    This step comes before the join. The join can then match the picture with other records that name only the vase.
    """
    if all(picture.has_vase for picture in pictures):
        return
    for record in records:
        if record.vase is not None:
            answers = [answer for cell in record.images for _, answer in index.images(cell)]
            _take_vase(pictures, record, [answer for answer in answers if isinstance(answer, int)])


def _take_vase(pictures: Sequence[Picture], record: Record, numbers: Iterable[int]) -> None:
    """Assign a record's vase to the record's pictures whose vase is still unknown."""
    for number in numbers:
        if record.vase is not None and not pictures[number].has_vase:
            pictures[number].vase = record.vase


def _one_vase(match: _Match, pictures: Sequence[Picture], vase_of: Callable[[str], str]) -> bool:
    """Return whether all images that belong to a record are views of one vase.

    If an image is missing, its vase is read from its name.
    """
    vases = {pictures[number].vase for number in match.pictures}
    for written in match.missing:
        parts = PurePosixPath(local_path(written)).parts
        near = {vase_of("/".join(parts[-length:])) for length in (1, 2, 3)}
        vases |= set() if near & vases else near
    return len(vases) == 1


def _matched(record: Record, index: Index, problems: list[Problem]) -> _Match:
    """Return the pictures that a record names.

    If no named picture exists, return the pictures of the record's vase. Add a problem if there is no picture for the
    record.
    """
    matched: list[int] = []
    missing: list[str] = []
    why = (NO_IMAGE, f"no image of vase {record.vase}")
    for cell in record.images:
        for written, answer in index.images(cell):
            if isinstance(answer, int):
                matched.append(answer)
                continue
            missing.append(written)
            why = (answer, written)
            if answer == LEFT:
                problems.append(Problem(answer, record.where, written))
    if matched:
        return _Match(tuple(matched), tuple(missing))
    if record.vase is not None:
        matched = index.vase(record.vase)
    if matched:  # If a record names only one view, other views may replace it. Several named views are not replaced.
        return _Match(tuple(matched), tuple(missing) if len(missing) > 1 else (), by_vase=True)
    if why[0] != LEFT:
        problems.append(Problem(why[0], record.where, why[1]))
    return _Match(())


def _conversation(record: Record, match: _Match, one_vase: bool, problems: list[Problem]) -> Conversation | None:
    """Return the conversation of a record, with as many <image> tags as pictures.

    If the conversation has no tags, they are added to the first question. Add a problem and return None if one of
    several pictures is missing, or if the number of tags can't be made equal to the number of pictures. There is one
    exception: in the original project's format, a conversation about several views of one vase has at most one tag.
    Such a conversation is about the vase as a whole, so it is kept even if some views are missing.
    """
    turns = list(record.turns)
    tags = [text.count(IMAGE_TAG) if role == "user" else 0 for role, text in turns]
    if sum(tags) == 1 and one_vase:
        return Conversation(match.pictures[:1], record.turns, record.where)
    if match.missing and not (sum(tags) == 0 and one_vase):
        others = f" and {len(match.missing) - 1} more" if len(match.missing) > 1 else ""
        problems.append(Problem("conversation with a missing image", record.where, f"{match.missing[0]}{others}"))
        return None
    matched = match.pictures
    if sum(tags) == 0:
        first = next(number for number, (role, _) in enumerate(turns) if role == "user")
        turns[first] = ("user", IMAGE_TAG * len(matched) + turns[first][1])
    elif sum(tags) > len(matched) and all(count in (0, len(matched)) for count in tags):
        turns = _shown_once(turns)  # every tagged question repeats the tags of all pictures
    elif sum(tags) < len(matched) and match.by_vase:
        matched = matched[: sum(tags)]
    elif sum(tags) != len(matched):
        kind = "too many image tags" if sum(tags) > len(matched) else "too few image tags"
        problems.append(Problem(kind, record.where, f"{sum(tags)} tags and {len(matched)} images"))
        return None
    return Conversation(matched, tuple(turns), record.where)


def _shown_once(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns with image tags only in the first question that has tags."""
    seen = False
    kept = []
    for role, text in turns:
        tagged = role == "user" and IMAGE_TAG in text
        kept.append((role, text.replace(IMAGE_TAG, "").strip() if tagged and seen else text))
        seen = seen or tagged
    return kept
