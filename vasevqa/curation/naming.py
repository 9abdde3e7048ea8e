"""Choose one pattern for all names in a folder, and report the names that don't match the pattern.

A wrong pattern is worse than no pattern. Photographs of several vases would be read as one vase, or one vase would have
views in both the training part and the test part of a split. A built-in pattern is therefore chosen only if the names
as a whole fit the pattern.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from vasevqa.curation.file_names import (
    BUILT_IN,
    FOLDER_VIEW,
    ID_NUMBER,
    ID_VIEW,
    UUID_VIEW,
    VIEW_WORDS,
    Naming,
    Rule,
    VaseView,
    as_list,
    is_camera_name,
    is_date,
    parse_name,
    plain,
    rule_of,
    vase_folder,
)
from vasevqa.curation.images import ImageFile, Unreadable, open_image
from vasevqa.errors import ConfigError, DataError

MOST = 0.8  # a pattern is chosen if this part of the folders, or of the numbered names, looks like views
_TAIL = re.compile(rf"[ _-]*(?:{VIEW_WORDS})", re.IGNORECASE)
_EXAMPLES = {
    UUID_VIEW: "a UUID, _front_ac001001.jpg",
    ID_NUMBER: "F2159 (1).jpg",
    ID_VIEW: "F2159_front.jpg",
    FOLDER_VIEW: "F2159/01.jpg",
}
_NUMBERED = re.compile(r"(?P<before>.*?)[ _-]*\(?(?P<number>\d{1,4})\)?")


def naming_of(patterns: str | Sequence[str] | None, names: Iterable[str]) -> Naming:
    """Return the rules for reading the vases from `names`, the relative paths of all photographs.

    If `patterns` are given, they are the rules. Otherwise the built-in pattern that fits best is the only rule. If none
    fits, there are no rules. Raise ConfigError for a pattern that is invalid or that matches no name.
    """
    names = sorted(set(names))
    given = tuple(rule_of(pattern) for pattern in as_list(patterns))
    for rule in given:
        if names and not any(rule.read(name) for name in names):
            raise ConfigError(
                f"The name pattern {rule.name} matches none of {len(names)} names ({_examples(names)}); correct it, or"
                " leave it out to use the built-in pattern that fits."
            )
    return _with_bare_ids(given or _fitting(names), names)


def recorded(named_by: Sequence[str]) -> Naming:
    """Return the rules that an earlier step used. `named_by` holds the names of these rules, from the step's report."""
    return Naming(tuple(rule_of(name) for name in named_by))


def unmatched_error(unmatched: Sequence[str], naming: Naming, everyone: int) -> DataError:
    """Return the error for names that match no rule. The message gives examples, the nearest pattern and a remedy."""
    nearest, why = _nearest(unmatched, naming)
    fits = f"the others fit {naming}; " if naming.rules else ""
    return DataError(
        f"{len(unmatched)} of {everyone} names do not say which vase they show (such as {_examples(unmatched)});"
        f" {fits}the nearest pattern is {nearest} ({why}); put the photographs of each vase into a folder of its own,"
        " give name_pattern, or set unmatched: own-vase if each photograph shows a different vase."
    )


def refuse_unmatched(found: Sequence[ImageFile], naming: Naming) -> None:
    """Raise DataError if the name of a readable photograph matches no rule.

    To ignore unreadable files, the function opens the photographs whose names match no rule. It stops when it has found
    three readable ones, which are the examples in the message.
    """
    strangers = [item for item in found if not item.problem and parse_name(item.name, naming) is None]
    readable = list(itertools.islice((item.name for item in strangers if _is_readable(item)), 3))
    if readable:
        names = [*readable, *(item.name for item in strangers if item.name not in readable)]
        raise unmatched_error(names, naming, len(found))


def _is_readable(item: ImageFile) -> bool:
    try:
        open_image(item.path, 64)
    except Unreadable:
        return False
    return True


def said(naming: Naming, photographs: int, vases: int) -> str:
    """Return a sentence that names the chosen patterns, so that the user can notice a wrong choice."""
    by = f"by {naming}" if naming.rules else "by their whole names"
    return f"vases told apart {by}: {photographs} photographs of {vases} vases"


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:3])


def _fitting(names: Sequence[str]) -> tuple[Rule, ...]:
    """Return the built-in rule that fits the names best, as the only element of a tuple, or () if no rule fits."""
    read = {key: _read_all(rule, names) for key, rule in BUILT_IN.items()}
    if names and 2 * len(read[UUID_VIEW]) >= len(names):
        return (BUILT_IN[UUID_VIEW],)
    fits = {key: len(found) for key, found in read.items() if found and not _OBJECTIONS[key](found)}
    return (BUILT_IN[max(fits, key=lambda key: fits[key])],) if fits else ()


def _read_all(rule: Rule, names: Iterable[str]) -> dict[str, VaseView]:
    return {name: found for name in names if (found := rule.read(name))}


def _with_bare_ids(rules: tuple[Rule, ...], names: Sequence[str]) -> Naming:
    """Return `rules` as a Naming that also reads file names without a view, if other names contain the vase's id.

    `F 2159.jpg` is then a view of the same vase as `F 2159_2.jpg`. Only the patterns id_view and id (n) have such ids.
    """
    naming = Naming(rules)
    if not {ID_VIEW, ID_NUMBER} & set(naming.names):
        return naming
    vases = {found.vase for name in names if (found := parse_name(name, naming))}
    return Naming(rules, frozenset(vases))


def _nearest(unmatched: Sequence[str], naming: Naming) -> tuple[str, str]:
    """Return the built-in pattern that is nearest to the names, and a text about this pattern.

    The text says why the pattern was not chosen, or gives an example of a matching name.
    """
    read = {key: _read_all(rule, unmatched) for key, rule in BUILT_IN.items() if key not in naming.names}
    key = max(read, key=lambda key: len(read[key]), default=ID_VIEW)
    if read.get(key):
        return key, _OBJECTIONS[key](read[key]) or f"such as {_EXAMPLES[key]}"
    stems = [PurePosixPath(name).stem for name in unmatched]
    cameras = sum(map(is_camera_name, stems))
    marks = Counter(
        FOLDER_VIEW if "/" in name else ID_NUMBER if stem.endswith(")") else ID_VIEW
        for name, stem in zip(unmatched, stems, strict=True)
    )
    key = marks.most_common(1)[0][0]
    return key, "camera numbers are not vase ids" if 2 * cameras > len(stems) else f"such as {_EXAMPLES[key]}"


def _uuid_objection(found: Mapping[str, VaseView]) -> str:
    return ""


def _id_objection(found: Mapping[str, VaseView]) -> str:
    """Return a reason why the names should not be read as ids and views, or '' if there is no such reason."""
    vases = {view.vase for view in found.values()}
    if len(vases) < 2:
        return f"all images would belong to one vase, {next(iter(vases))}"
    if all(map(is_date, vases)):
        return "the ids would be dates"
    if 2 * sum(view.kind == "free" for view in found.values()) > len(found):
        return "the text after the id is not a known view"
    numbers: dict[str, list[int]] = defaultdict(list)
    places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for name, view in found.items():
        places[view.vase].add(vase_folder(name))
        if view.kind == "number":
            numbers[view.vase].append(int(view.view))
    counted = sum(map(len, numbers.values()))
    if sum(len(some) for some in numbers.values() if _count_views(some)) < MOST * counted:
        return "the numbers do not count the views of each vase from 1"
    twice = next((vase for vase, where in places.items() if len(where) > 1), None)
    if twice is None:
        return ""
    one, other = ["/".join(folder) or "." for folder in sorted(places[twice])[:2]]
    return f"{twice} lies in two folders, {one} and {other}, which may hold two vases"


def _folder_objection(found: Mapping[str, VaseView]) -> str:
    """Return a reason why each folder should not be read as one vase, or '' if there is no such reason."""
    folders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in found:
        folders[vase_folder(name)].append(name)
    names = Counter(plain(folder[-1]) for folder in folders)
    if len(folders) < 2:
        return f"all images would belong to one vase, the folder {next(iter(folders))[-1]}"
    if set(names) <= {"0", "1"}:
        return "the folders 0 and 1 are labels"
    if all(map(is_date, names)):
        return "the folders are dates"
    words = [name for name in names if not any(mark.isdigit() for mark in name)]
    if len(words) > (1 - MOST) * len(names):
        return f"a folder such as {words[0]} may hold several vases; otherwise set name_pattern: {FOLDER_VIEW}"
    twice, times = names.most_common(1)[0]
    if times > 1:
        return f"{times} folders are called {twice}"
    several = [folder for folder, inside in folders.items() if _subjects(folder[-1], inside) > 1]
    if len(several) > (1 - MOST) * len(folders):
        return f"the folder {several[0][-1]} seems to hold several vases"
    return ""


_OBJECTIONS: Mapping[str, Callable[[Mapping[str, VaseView]], str]] = {
    UUID_VIEW: _uuid_objection,
    ID_NUMBER: _id_objection,
    ID_VIEW: _id_objection,
    FOLDER_VIEW: _folder_objection,
}


def _count_views(numbers: Sequence[int]) -> bool:
    """Return whether the numbers look like a count of one vase's views, with few gaps.

    The numbers may begin with 0 or 1. They may begin with 2 if the first view has a name without a number.
    """
    return min(numbers) <= 2 and max(numbers) <= 2 * len(numbers) + 1


def _subjects(folder: str, names: Sequence[str]) -> int:
    """Return how many different subjects the file names in one folder mention.

    Camera names, view words, consecutive numbers and the folder's own name are not subjects.
    """
    own = _key(folder)
    numbers: dict[str, set[str]] = defaultdict(set)
    subjects = set()
    for name in names:
        stem = unicodedata.normalize("NFC", PurePosixPath(name).stem).casefold()
        rest = stem.removeprefix(unicodedata.normalize("NFC", folder).casefold())
        # A number after an id is a view (B12/B12_2.jpg). A number after a town may be an id (berlin/berlin_44.jpg).
        if is_camera_name(stem) or (rest != stem and any(mark.isdigit() for mark in folder)):
            continue
        stem = rest
        match = re.search(rf"(?:^|(?<=[ _-])){_TAIL.pattern}$", stem, re.IGNORECASE)
        rest = stem[: match.start()] if match else stem
        number = _NUMBERED.fullmatch(rest)
        if number:
            numbers[_key(number["before"])].add(number["number"])
        elif _key(rest):
            subjects.add(_key(rest))
    for before, some in numbers.items():
        counted = _count_views([int(number) for number in some])
        if counted or (not before and all(number.startswith("0") for number in some)):
            subjects |= {before} if before else set()
        else:
            subjects |= {before + number for number in some}
    return len({subject for subject in subjects if subject not in own})


def _key(text: str) -> str:
    return "".join(mark for mark in text.casefold() if mark.isalnum())
