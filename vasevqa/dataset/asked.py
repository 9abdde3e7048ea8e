"""Find the attribute that a question asks for.

The question is first compared with known questions, and then with a pattern for each attribute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vasevqa.text import IMAGE_TAG

# A question that matches the patterns of two attributes is unclear, and it gets no attribute.
PATTERNS = {
    "fabric": r"\bfabric\b|\bware\b|\bgattung\b|\bfabrique\b|\bfabbrica\b",
    "technique": r"\btechnique\b|\btechnik\b|\btecnica\b|\btécnica\b|τεχνική",
    "shape": r"\bshape\b|\btype of (?:vessel|vase|pot)\b|\bgefäßform\b"
    r"|\b(?:welche|which) form\b|\bforme?\b.*\bvas[eo]\b"
    r"|\bvasenform\b|σχήμα",
    "provenance": r"\bprovenance\b|\bfind ?spot\b|\bwhere was\b.*\b(?:found|excavated|discovered)\b|\bfundort\b"
    r"|\bwo wurde\b.*\bgefunden\b|\bprovenienza\b|\bprocedencia\b|προέλευση",
    "date": r"\bdate\b|\bdated\b|\bwhen was\b|\bwhat (?:century|period)\b|\bhow old\b|\bdatier"
    r"|\bwann\b|\bdatazione\b|\bquando\b"
    r"|\bfecha\b|χρονολ",
    "attribution": r"\battribut(?:ion|ed)\b|\bwho (?:painted|made|decorated)\b|\bwhich (?:painter|artist|workshop)\b"
    r"|\bzugeschrieben\b|\bwer (?:hat )?.*\bgemalt\b|\battribuzione\b|ζωγράφος",
    "decoration": r"\bdecoration\b|\bdepict|\bwhat (?:scene|figures?)\b|\bshown on\b|\bdargestellt\b|\bdarstellung\b"
    r"|\bdecorazione\b|διακόσμηση",
    "caption": r"^(?:please )?describe (?:this|the) (?:vase|vessel|pot|image|picture)\b|\bcaption\b|\bbeschreibe\b",
}
_COMPILED = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in PATTERNS.items()}


def attribute_of(question: str, asked: Mapping[str, tuple[str, ...]]) -> str:
    """Return the attribute that a question asks for.

    Return "" if the question asks for no attribute, or if it asks for more than one. `asked` maps each attribute to
    known questions about it, such as the questions of build-dataset.
    """
    text = _plain(question)
    for attribute, questions in asked.items():
        if text in map(_plain, questions):
            return attribute
    attributes = [name for name, pattern in _COMPILED.items() if pattern.search(text)]
    return attributes[0] if len(attributes) == 1 else ""


def _plain(question: str) -> str:
    return " ".join(question.replace(IMAGE_TAG, " ").lower().split()).rstrip("?.! ")
