"""Separate the words that a text asserts from the words that it denies.

For example, "a kylix, not a skyphos" asserts a kylix and denies a skyphos.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from vasevqa.reward.words import STOP, content, normalize, words

# A word that denies the words after it. "no. 12" is a number, and "not later than" is part of a date.
_DENIAL = re.compile(
    r"\b(?:not only|nicht nur|non solo|no\. ?(?=\d)|not (?=(?:later|earlier|before|after|older|younger) )"
    r"|no (?=(?:later|earlier|older|younger) than )|no (?=\d+\b))"
    r"|\b(?P<deny>rather than|instead of|anything but|other than|in contrast to|as opposed to|unlike|neither|cannot"
    r"|can't|isn't|isnt|wasn't|aren't|weren't|doesn't|don't|not|never|without|nor|no"
    r"|nicht|kein|keine|keinen|keiner|weder|noch|ohne|statt|n'est pas|pas|sans|senza|non)\b"
)
# A question that the text goes on to answer: "Is it red-figure? No, ..."
_ASKED = re.compile(
    r"(?:\A|(?<=[.!?;] ))(?:is|was|are|could|might|may|can|which|what|whose|who|ist|est-ce|e) [^.!?;]*\?\s*(?=\w)"
)
_TURN = re.compile(
    r"[,.;:!?()\[\]|\n]|\b(?:but|however|instead|whereas|though|although|sondern|aber|mais|ma|bensi|sino)\b"
)
_ASIDE = re.compile(r",\s*(?:as|though|although|wie|comme|come)\b[^,.;]*,?")
_SUBJECT = re.compile(r"(?:it|this|that|the (\w+))?\s*(?:is|was|are|ist|est|e)?")
_GLOSS = re.compile(
    r"\(\s*(?:i\.?e\.?|a|an|the|also|or|that is|ein|eine|une?|una)?[^()]*\b(?:used|known|called|genannt|dit|detto"
    r"|(?:type|kind|form|sort|variety|style|Art|Typ|genre|tipo)s? (?:of|von|d[ei']|für))\b[^()]*\)"
    r"|,\s*(?:i\.?e\.?,?\s+)?(?:a|an|the|ein|eine)?\s*(?:type|kind|form|sort|variety|Art)\s+(?:of|von)\b[^,.;]*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:(?:do not|don't|cannot|can't|could not|unable to|not able to) (?:know|say|tell|see|determine|identify)"
    r"|no idea|not sure|unsure|as an ai|i am sorry|i'm sorry|impossible to (?:say|tell))\b"
)


@dataclass(frozen=True)
class Claims:
    """The asserted and the denied words of a text, in lower case and without accents."""

    asserted: str
    denied: str

    @property
    def contradictory(self) -> bool:
        """True if the text denies the words that it asserts, as in "a kylix, not a kylix"."""
        said = _about(self.asserted)
        return bool(said) and said in (_about(part) for part in self.denied.split(";"))


@lru_cache(maxsize=4096)
def claims(text: str) -> Claims:
    """Return the words that `text` asserts and the words that it denies.

    A denial ends at the next punctuation mark, or at a word such as "but". The patterns cover English, German, French
    and Italian.
    """
    plain = _ASKED.sub("", normalize(text))
    asserted, denied = [], []
    at = 0
    for match in _DENIAL.finditer(plain):
        if match["deny"] is None or match.start() < at:
            continue
        asserted.append(plain[at : match.start()])
        turn = _TURN.search(plain, match.end())
        if match["deny"] in ("neither", "weder"):  # the denial continues over "nor" and over a comma before "nor"
            later = re.compile(r"[,;]?\s*\b(?:nor|noch)\b").search(plain, match.end())
            turn = _TURN.search(plain, later.end()) if later else turn
        aside = _ASIDE.match(plain, turn.start()) if turn else None  # "not X, as one might think, but Y"
        turn = _TURN.search(plain, aside.end()) if aside else turn
        end = turn.start() if turn else len(plain)
        denied.append(plain[match.end() : end])
        at = end
    asserted.append(plain[at:])
    return Claims(_tidy(" ".join(asserted)), _tidy(" ; ".join(denied)))


def _about(text: str) -> set[str]:
    return set(content(text) or words(text))


def _tidy(text: str) -> str:
    tidy = re.sub(r"\b(?:but|sondern|instead|however)\b", " ", text)
    tidy = re.sub(r"^[\s,.;:!?]+|[\s,;:.!?]+$", "", tidy)
    subject = _SUBJECT.fullmatch(tidy)  # "the shape" is the rest of "the shape isn't a kylix"; "the Hydra" is an answer
    if subject and (subject[1] is None or subject[1] in STOP):
        return ""
    return " ".join(tidy.split()) if words(tidy) else ""


def without_gloss(text: str) -> str:
    """Return `text` without explanations such as "(a type of amphora)"."""
    return _GLOSS.sub(" ", text)


def is_refusal(text: str) -> bool:
    """Return whether a text says that the answer is unknown."""
    return _REFUSAL.search(normalize(text)) is not None
