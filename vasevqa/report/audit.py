"""Check whether a curation step rejects the photographs of some classes of vases more often than others.

A class holds the photographs of one shape, technique, fabric or century, or the photographs in one top folder.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from vasevqa.curation.file_names import plain, vase_group
from vasevqa.curation.images import ImageFile
from vasevqa.curation.naming import naming_of
from vasevqa.dataset.annotations import read_annotations
from vasevqa.dataset.columns import Columns
from vasevqa.dataset.join import Picture, join
from vasevqa.errors import VaseError
from vasevqa.report.recipes import Told
from vasevqa.report.sources import Sources
from vasevqa.reward.dates import parse_dates
from vasevqa.reward.named import parts_of
from vasevqa.reward.vocabulary import load
from vasevqa.spec import Report
from vasevqa.statistics import Estimate, by_vase
from vasevqa.text import percent

COLLECTION = "collection"  # name of the attribute for the top folder of a photograph
WORDS = ("fabric", "technique", "shape")  # attributes whose values are classes


class ClassAcceptance(BaseModel):
    """The share of a class's photographs that a step accepted, with its 95% interval.

    `warned` is true if the step rejected more than half of the class's photographs, and the whole interval lies below
    the share of accepted photographs over all classes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: str
    attribute: str
    name: str
    photographs: int
    vases: int
    accepted: float
    low: float
    high: float
    warned: bool

    def said(self) -> str:
        """Return the warning, without a full stop."""
        return (
            f"{self.step} removed {percent(1 - self.accepted)} of the photographs of {self.attribute} '{self.name}'"
            f" [{percent(1 - self.high)}, {percent(1 - self.low)}]"
        )


class Acceptance(Report):
    """The share of photographs that each step accepted, by class. Classes with too few vases are left out.

    The keys of the mappings are steps. `overall` holds the share of all photographs that the step accepted.
    `photographs` holds the number of all photographs, and `annotated` the number of photographs with an annotation.
    """

    FILE: ClassVar[str] = "acceptance.json"

    overall: dict[str, float] = Field(default_factory=dict)
    photographs: dict[str, int] = Field(default_factory=dict)
    annotated: dict[str, int] = Field(default_factory=dict)
    small: dict[str, int] = Field(default_factory=dict)  # step -> number of classes that were left out
    classes: list[ClassAcceptance] = Field(default_factory=list)


def photographs(sources: Sources, told: Told) -> dict[str, list[Picture]]:
    """Return step -> the photographs about which the step decided, with their vases and records.

    The steps are clip-filter and classify. A step without decisions is left out.
    """
    return {step: _pictures(decided, told) for step, decided in _decisions(sources).items()}


def acceptance(
    sources: Sources, told: Told, decided_about: Mapping[str, Sequence[Picture]] | None = None
) -> Acceptance:
    """Return the share of photographs that clip-filter and classify accepted. A step without results is left out.

    `told` holds the settings of the run's recipe. The classes come from the annotations that the recipe names, and from
    the top folders. Without readable annotations, the top folders are the only classes. `decided_about` is the result
    of `photographs`, if it is known already.
    """
    found = Acceptance()
    known = photographs(sources, told) if decided_about is None else decided_about
    for step, decided in _decisions(sources).items():
        pictures = known[step]
        classes, small = _classes(step, pictures, decided, told.vocabulary)
        found.overall[step] = sum(decided.values()) / len(decided)
        found.photographs[step] = len(decided)
        found.annotated[step] = sum(bool(picture.records) for picture in pictures)
        found.small[step] = small
        found.classes.extend(classes)
    return found


def century(text: str) -> str | None:
    """Return the century in which the middle of a date lies; None if the text contains no date.

    The 5th century BC is -500 to -401, and the 1st century AD is 1 to 100. If a date has two middle years, the later
    year is used.
    """
    spans = parse_dates(text)
    if not spans:
        return None
    year = math.ceil((spans[0][0] + spans[0][1]) / 2)
    number = (max(abs(year), 1) - 1) // 100 + 1
    return f"century {number} {'BC' if year < 0 else 'AD'}"


def named_class(kind: str, text: str, own: Path | None = None) -> str:
    """Return the class of a shape, technique or fabric: the name of its concept in the vocabulary.

    If the text names several main concepts, the class is their combination. If it names none, the class is the text in
    lower case. `own` is the folder of the user's vocabulary.
    """
    terms = load(kind, own)
    parts = parts_of(text, terms)
    main = [name for name in parts if not terms.concepts[name].extra] or parts
    return " + ".join(sorted(main)) or " ".join(text.lower().split())


def _decisions(sources: Sources) -> dict[str, dict[str, bool]]:
    """Return step -> photograph name -> whether the step accepted it. Steps without decisions are left out."""
    filtered = sources.filtered.images if sources.filtered else []
    classified = {one.name: one.label == 1 for one in sources.predictions if one.probability is not None}
    decided = {"clip-filter": {row.name: row.accepted for row in filtered}, "classify": classified}
    return {step: given for step, given in decided.items() if given}


def _pictures(names: Mapping[str, bool], told: Told) -> list[Picture]:
    """Return the photographs with their vases and records. No photograph is opened."""
    try:
        naming = naming_of(told.reading.name_pattern, names)
    except VaseError:  # the pattern matches no photograph of this step
        naming = naming_of(None, names)

    def vase(name: str) -> str:
        group = vase_group(name, naming)
        return plain(name) if group == name else group

    pictures = [Picture(ImageFile(Path(name), name), vase(name)) for name in names]
    table = told.table
    if table is not None:
        try:
            annotated = read_annotations(table, Columns(told.reading.columns), told.reading.records)
        except (VaseError, ModuleNotFoundError):
            return pictures
        join(pictures, annotated.records, [table if table.is_dir() else table.parent], [], vase)
    return pictures


def _classes(
    step: str, pictures: Sequence[Picture], decided: Mapping[str, bool], own: Path | None
) -> tuple[list[ClassAcceptance], int]:
    """Return the classes that have an interval, and the number of classes that have too few vases for an interval."""
    rows: dict[tuple[str, str], list[Picture]] = defaultdict(list)
    for picture in pictures:
        for attribute, name in _belongs(picture, own).items():
            rows[attribute, name].append(picture)
    everyone = sum(decided.values()) / len(decided)
    found = []
    for (attribute, name), members in sorted(rows.items()):
        estimate = by_vase([float(decided[one.file.name]) for one in members], [one.vase for one in members])
        if estimate.interval is not None:
            found.append(_class(step, attribute, name, estimate, estimate.interval, everyone))
    return found, len(rows) - len(found)


def _class(
    step: str, attribute: str, name: str, estimate: Estimate, interval: tuple[float, float], everyone: float
) -> ClassAcceptance:
    low, high = interval
    return ClassAcceptance(
        step=step,
        attribute=attribute,
        name=name,
        photographs=estimate.rows,
        vases=estimate.vases,
        accepted=estimate.value,
        low=low,
        high=high,
        warned=estimate.value < 0.5 and high < everyone,
    )


def _belongs(picture: Picture, own: Path | None) -> dict[str, str]:
    """Return the photograph's class for each attribute.

    If several records give a value for an attribute, the value of the first record is used.
    """
    told: dict[str, str] = {}
    for record in reversed(picture.records):
        told.update(record.attributes)
    classes = {word: named_class(word, told[word], own) for word in WORDS if told.get(word, "").strip()}
    when = century(told.get("date", ""))
    if when is not None:
        classes["date"] = when
    folders = PurePosixPath(picture.file.name).parts[:-1]
    return {**classes, COLLECTION: folders[0]} if folders else classes
