"""Find the labelled photographs, in a folder of low quality (label 0) and a folder of high quality (label 1)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vasevqa.curation.images import ImageFile, find_images
from vasevqa.errors import DataError
from vasevqa.folders import OUTSIDE, PassedOver, boundary_of, is_photograph, leads_out, of_other_program

_LOW = "0 low bad poor worst fail failed reject rejected unusable blurry schlecht niedrig gering mauvais mauvaise"
_HIGH = "1 high good best pass passed accept accepted usable sharp ok gut hoch bon bonne"
_SPLIT = "train training val valid validation dev test testing eval evaluation"
_FILLER = "quality qualität qualitaet qualité class label labels image images photo photos set split"
WORDS = {**dict.fromkeys(_LOW.split(), 0), **dict.fromkeys(_HIGH.split(), 1)}
SPLITS, FILLERS = frozenset(_SPLIT.split()), frozenset(_FILLER.split())
REMEDY = "put low-quality images into 0/ and high-quality images into 1/"


@dataclass(frozen=True)
class Labelled:
    """A labelled photograph. `file.name` is relative to the folder of the label. The vase is read from this name."""

    label: int
    file: ImageFile
    split: str = ""  # name of the split's folder, such as train or val; '' if the folders have no splits

    @property
    def name(self) -> str:
        """The photograph's path within the data. It begins with the label instead of the folder's name."""
        return f"{self.label}/{self.split}/{self.file.name}" if self.split else f"{self.label}/{self.file.name}"


@dataclass(frozen=True)
class _Place:
    """The settings for reading the photographs in the folder of a label.

    `split` is the name of the split that holds the folder, or '' if the data have no splits. Links must not lead out of
    the folder `boundary`. `others` counts the files that are not read.
    """

    split: str
    boundary: Path
    others: PassedOver


def labelled_images(folder: Path, others: PassedOver | None = None) -> tuple[list[Labelled], str]:
    """Return the labelled photographs below `folder`, and a sentence that says how the folders were read.

    The sentence is '' if all photographs lie in 0/ and 1/. Folder layouts of other training programs are accepted if
    the meaning of each folder is clear: `low/` and `high/`, or `train/0/` and `val/1/`. `others` counts the files that
    are not read. Raise DataError if a label has no folder, if the folder of a label holds no image, or if the meaning
    of a folder isn't clear.
    """
    others = others if others is not None else PassedOver()
    boundary = boundary_of(folder)
    inside = _folders(folder)
    for path in [path for path in inside if leads_out(path, boundary)]:
        if _label(path.name) is not None or _is_split(path):
            raise DataError(f"{path} is {OUTSIDE}; copy the folder that it leads to.")
        inside.remove(path)
    if {"0", "1"} <= {path.name for path in inside}:
        classes = {0: folder / "0", 1: folder / "1"}
        said = _unread(folder, [path for path in inside if path.name not in ("0", "1")], others)
        return _read(_Place("", boundary, others), classes), said
    splits = [path for path in inside if _is_split(path)]
    if not splits:
        classes = _classes(folder, inside)
        for label in (0, 1):
            if label not in classes:
                raise DataError(f"{folder} has no folder '{label}'{_there(inside)}; {REMEDY}.")
        read = " and ".join(f"{classes[label].name} is read as {label}" for label in (0, 1))
        loose = _unread(folder, [], others)
        return _read(_Place("", boundary, others), classes), "; ".join(text for text in (read, loose) if text)
    return _merged(folder, splits, [path for path in inside if path not in splits], _Place("", boundary, others))


def check_vases(vases: Mapping[int, Collection[str]]) -> None:
    """Raise DataError if a class has fewer than three vases. `vases` maps each label to the vases of its images."""
    for label, mine in sorted(vases.items()):
        if len(mine) < 3:
            raise DataError(
                f"Class {label} has images of {len(mine)} vases, but training, validation and test need one vase each;"
                f" add images to {label}/."
            )


def _merged(folder: Path, splits: Sequence[Path], beside: Sequence[Path], place: _Place) -> tuple[list[Labelled], str]:
    """Merge the photographs of all splits, and return them with a sentence about the folders.

    The user split the photographs for a different training program. train-classifier splits them anew by vase.
    """
    for path in beside:
        if _holds_images(path):
            raise DataError(
                f"{folder} holds the splits {_joined(splits)}, and also {path.name}; move {path.name} away, or"
                " merge the splits into 0/ and 1/."
            )
    found: list[Labelled] = []
    names: dict[str, int] = {}
    given = []
    loose = [_unread(folder, [], place.others)]
    for split in splits:
        classes = _classes(split, [path for path in _folders(split) if not leads_out(path, place.boundary)])
        names.update({path.name: label for label, path in classes.items()})
        found += _read(replace(place, split=split.name), classes)
        given += [split] * bool(classes)
        loose.append(_unread(split, [], place.others))
    for label in (0, 1):
        if not any(item.label == label for item in found):
            raise DataError(f"{folder} has no folder '{label}' in {_joined(splits)}; {REMEDY}.")
    read = "".join(
        f", {name} is read as {label}"
        for name, label in sorted(names.items(), key=lambda item: item[::-1])
        if name != str(label)
    )
    merged = f"{_joined(given)} are merged" if len(given) > 1 else f"{given[0].name} is read"
    return found, "; ".join(text for text in (f"{merged} and split anew by vase{read}", *loose) if text)


def _unread(folder: Path, beside: Sequence[Path], others: PassedOver) -> str:
    """Add the photographs without a label to `others`. Return a sentence about them, or '' if there are none.

    All photographs directly in `folder` and all photographs in the folders `beside` have no label.
    """
    names = []
    loose = sorted(
        path.name
        for path in folder.iterdir()
        if is_photograph(path.name) and path.is_file() and not path.name.startswith(".")
    )
    for path in beside:
        inside = [f"{path.name}/{item.name}" for item in find_images(path)]
        names += [path.name] * bool(inside)
        loose += inside
    for name in loose:
        others.add(name, "without a label")
    if any("/" not in name for name in loose):
        names.append(f"photographs directly in {folder.name}")
    return f"not read: {', '.join(names)}" if names else ""


def _classes(folder: Path, inside: Sequence[Path]) -> dict[int, Path]:
    """Return a mapping from each label to its folder in `inside`. A label without a folder is omitted.

    Raise DataError if the name of a folder with images has no clear meaning, or if two folders mean the same label.
    """
    classes: dict[int, Path] = {}
    unknown = []
    for path in inside:
        label = _label(path.name)
        if label is None:
            unknown += [path] if _holds_images(path) else []
        elif label in classes:
            raise DataError(
                f"{folder} holds {classes[label].name} and {path.name}, which would both be label {label}; {REMEDY}."
            )
        else:
            classes[label] = path
    if unknown:
        raise DataError(
            f"{folder} holds {_joined(inside)}, and it is not clear which of them means low and which high quality;"
            f" {REMEDY}."
        )
    return classes


def _label(name: str) -> int | None:
    """Return the label that a folder's name means: 0 (low quality), 1 (high quality), or None (no clear meaning)."""
    meant = {WORDS.get(word) for word in _words(name)}
    return meant.pop() if len(meant) == 1 else None


def _is_split(path: Path) -> bool:
    words = _words(path.name)
    return bool(words) and set(words) <= SPLITS


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", name)
    words = [word.casefold().removesuffix("quality") for word in re.findall(r"[^\W\d_]+|\d+", apart)]
    return [word for word in words if word and word not in FILLERS]


def _read(place: _Place, classes: dict[int, Path]) -> list[Labelled]:
    found: list[Labelled] = []
    for label, path in sorted(classes.items()):
        inside = [Labelled(label, item, place.split) for item in find_images(path, place.boundary, place.others)]
        if not inside:
            raise DataError(f"{path} holds no image{place.others.hint()}; {REMEDY}.")
        found += inside
    return found


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and not of_other_program(path.name)
    )


def _holds_images(folder: Path) -> bool:
    return next(iter(find_images(folder)), None) is not None


def _joined(paths: Sequence[Path]) -> str:
    names = [path.name for path in paths]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _there(inside: Sequence[Path]) -> str:
    return f", only {_joined(inside)}" if inside else ""
