"""Compute the scores of find-spots in a hierarchy of places.

The most specific place in the truth gives the highest score. A wider place gives a lower score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vasevqa.reward.claims import claims
from vasevqa.reward.vocabulary import Terms, load
from vasevqa.reward.words import content, likeness, overlap, words

SITE = 0.9  # score of the most specific name alone
REGION, COUNTRY = 0.4, 0.2
WRONG_SITE = 0.22  # score of a wrong site in the right region
MOST = 3  # maximum number of places in an answer
SPELT = 0.85  # minimum similarity of a misspelt name
WRONG_REGION = 0.1  # score of a wrong site in the right country


def score_place(text: str, truth: str) -> tuple[float, str]:
    """Return the score of `text` against the place that `truth` names, and an explanation."""
    terms = load("place")
    claim = claims(text)
    known, said = terms.find(truth), terms.find(claim.asserted)
    chain = [*reversed(terms.wider(known[-1])), known[-1]] if known else []
    own = _unknown(truth, terms)
    if own:  # the truth's most specific name is not in the vocabulary
        return _by_words(own, text, known, said, terms)
    if not chain:
        close = overlap(content(text) or words(text), content(truth) or words(truth))
        return close, f"names overlap by {close:.0%}"
    if not said:
        return _spelt(claim.asserted, chain[-1], terms)
    values = [_value(name, chain, terms) for name in said]
    value = _one_of(values)
    named = set(terms.concepts[chain[-1]].labels) | set(chain)
    if value == SITE:
        wider = {name for one in said for name in terms.wider(one)} | set(said)
        spoken = {name for name in chain[:-1] if _names(claim.asserted, name, terms)}
        written = {name for name in chain[:-1] if _names(truth, name, terms)}
        value = 1.0 if spoken >= written and wider and named else SITE + 0.05 * bool(spoken)
    return value, f"{', '.join(said[:3])} against {' > '.join(chain)}"


def _one_of(values: Sequence[float]) -> float:
    """Return the score of an answer from the scores of the places that it names. A long list gets a low score."""
    return max(values) / len(values) if len(values) <= MOST else min(values)


def _value(name: str, chain: Sequence[str], terms: Terms) -> float:
    if name == chain[-1]:
        return SITE
    above = terms.wider(name)
    if chain[-1] in above:  # the answer is a place inside the right place
        return SITE
    if name in chain:
        return COUNTRY if chain.index(name) == 0 else REGION
    shared = [place for place in above if place in chain]
    if not shared:
        return 0.0
    return WRONG_SITE if chain.index(shared[0]) > 0 else WRONG_REGION


def _names(text: str, name: str, terms: Terms) -> bool:
    """Return whether a label of a concept occurs in a text, even if a label of a narrower concept occurs too."""
    return any(concept == name for concept, _, _ in terms.spans(tuple(words(text))))


def _unknown(truth: str, terms: Terms) -> list[str]:
    """Return the words of the last part of the truth, if the vocabulary doesn't contain this part."""
    parts = [part for part in re.split(r"[,;>]", truth) if words(part)]
    if not parts or terms.find(parts[-1]):
        return []
    return content(parts[-1]) or words(parts[-1])


def _by_words(
    own: Sequence[str], text: str, known: Sequence[str], said: Sequence[str], terms: Terms
) -> tuple[float, str]:
    """Return the score of an answer if the vocabulary doesn't contain the true place, and an explanation.

    `text` is the answer, and `own` holds the words of the true place's name. `known` and `said` hold the places in the
    truth and in the answer that the vocabulary contains.
    """
    asserted = claims(text).asserted
    chain = [*reversed(terms.wider(known[-1])), known[-1]] if known else []
    if set(own) <= set(words(asserted)):
        value = 1.0 if set(known) <= set(said) else SITE
        wrong = [name for name in said if name not in chain and not _may_hold(name, chain, terms)]
        others = _other_names(text, own, terms) + len(wrong)
        return _one_of([value] + [0.0] * others), "names the place" + (" and others" if others else "")
    if said and chain:
        return _one_of([_value(name, [*chain, ""], terms) for name in said]), f"names {', '.join(said[:3])} only"
    close = overlap([word for word in words(asserted) if word in own or len(word) > 3], own)
    return min(close, 0.5) if close > 0.6 else 0.0, f"names overlap by {close:.0%}"


def _other_names(text: str, own: Sequence[str], terms: Terms) -> int:
    """Return how many names in a list of places are neither the right name nor in the vocabulary.

    `text` is the list, and `own` holds the words of the right name.
    """
    parts = [part.strip() for part in re.split(r"[,;/|\n]|\bor\b", text)]
    names = [part for part in parts if part[:1].isupper() and not terms.find(part)]
    return sum(not (set(content(name)) <= set(own) or set(own) <= set(words(name))) for name in names)


def _may_hold(name: str, chain: Sequence[str], terms: Terms) -> bool:
    """Return whether the true place, which is not in the vocabulary, may lie in the region `name`."""
    holds_places = any(concept.above == name for concept in terms.concepts.values())
    return holds_places and (not chain or chain[-1] in terms.wider(name))


def _spelt(text: str, name: str, terms: Terms) -> tuple[float, str]:
    best = max(
        (
            likeness(word, label, SPELT)
            for word in words(text)
            for label in terms.concepts[name].labels
            if len(word) > 3
        ),
        default=0.0,
    )
    return SITE * best, f"spelt {best:.0%} like {name}"
