"""Compute the scores of attributions in the form that catalogues use.

An example is `CHIUSI P by KUNZE-GOTTE | LEAGROS GROUP by KUNZE-GOTTE`. An attribution has a name, a kind (painter,
group, class) and a relation (by, manner of, near, ...). The scholar after "by" is not part of the attribution. The
abbreviations come from the Beazley Archive and from Beazley's lists (ABV, ARV2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from vasevqa.reward.claims import claims
from vasevqa.reward.phrases import attributing
from vasevqa.reward.words import likeness, normalize, words

RELATION, KIND = 0.5, 0.5  # scores of the right name with a wrong relation, or with a wrong kind
NEAR_RELATION = 0.8  # score for two different relations of followers
_RELATIONS = (
    (
        "manner",
        r"(?:in the )?manner of|recalls?|imitat\w+(?: of)?|style of|art des|maniere d[eu]|maniera d[ei]l?"
        r"|(?<=, )manner$",
    ),
    ("near", r"near(?: to)?|close to|compare|akin to|nahe(?: bei)?"),
    ("circle", r"(?:from the )?circle of|kreis des|(?<=, )circle$"),
    ("follower", r"followers? of|pupil of|successor of|nachfolger des|(?<=, )(?:follower|pupil)$"),
    ("related", r"related to|connected with|linked to"),
    ("school", r"(?:from the )?school of|(?<=, )school$"),
)
_WORKSHOP = re.compile(
    r"\b(?:from the )?workshop(?: of)?\b|\bwerkstatt(?: des)?\b|\batelier(?: d[eu])?\b|\bofficina d[ei]l?\b"
)
_KINDS = (
    ("painter", r"painters?|ptr\b\.?|pntr\b\.?|p\b\.?|maler|peintre|pittore|pintor"),
    ("group", r"groups?|gp\b\.?|gruppe|groupe|gruppo"),
    ("class", r"class|klasse"),
    ("workshop", r"\0"),
)
_BY = re.compile(r"(?:\bby|,? (?:after|according to|following|selon|secondo|nach))\s+[^,;|]+$")  # the scholar
_ARTIST = r"artist|painter|hand|attribution|master"
_MADE = r"painted|decorated|signed|made|produced|executed|drawn|created"
_LEAD = re.compile(
    r"^.*\b(?:i would|i'd|i should|one could|one would) (?:call|name|identify|recogni[sz]e)\b"
    r"(?: (?:it|him|this|here))?(?: as)?"
    rf"|^.*\b(?:{_MADE}|work) by\b|^(?:it |this |the vase |the \w+ )?(?:is |was |has been )?"
    r"(?:(?:most |very )?(?:probably|perhaps|possibly|likely) )*by\b(?: the hand of\b)?"
    r"|^.*\b(?:attribu\w*|assign\w*|ascrib\w*|connect\w*)\b(?: [\w-]+){0,4}? (?:to|al?|au|aux|all')(?=\W)"
    r"|^.*\bbelongs? to\b|^.*\b(?:work|hand|name|style) of\b(?= the\b)|^.*\b(?:known|called|named) (?:as )?(?=the\b)"
    rf"|^.*\b(?:suggests?|indicates?|points to)\b|^.*\b(?:the )?(?:{_ARTIST}) is\b|^(?:wird|wurde|ist|wohl)\b"
    r"|^(?:it|this(?: \w+)?|the \w+) (?:comes|came|is|originates|derives|stems) (?=from\b)"
    r"|^(?:it|this(?: \w+)?|the (?:vase|pot|piece|work)) (?:is|was|seems|appears|must be|should be)(?: to be)? "
    r"|^(?:an? )?(?:painter|artist|member) (?:of|from|in)\b(?= the .*\b(?:group|class)\b)"
)
_TAIL = re.compile(
    r"\b(?:zugeschrieben|zuzuschreiben|zuzuweisen|as painter|himself|herself"
    r"|(?:painted|made|signed|decorated|drew) (?:it|this|the \w+))\b.*$"
    r"|,\s*(?:an?|one of|who|whose|which|active|working)\b.*$"
    r"|,?\s*\b(?:in my (?:view|opinion|judge?ment)|on account of|because|judging (?:by|from)|based on|given (?:the|its)"
    r"|due to|owing to|i (?:think|believe|suppose|would say)|as (?:is|are) shown|by (?:its|the) style)\b.*$"
    r"|\b(?:around|about|circa|ca?\.|in|um|vers)\s+(?:the\s+)?(?:\d|early|late|mid\b|\w+ (?:century|quarter|half)).*$"
)
_HEDGE = re.compile(r"\?|\b(?:probably|perhaps|possibly|likely|maybe|attribu\w+|signed|wohl|vielleicht)\b")
_LATIN = (
    (r"kh", "ch"),
    (r"k", "c"),
    (r"ai", "ae"),
    (r"oi(?=\w)", "oe"),
    (r"ei", "i"),
    (r"ou", "u"),
    (r"(?:os|us)\b", "us"),
    (r"(?:r|er)us\b", "er"),
    (r"on\b", "o"),
)
_SMALL = {
    "the",
    "of",
    "a",
    "an",
    "to",
    "from",
    "in",
    "des",
    "der",
    "dem",
    "du",
    "de",
    "la",
    "le",
    "di",
    "del",
    "i",
    "ii",
    "iii",
}


@dataclass(frozen=True)
class Hand:
    """One attribution. `name` holds the words of the name without the kind. It is empty if the text gives no name."""

    name: tuple[str, ...]
    kind: str
    relation: str


def score_attribution(text: str, truth: str) -> tuple[float, str]:
    """Return the score of the answer `text` against the attributions in `truth`, and an explanation.

    The answer is right if it agrees with any attribution in `truth`.
    """
    known = [hand for part in _alternatives(truth) if (hand := read_hand(part)).name]
    if not known:
        same = normalize(text).strip(" .") == normalize(truth).strip(" .")
        return (1.0, "the same words") if same else (0.0, "the truth names no painter, group or class")
    said = [hand for part in _alternatives(attributing(claims(text).asserted)) if (hand := read_hand(part)).name]
    if not said:
        return 0.0, "the answer names no painter, group or class"
    values = [max(alike(hand, other) for other in known) for hand in said]
    best = max(values)
    # An answer with any hand of the truth is right. Wrong hands lower the score.
    value = sum(values) / len(values) if len(said) > len(known) else best if min(values) > 0 else best / len(said)
    return (
        value,
        f"{'; '.join(_told(hand) for hand in said[:3])} against {'; '.join(_told(hand) for hand in known[:3])}",
    )


def alike(said: Hand, known: Hand) -> float:
    """Return the similarity of two attributions, in [0, 1]."""
    name = _name_likeness(said.name, known.name)
    if name == 0:
        return 0.0
    kind = 1.0 if said.kind == known.kind or not {said.kind, known.kind} <= {"painter", "group", "class"} else KIND
    if "" in (said.kind, known.kind) and said.kind != known.kind:
        kind = 1.0 if len(known.name) > 1 or not known.kind else 0.6
    if said.relation == known.relation:
        relation = 1.0
    else:
        relation = NEAR_RELATION if said.relation and known.relation else RELATION
    return name * kind * relation


def _name_likeness(said: tuple[str, ...], known: tuple[str, ...]) -> float:
    if said == known or "".join(said) == "".join(known):
        return 1.0
    numbers = [{word for word in name if any(letter.isdigit() for letter in word)} for name in (said, known)]
    if not all(numbers) and any(numbers):
        shared = set(said) & set(known)
        return 0.25 if shared else 0.0  # "Painter of Berlin 1686" is not the Berlin Painter
    if all(numbers) and numbers[0] != numbers[1]:
        return 0.0
    if len(said) == 1 == len(known) and min(len(said[0]), len(known[0])) < 3:
        return 0.0  # short names such as Group E and Group G must be equal
    near = likeness(" ".join(said), " ".join(known))
    if near >= 0.85:
        return 0.95
    if _stem(" ".join(said)) == _stem(" ".join(known)) or _latin(" ".join(said)) == _latin(" ".join(known)):
        return 0.95
    return 0.0


def _latin(name: str) -> str:
    """Return a Greek name in Latin spelling, so that Epiktetos and Epictetus are equal."""
    for greek, latin in _LATIN:
        name = re.sub(greek, latin, name)
    return name


def _stem(name: str) -> str:
    return re.sub(r"(?:er|s|es|n)$", "", name)


@lru_cache(maxsize=4096)
def read_hand(text: str) -> Hand:
    """Return the attribution in a text."""
    plain = _TAIL.sub(" ", _LEAD.sub(" ", normalize(text).strip(" .;")))
    plain = _HEDGE.sub(" ", _BY.sub(" ", plain))
    plain = re.sub(r"\([^)]*\)|\b(?:inv|no)\b\.?", " ", plain).strip(" .,;")
    relation = ""
    for name, pattern in _RELATIONS:
        changed = re.sub(rf"\b(?:{pattern})\b", " ", plain)
        if changed != plain:
            relation, plain = name, changed
            break
    kind = ""
    changed = _WORKSHOP.sub(" ", plain)
    if changed != plain:
        relation, plain = relation or "workshop", changed
    for name, pattern in _KINDS[:3]:
        # "P" is a painter in "BERLIN P", and a letter in "Group P".
        changed = re.sub(rf"\b(?:{pattern})(?=\W|$)", " ", plain)
        if changed != plain:
            kind, plain = name, changed
            break
    left = tuple(word for word in words(re.sub(r"(?<=[a-z]) (?=\d)", " ", plain)) if word not in _SMALL)
    joined = re.sub(r"\b([a-z]) (\d)", r"\1\2", " ".join(left)).split()
    return Hand(tuple(joined), kind, relation)


def _alternatives(text: str) -> list[str]:
    parts = [part for part in re.split(r"\||;|\n|\s/\s|\bor\b", text) if words(part)]
    split = []
    for part in parts:
        pieces = [piece for piece in part.split(",") if words(piece)]
        # A comma separates two hands if each has a kind. "HAIMON P, WORKSHOP" and "Athens 581, I" are one hand.
        several = len(pieces) > 1 and all((hand := read_hand(piece)).kind and hand.name for piece in pieces)
        split += pieces if several else [part]
    return split


def _told(hand: Hand) -> str:
    return " ".join(filter(None, (hand.relation, *hand.name, hand.kind)))
