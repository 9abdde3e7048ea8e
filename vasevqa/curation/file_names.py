"""Read a photograph's vase and view from its relative path. The file's suffix is ignored.

The module `naming` chooses the built-in pattern for a folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BeforeValidator

from vasevqa.errors import ConfigError
from vasevqa.yaml_files import shortened

# 0a1b2c3d-..._front_ac001001.jpg: the vase's UUID, the view, and the museum's image number
DEFAULT_PATTERN = r"(?P<vase>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})_(?P<view>.+?)_ac\d+"
UUID_VIEW, FOLDER_VIEW, ID_VIEW, ID_NUMBER = "UUID_view_ac", "folder/view", "id_view", "id (n)"
DESCRIPTION = (
    "pattern of the file names: a regular expression with the groups vase and view (for the stem or the end of the"
    f" relative path), or a built-in pattern ({UUID_VIEW}, {FOLDER_VIEW}, {ID_VIEW}, {ID_NUMBER}); a list is tried in"
    " turn; unset: the built-in pattern that fits the folder"
)
UNMATCHED_DESCRIPTION = (
    "a photograph whose name matches no pattern: error, or own-vase (the photograph is the only view of a vase)"
)

_VIEW_TEXT = """front back rear left right side top bottom base foot rim lip neck mouth handle shoulder body interior
    exterior inside outside detail details profile obverse reverse recto verso above below view overall general close
    closeup close-up threequarter three-quarter oblique underside tondo frieze scene inscription drawing
    vorne vorn hinten vorderseite rückseite rueckseite links rechts seite oben unten boden fuß fuss rand hals henkel
    innen aussen außen profil gesamt ansicht gesamtansicht seitenansicht bauch schulter mündung zeichnung
    avant arrière arriere face dos revers avers gauche droite côté cote dessus dessous vue anse pied col détail
    fronte retro lato sinistra destra sopra sotto profilo dettaglio veduta interno esterno
    frente reverso lado izquierda derecha arriba abajo detalle perfil vista"""
VIEWS = _VIEW_TEXT.split()
_WORD = "(?:" + "|".join(sorted(map(re.escape, VIEWS), key=len, reverse=True)) + ")"
VIEW_WORDS = rf"{_WORD}(?:[ _-]+{_WORD})*(?:[ _-]?(?:\d{{1,3}}|[a-d]))?"
_ID_VIEW = re.compile(
    rf"(?P<vase>.+?)(?:[ _-]+(?P<word>{VIEW_WORDS})"
    r"|_(?P<number>\d{1,3}|0\d{3})|_(?P<free>[a-d]|[^\W\d_]+(?:[ _-][^\W\d_]+)*))",
    re.IGNORECASE | re.DOTALL,
)
_ID_NUMBER = re.compile(r"(?P<vase>.+?) ?\((?P<number>\d{1,3})\)", re.DOTALL)
_COPY = re.compile(r"(?: ?[-–_]? ?(?:copy|kopie|copie|copia)(?: ?\(?\d{1,3}\)?)?)+", re.IGNORECASE)
_TWICE = re.compile(r" ?\(\d{1,3}\)")

# Names from cameras, phones, scanners and programs. Their numbers count photographs, not vases.
_CAMERA = re.compile(
    r"_?(?:img|dsc|dscn|dscf|imgp|imag|pxl|mvimg|vid|pict|pic|picture|photo|foto|fotografia|image|immagine|imagen|bild"
    r"|scan|screenshot|bildschirmfoto|whatsapp|signal|gopr|dji|hpim|cimg|fullsizerender|unnamed|untitled|unbenannt|capture"
    r"|file|aufnahme)(?![^\W\d_]).*"
    r"|_mg_\d.*|_?(?:sam|kif|sany|pana|crw|mvc)_?\d{3,5}.*|p[0-9a-c]\d{6}.*|1\d\d_\d{4}|\d{8}[_-]\d{6}.*|\d{13}",
    re.IGNORECASE | re.DOTALL,
)
_CAMERA_FOLDER = re.compile(r"dcim|1\d\d[a-z_\d]{5}|camera(?: roll)?", re.IGNORECASE)
_DATE = re.compile(
    r"(?:19|20)\d\d(?:[-_. ]?(?:0[1-9]|1[0-2])(?:[-_. ]?(?:0[1-9]|[12]\d|3[01]))?)?|\d\d?[-_. ]\d\d?[-_. ](?:19|20)\d\d"
)
# Folders that are named after a kind of photographs, not after a vase.
_KIND_TEXT = """images image photos photo fotos foto bilder pictures pics jpg jpeg png tif tiff bmp webp raw raws
    originals original edited web thumbs thumbnails hires lowres small large full master masters accepted rejected
    best_views train training val valid validation test eval low high"""
_KINDS = {*VIEWS, *_KIND_TEXT.split()}


@dataclass(frozen=True)
class VaseView:
    """One view of one vase. `kind` says how the name gives the view: as a known word, a number, or free text."""

    vase: str
    view: str
    kind: str = "free"


@dataclass(frozen=True)
class Rule:
    """One way to read a vase and a view from a relative path: a built-in pattern or a user's regular expression."""

    name: str
    read: Callable[[str], VaseView | None]


@dataclass(frozen=True)
class Naming:
    """The rules for reading the names in one folder. The rules are tried in turn.

    `bare` holds ids of vases. A file whose whole name is such an id is a view of this vase. In a folder with `F
    2159.jpg` and `F 2159_2.jpg`, an example is the id `f 2159`.
    """

    rules: tuple[Rule, ...] = ()
    bare: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """The names of the rules: names of built-in patterns, or a user's regular expressions."""
        return [rule.name for rule in self.rules]

    def __str__(self) -> str:
        return " and ".join(self.names) or "their own names"


def parse_name(name: str, naming: Naming) -> VaseView | None:
    """Return the vase and the view in the relative path `name`, or None if no rule matches."""
    found = next((read for rule in naming.rules if (read := rule.read(name))), None)
    if found is None and naming.bare:
        stem = plain(_without_copy(PurePosixPath(name).stem))
        return VaseView(stem, "") if stem in naming.bare else None
    return found


def vase_group(name: str, naming: Naming) -> str:
    """Return the vase of a file, or the name itself if no rule matches."""
    parsed = parse_name(name, naming)
    return parsed.vase if parsed else name


def plain(vase: str) -> str:
    """Return a vase's id in lower case and in the Unicode form NFC.

    Photographs of one vase may come from two systems that spell the id differently.
    """
    return unicodedata.normalize("NFC", vase).strip().lower()


def rule_of(pattern: str) -> Rule:
    """Return the rule for `pattern`, which is the name of a built-in pattern or a regular expression.

    A regular expression is compared with each end of the relative path without the suffix: the stem alone, the last two
    parts, and so on. It must match the whole of an end. If several ends match, the shortest one is used. If the
    expression contains a slash, the longest one is used instead. Raise ConfigError if `pattern` is not a regular
    expression, or if it lacks the group vase or the group view.
    """
    if pattern in BUILT_IN:
        return BUILT_IN[pattern]
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"--name-pattern is not a regular expression ({error}: {shortened(pattern)}); correct it, or use a"
            f" built-in pattern: {', '.join(BUILT_IN)}."
        ) from None
    if not {"vase", "view"} <= set(compiled.groupindex):
        raise ConfigError(f"--name-pattern needs the named groups (?P<vase>...) and (?P<view>...); correct {pattern}.")

    def read(name: str) -> VaseView | None:
        parts = _without_suffix(PurePosixPath(name)).parts
        ends = ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        for end in reversed(ends) if "/" in pattern else ends:
            match = compiled.fullmatch(end)
            if match and match["vase"] and match["view"]:
                return VaseView(plain(match["vase"]), match["view"])
        return None

    return Rule(pattern, read)


def _one_or_several(value: object) -> object:
    """Return the pattern of a list with one pattern, None for an empty list, and any other value unchanged.

    A pattern and a list of only this pattern therefore give the same cache key.
    """
    if isinstance(value, list) and len(value) < 2:
        return value[0] if value else None
    return value


NamePattern = Annotated[str | list[str] | None, BeforeValidator(_one_or_several)]


def as_list(patterns: str | Sequence[str] | None) -> list[str]:
    """Return the patterns of a parameter as a list. The list is empty if the parameter is unset."""
    return [patterns] if isinstance(patterns, str) else list(patterns or ())


def check_patterns(patterns: str | Sequence[str] | None) -> None:
    """Raise ConfigError if a pattern is not a regular expression, or if it lacks the group vase or the group view."""
    for pattern in as_list(patterns):
        rule_of(pattern)


def is_camera_name(text: str) -> bool:
    """Return whether the text looks like a file name from a camera, a phone or a scanner."""
    return _CAMERA.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Return whether the text is a date, such as 2019, 2019-05 or 2019-05-31."""
    return _DATE.fullmatch(text) is not None


def is_kind_folder(name: str) -> bool:
    """Return whether a folder is named after a kind of photograph (`jpg`, `detail`) or by a camera (`DCIM`).

    Such a folder is not named after a vase.
    """
    key = unicodedata.normalize("NFC", name).casefold().strip()
    return key in _KINDS or _CAMERA_FOLDER.fullmatch(key) is not None


def vase_folder(name: str) -> tuple[str, ...]:
    """Return the folders in a relative path, from the top down, without those that is_kind_folder accepts.

    Each of the returned folders may be named after a vase.
    """
    return tuple(part for part in _parts(name)[:-1] if not is_kind_folder(part))


def _parts(name: str) -> list[str]:
    return [part for part in PurePosixPath(name).parts if part.strip("/")]


def _without_suffix(path: PurePosixPath) -> PurePosixPath:
    return path.parent / path.stem


def _without_copy(stem: str) -> str:
    match = re.search(f"(?:{_COPY.pattern})$", stem, re.IGNORECASE)
    return stem[: match.start()] if match and match.start() else stem


def _names_a_vase(text: str, needs_digit: bool) -> bool:
    key = text.casefold().strip(" _-")
    return (
        bool(key)
        and not is_camera_name(key)
        and not re.fullmatch(VIEW_WORDS, key)
        and key not in _KINDS
        and (not needs_digit or any(mark.isdigit() for mark in key))
    )


def _read_uuid(name: str) -> VaseView | None:
    stem = PurePosixPath(name).stem
    for text in (stem, _TWICE.sub("", _without_copy(stem))):
        match = re.fullmatch(DEFAULT_PATTERN, text)
        if match:
            return VaseView(match["vase"].lower(), match["view"], "word")
    return None


def _read_folder(name: str) -> VaseView | None:
    parts = _parts(name)
    last = next((at for at in range(len(parts) - 2, -1, -1) if not is_kind_folder(parts[at])), None)
    if last is None or not parts[last].strip():
        return None
    return VaseView(plain(parts[last]), _without_suffix(PurePosixPath(*parts[last + 1 :])).as_posix())


def _read_id(name: str) -> VaseView | None:
    stem = unicodedata.normalize("NFC", _without_copy(PurePosixPath(name).stem))
    if is_camera_name(stem):
        return None
    for text in dict.fromkeys((stem, re.sub(f"{_TWICE.pattern}$", "", stem))):
        match = _ID_VIEW.fullmatch(text)
        kind = match.lastgroup if match else None
        if match and kind and _names_a_vase(match["vase"], needs_digit=kind != "word"):
            return VaseView(plain(match["vase"].strip(" _-")), match[kind], kind)
    return None


def _read_number(name: str) -> VaseView | None:
    match = _ID_NUMBER.fullmatch(_without_copy(PurePosixPath(name).stem))
    if match and _names_a_vase(match["vase"], needs_digit=True):
        return VaseView(plain(match["vase"]), match["number"], "number")
    return None


# If two patterns fit equally well, the first in this list is used.
BUILT_IN = {
    rule.name: rule
    for rule in (
        Rule(UUID_VIEW, _read_uuid),
        Rule(ID_NUMBER, _read_number),
        Rule(ID_VIEW, _read_id),
        Rule(FOLDER_VIEW, _read_folder),
    )
}
