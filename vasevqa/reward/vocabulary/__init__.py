"""Read the vocabulary: concepts about vases with labels in several languages, in files that a historian can edit.

Each kind of concept (shape, technique, fabric, place, figure) has a YAML file in this folder. The file maps each
concept to its labels by language and to its wider concept. The files were written for this project. A label matches
whole words. Accents, case and hyphens are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from vasevqa.errors import ConfigError
from vasevqa.reward.words import words
from vasevqa.text import nearest
from vasevqa.yaml_files import FileKind, Lines, parse, read_text

# The attributes of a vase, in the order of a catalogue entry.
ATTRIBUTES = ("fabric", "technique", "shape", "provenance", "date", "attribution", "decoration", "caption")
KINDS = ("shape", "technique", "fabric", "place", "figure")
FILE = FileKind("vocabulary", "give a YAML file of concepts, such as vasevqa/reward/vocabulary/shape.yaml")
FOLDER = Path(__file__).parent
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")
_ABOVE = ("broader", "within")
SHORTEST_INFLECTED = 4  # letters; shorter words have other forms
_TYPES = ("type", "shape", "form", "typ", "tipo", "forme", "forma")
_ENDINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((end, tuple(f"{end}{more}" for more in ("e", "er", "es", "en", "em"))) for end in ("isch", "ig")),  # German
    *((end, (f"{end}ne", f"{end}nes")) for end in ("ien", "een")),  # French
    *((end, (f"{end}e", f"{end}es")) for end in ("ais", "ain", "ois")),
    ("e", ("er", "es", "en")),  # rote, roter
    ("o", ("a", "i", "e", "he", "hi", "as")),  # Italian and Spanish: attico, attica, attiche
)
_INFLECTED = ("technique", "fabric")  # kinds whose labels are adjectives in the languages below
_LANGUAGES = ("de", "fr", "it", "es")
_OTHER_WORDS = frozenset({"campana", "campane"})  # Italian for bell: a "cratere a campana" is not Campanian
_OTHER = ("use", "extra", "parts", "common", "uri")


@dataclass(frozen=True)
class Concept:
    """One concept of the vocabulary.

    `labels` are normalized word sequences. `above` is the name of the next wider concept, or "" if there is none.
    """

    name: str
    labels: tuple[str, ...]
    above: str = ""
    use: str = ""  # concepts with the same use are siblings
    extra: bool = False  # an additional technique, such as added white
    parts: tuple[str, ...] = ()  # the concepts that this one consists of
    common: bool = False  # says little about one vase
    uri: str = ""  # the concept's address, if the user's vocabulary gives one
    inflected: tuple[str, ...] = ()  # the labels that are adjectives with endings


@dataclass(frozen=True)
class Terms:
    """The concepts of one kind, with methods to find them in texts."""

    concepts: Mapping[str, Concept]
    by_label: Mapping[str, str]
    longest: int = field(default=1)  # number of words in the longest label

    def find(self, text: str) -> list[str]:
        """Return the names of the concepts in `text`, in order and without repetition. Longer labels match first.

        A concept is left out if a narrower one occurs too: "hydria (kalpis)" is a kalpis.
        """
        return list(self._narrowest(tuple(words(text))))

    @lru_cache(maxsize=4096)  # noqa: B019 - a vocabulary lives as long as the process
    def _narrowest(self, said: tuple[str, ...]) -> tuple[str, ...]:
        names = list(dict.fromkeys(name for name, _, _ in self.spans(said)))
        above = {wider for name in names for wider in self.wider(name)}
        return tuple(name for name in names if name not in above)

    def spans(self, said: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
        """Yield (concept, begin, end) for each label in a sequence of words.

        `end` is the index after the label's last word.
        """
        at = 0
        while at < len(said):
            if said[at] not in self._beginnings:
                at += 1
                continue
            for length in range(min(self.longest, len(said) - at), 0, -1):
                name = self.by_label.get(" ".join(said[at : at + length]))
                if name is not None:
                    yield name, at, at + length
                    at += length
                    break
            else:
                at += 1

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        """The first words of all labels."""
        return frozenset(label.partition(" ")[0] for label in self.by_label)

    def wider(self, name: str) -> list[str]:
        """Return the concepts above `name`, the nearest first."""
        chain: list[str] = []
        above = self.concepts[name].above
        while above and above not in chain:
            chain.append(above)
            above = self.concepts[above].above if above in self.concepts else ""
        return chain

    def __hash__(self) -> int:
        return id(self)


_own: Path | None = None


def use(folder: Path | None) -> None:
    """Add the files in `folder` to the vocabulary of this process. If `folder` is None, remove all added files.

    Raise ConfigError if `folder` holds no vocabulary file, or an invalid one.
    """
    global _own  # noqa: PLW0603 - each process has one vocabulary
    if folder is not None:
        check(folder)
    _own = folder


def check(folder: Path) -> None:
    """Raise ConfigError if `folder` holds no vocabulary file, or an invalid one."""
    kinds = [kind for kind in KINDS if (folder / f"{kind}.yaml").is_file()]
    if not kinds:
        named = ", ".join(f"{kind}.yaml" for kind in KINDS)
        raise ConfigError(f"The vocabulary {folder} holds none of {named}; give a folder with at least one of them.")
    for kind in kinds:
        wrong = problems(merged(read(FOLDER / f"{kind}.yaml"), read(folder / f"{kind}.yaml")))
        if wrong:
            raise ConfigError(f"{folder / kind}.yaml: {wrong[0]}; `vasevqa vocabulary check` lists all problems.")


def load(kind: str, own: Path | None = None) -> Terms:
    """Return the terms of a kind of concept.

    If the user has a vocabulary folder, its concepts are added. The folder is `own` or, if `own` is None, the folder
    that was given to `use`. A user's concept replaces this project's concept of the same name.
    """
    return _load(kind, own or _own)


@lru_cache(maxsize=16)
def _load(kind: str, own: Path | None) -> Terms:
    concepts = read(FOLDER / f"{kind}.yaml")
    if own is not None and (own / f"{kind}.yaml").is_file():
        concepts = merged(concepts, read(own / f"{kind}.yaml"))
    return terms_of(concepts)


def merged(ours: Mapping[str, Concept], theirs: Mapping[str, Concept]) -> dict[str, Concept]:
    """Return both vocabularies as one. A concept in `theirs` replaces a concept of the same name in `ours`."""
    return {**ours, **theirs}


def read(path: Path) -> dict[str, Concept]:
    """Return the concepts in a file. Raise ConfigError if the file is invalid. The message names the invalid line."""
    lines = Lines(str(path))
    tree = parse(read_text(path, FILE), lines, aliases=True, as_written=True)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a mapping; write lines such as `concept: {{en: [label, ...]}}`.")
    return {name: _concept(name, given, lines, path.stem in _INFLECTED) for name, given in tree.items()}


def _concept(name: str, given: object, lines: Lines, inflected: bool) -> Concept:
    at = lines.at
    if not isinstance(given, dict):
        raise ConfigError(f"{at(name)}: '{name}' is not a mapping; write `{name}: {{en: [label, ...]}}`.")
    labels: list[str] = []
    adjectives: list[str] = []
    for key, value in given.items():
        if key in (*_ABOVE, *_OTHER):
            continue
        if not _LANGUAGE.fullmatch(key):
            known = nearest(key, [*_ABOVE, *_OTHER])
            raise ConfigError(
                f"{at(name, key)}: '{key}' is neither a language (en, de, el, ...) nor a property; correct it.{known}"
            )
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(label, str) and words(label) for label in several):
            raise ConfigError(
                f"{at(name, key)}: the labels of '{name}' are not a list of texts; write a list such as `[{name}]`."
            )
        labels += several
        adjectives += several if inflected and key.partition("-")[0] in _LANGUAGES else []
    parts = given.get("parts") or []
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{at(name, 'parts')}: `parts` is not a list of concepts; write `parts: [concept, ...]`.")
    plain = dict.fromkeys(" ".join(words(label)) for label in (name, *labels))
    return Concept(
        name=name,
        labels=tuple(plain),
        above=_text(name, given, "broader", lines) or _text(name, given, "within", lines),
        use=_text(name, given, "use", lines),
        extra=_flag(name, given, "extra", lines),
        parts=tuple(parts),
        common=_flag(name, given, "common", lines),
        uri=_text(name, given, "uri", lines),
        inflected=tuple(dict.fromkeys(" ".join(words(label)) for label in adjectives)),
    )


def _text(name: str, given: Mapping[str, object], key: str, lines: Lines) -> str:
    value = given.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{lines.at(name, key)}: `{key}` of '{name}' is not a text; write `{key}: TEXT`.")
    return value or ""


def _flag(name: str, given: Mapping[str, object], key: str, lines: Lines) -> bool:
    value = given.get(key, "false")  # booleans are read as they are written
    if not isinstance(value, str) or value.lower() not in ("true", "false"):
        raise ConfigError(f"{lines.at(name, key)}: `{key}` of '{name}' is neither true nor false; write one of them.")
    return value.lower() == "true"


def terms_of(concepts: Mapping[str, Concept]) -> Terms:
    """Return terms that find the concepts in texts by their labels, and by other forms of these labels.

    Other forms are generated, such as inflected forms and an inverted order of the words. A label in the file has
    priority over a generated form. Of two equal labels in the file, the first has priority.
    """
    by_label: dict[str, str] = {}
    for concept in concepts.values():
        for label in concept.labels:
            by_label.setdefault(label, concept.name)
    for concept in concepts.values():
        for label in concept.labels:
            # "hydria, loutrophoros" lists two shapes; it is not the loutrophoros-hydria inverted.
            several = " " in label and all(word in by_label for word in label.split())
            for made in () if several else _forms(label, label in concept.inflected):
                by_label.setdefault(made, concept.name)
    return Terms(concepts, by_label, max((label.count(" ") + 1 for label in by_label), default=1))


def _forms(label: str, inflected: bool) -> Iterator[str]:
    """Yield other forms of a label, so that a file needn't list them.

    The first form is the plural. Adjectives also get German, French, Italian and Spanish endings. If a word such as
    "type" stands between a name and its letter or number, other words for "type" replace it. A label of two or three
    words is also yielded in inverted order and as one word.
    """
    parts = label.split()
    yield f"{label}s"
    for ending, others in _ENDINGS if inflected else ():
        if label.endswith(ending) and len(parts[-1]) > SHORTEST_INFLECTED:
            forms = (label.removesuffix(ending) + other for other in others)
            yield from (form for form in forms if form not in _OTHER_WORDS)
    if len(parts) > 2 and parts[-2] in _TYPES:
        yield from (" ".join([*parts[:-2], word, parts[-1]]) for word in _TYPES)
    if 1 < len(parts) <= 3 and min(map(len, parts)) > 1:  # krater, column; but "a cup" is not a cup of type A
        yield " ".join([parts[-1], *parts[:-1]])
        yield "".join(parts)


def problems(concepts: Mapping[str, Concept]) -> list[str]:
    """Return the errors in the relations between concepts, such as missing wider concepts, missing parts and cycles."""
    errors = []
    for concept in concepts.values():
        for other in filter(None, (concept.above, *concept.parts)):
            if other not in concepts:
                errors.append(f"{concept.name}: there is no concept '{other}'.{nearest(other, list(concepts))}")
        seen, above = {concept.name}, concept.above
        while above in concepts:
            if above in seen:
                errors.append(f"{concept.name}: its wider concepts form a cycle through {above}; remove one link")
                break
            seen.add(above)
            above = concepts[above].above
    return errors


def shared_labels(concepts: Mapping[str, Concept]) -> list[str]:
    """Return a line of text for each label that two concepts share. The label then stands for the first concept."""
    owner: dict[str, str] = {}
    return [
        f"{concept.name}: '{label}' also belongs to {owner[label]}, which is used"
        for concept in concepts.values()
        for label in concept.labels
        if owner.setdefault(label, concept.name) != concept.name
    ]
