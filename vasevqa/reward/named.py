"""Compute the scores of answers that name a shape, technique or fabric, by the relations in the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from vasevqa.reward.claims import Claims, claims, without_gloss
from vasevqa.reward.vocabulary import Terms, load
from vasevqa.reward.words import likeness, words

CLASS = 0.8  # score of an answer with only the class, if the truth names a subtype
FINER = 0.9  # score of an answer with a subtype, if the truth names only the class
OTHER_SUBTYPE = 0.5
SIBLING = 0.15  # score of a different shape with the same use
MAIN = 0.8  # weight of the main techniques, if the truth adds other techniques
SPANS = 16  # maximum number of word positions in an answer where a misspelt label is searched
SPELT = 0.82  # minimum similarity of a misspelt label
_THEREFORE = re.compile(
    r"\b(?:therefore|thus|hence|consequently|so (?:it|this|that|the \w+) (?:is|was|must be|would be|should be)"
    r"|(?:making|which makes) (?:it|this)|also ist es|donc c'est|quindi è)\b,?",
    re.IGNORECASE,
)


def named(kind: str, text: str, truth: str) -> tuple[float, str] | None:
    """Return the score of the answer `text` against the shape, technique or fabric in `truth`, and an explanation.

    Return None if `truth` contains no name from the vocabulary.
    """
    terms = load(kind)
    known = parts_of(without_gloss(truth), terms)
    if not known:
        return None
    claim, said = named_in(text, terms)
    if not said:
        return _spelt(claim.asserted, known, terms)
    against = f"{', '.join(said[:4])} against {', '.join(known)}"
    if denies(claim, said, terms):
        return 0.0, f"the answer contradicts itself about {', '.join(said[:4])}"
    kept = [name for name in known if not denies(claim, [name], terms)]
    if not kept:
        return 0.0, f"the answer denies {', '.join(known)}"
    right = sum(max(alike(one, other, terms) for other in known) for one in said) / len(said)
    return right * _covered(said, known, terms) * len(kept) / len(known), against


def named_in(text: str, terms: Terms) -> tuple[Claims, list[str]]:
    """Return the claims of an answer, and the concepts that the answer asserts.

    Explanations and premises are ignored. For example, "Pelike (a type of amphora)" names only a pelike, and "The lip
    is that of a cup, so it is a kyathos" names only a kyathos. The reward, the exact match and the list of mistakes all
    read answers with this function.
    """
    claim = claims(_main_part(without_gloss(concluded(text, terms)), terms))
    return claim, parts_of(claim.asserted, terms)


def concluded(text: str, terms: Terms) -> str:
    """Return the conclusion of a text, which follows the last "so it is" or a similar phrase.

    Return the whole text if it has no such phrase, or if no concept follows the phrase. Also return the whole text if
    more than one concept precedes the phrase. Such concepts are a list of names, which is part of the answer. A premise
    names at most one concept.
    """
    *before, after = _THEREFORE.split(text)
    if not before or not parts_of(claims(after).asserted, terms):
        return text
    return after if len(parts_of(claims(" ".join(before)).asserted, terms)) <= 1 else text


def denies(claim: Claims, names: Iterable[str], terms: Terms) -> bool:
    """Return whether a text denies one of the concepts in `names`, or a wider concept of one of them."""
    denied = set(parts_of(claim.denied, terms))
    return any(denied & {name, *terms.wider(name)} for name in names)


def _main_part(text: str, terms: Terms) -> str:
    """Return `text` without an explanation in brackets: "pelike (storage jar)" becomes "pelike".

    The brackets of "amphora (neck)" are kept, because they name the type of amphora.
    """
    outside = re.sub(r"\([^)]*\)", " ", text)
    named_outside = set(terms.find(outside))
    if outside == text or not named_outside:
        return text
    whole = terms.find(text.replace("(", " ").replace(")", " "))
    finer = all(name in named_outside or named_outside & set(terms.wider(name)) for name in whole)
    return text if finer else outside


def parts_of(text: str, terms: Terms) -> list[str]:
    """Return the concepts in a text. A concept that consists of several concepts is replaced by its parts."""
    return list(_parts(text, terms))


@lru_cache(maxsize=4096)
def _parts(text: str, terms: Terms) -> tuple[str, ...]:
    names = terms.find(text)
    return tuple(dict.fromkeys(part for name in names for part in (terms.concepts[name].parts or (name,))))


def alike(one: str, other: str, terms: Terms) -> float:
    """Return the similarity of the answer's concept `one` to the true concept `other`, in [0, 1]."""
    if one == other:
        return 1.0
    above_one, above_other = terms.wider(one), terms.wider(other)
    if one in above_other:
        return CLASS
    if other in above_one:
        return FINER
    if set(above_one) & set(above_other):
        return OTHER_SUBTYPE
    uses = [
        terms.concepts[chain[-1] if chain else name].use for name, chain in ((one, above_one), (other, above_other))
    ]
    return SIBLING if uses[0] and uses[0] == uses[1] else 0.0


def _covered(said: Sequence[str], known: Sequence[str], terms: Terms) -> float:
    """Return the share of the true concepts that the answer names.

    If some true concepts are additions, such as added white, the other concepts together have the weight `MAIN`.
    """
    main = [name for name in known if not terms.concepts[name].extra] or list(known)
    added = [name for name in known if name not in main]

    def share(names: Sequence[str]) -> float:
        return sum(any(alike(one, name, terms) > 0 for one in said) for name in names) / len(names)

    if not added:
        return share(main) or 1.0
    return MAIN * share(main) + (1 - MAIN) * share(added)


def _spelt(text: str, known: Sequence[str], terms: Terms) -> tuple[float, str]:
    """Return the score of an answer that contains no known label. The answer may contain a misspelt label."""
    said = words(text)
    best, which = 0.0, known[0]
    for name in known:
        for label in terms.concepts[name].labels:
            length = label.count(" ") + 1
            count = min(SPANS, max(1, len(said) - length + 1))
            spans = [" ".join(said[begin : begin + length]) for begin in range(count)]
            near = max((likeness(span, label, SPELT) for span in spans), default=0.0) if len(label) > 3 else 0.0
            if near > best:
                best, which = near, name
    if best < SPELT:
        return 0.0, f"the answer has no known name; the truth is {', '.join(known)}"
    return 0.9 * best, f"spelt {best:.0%} like {which}"
