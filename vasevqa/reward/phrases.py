"""Find the sentences of an answer that attribute the vase to a painter, group or class.

An answer may be a record ("BERLIN P by BEAZLEY"), a sentence ("The vase is attributed to the Berlin Painter") or
several sentences. Sentences about other things, or about the painter, are not attributions.
"""

from __future__ import annotations

import re

# A full stop ends a sentence after a word of four letters or more, because shorter words may be abbreviations.
_END = re.compile(
    r"(?<=[^\W\d_]{4})(?<!\bpntr)\.(?=\s)|[!?](?=\s+(?:the|it|this|he|she|his|her|its|in)\b)|\n"
    r"|(?<=\w)\.(?=\s+(?:the|it|this|he|she|his|her|its|they|such)\b)"
)
# The sentence is about the painter or the group, not about the vase.
_ABOUT = re.compile(
    r"\A\s*(?:he|she|his|her|they|their|er|sie|il|elle|lui|egli)\b"
    r"|\A\s*(?:it|this) (?:was|is) an? (?:\w+ )?(?:workshop|group|class)\b"
    r"|\b(?:his|her|their) (?:teacher|master|pupil|follower|successor|colleague|companion)s?\b"
)
_ATTRIBUTES = re.compile(
    r"\b(?:painter|group|class|workshop|ptr|pntr|maler|gruppe|klasse|werkstatt|peintre|groupe|atelier|pittore|gruppo"
    r"|officina|manner|circle|follower|artist|hand|attribu\w*|assign\w*|ascrib\w*|signed|painted by|work of"
    r"|zugeschrieben|zuzuschreiben|zuzuweisen)\b"
)
_THEREFORE = re.compile(
    r"\A\s*(?:therefore|thus|hence|consequently|so)\b,?\s*"
    r"|\A.*,\s*(?:and )?(?:so|therefore|thus|hence) (?=(?:it|this|the \w+) (?:is|was|must be|should be)\b)"
)
# A statement about the painter after the painter's name: "the Berlin Painter was active in Athens".
_NAMED = r"painter|group|class|workshop|ptr|pntr|maler|gruppe|peintre|groupe|pittore|gruppo"
_TOLD = re.compile(
    rf"(?P<name>\b(?!(?:the|its|this|a) (?:{_NAMED}))\w+ (?:{_NAMED})\b\.?),?\s+(?:(?:was|is|were|are) (?!not\b|near\b)"
    r"|(?:worked|works|lived|has|had|specialised|specialized|decorated|signed|painted|made|likes|liked|often|usually)\b"
    r"|(?:war|ist|etait|est|fu|era)\b(?! nicht)).*\Z"
)


def attributing(text: str) -> str:
    """Return the sentences of a normalized text that attribute the vase, joined by semicolons.

    If no sentence contains a word of attribution, such as "painter" or "attributed", the first sentence is returned.
    """
    sentences = [sentence for sentence in _END.split(text) if sentence.strip(" .,;")]
    own = [one for number, one in enumerate(sentences) if number == 0 or not _ABOUT.search(one)]
    kept = [one for one in own if _ATTRIBUTES.search(one)] or own[:1]
    return "; ".join(_name_alone(_THEREFORE.sub("", one.strip())) for one in kept)


def _name_alone(sentence: str) -> str:
    return _TOLD.sub(lambda match: match["name"], sentence)
