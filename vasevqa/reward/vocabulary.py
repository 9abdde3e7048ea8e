"""Words for vases, and functions that compare texts.

The words are spellings of shapes, techniques, fabrics and painted subjects. The spellings follow the names of the
Beazley Archive and the Getty AAT.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

# What is asked about a vase, in the order in which a catalogue says it.
ATTRIBUTES = ("fabric", "technique", "shape", "provenance", "date", "attribution", "decoration", "caption")

SHAPES: dict[str, str] = {
    "amphora": "amphorae amphoras amphoriskos neck-amphora belly-amphora panathenaic-amphora pelike-amphora",
    "kylix": "cylix kylikes cup drinking-cup eye-cup lip-cup band-cup",
    "lekythos": "lecythus lekythoi lecythos squat-lekythos",
    "hydria": "hydriai kalpis water-jar",
    "krater": "crater kraters krateres mixing-bowl column-krater volute-krater calyx-krater bell-krater",
    "oinochoe": "oenochoe oinochoai olpe chous jug wine-jug",
    "skyphos": "scyphus skyphoi kotyle glaux",
    "stamnos": "stamnoi",
    "pelike": "pelikai",
    "pyxis": "pyxides pyxidae",
    "alabastron": "alabastra",
    "aryballos": "aryballoi oil-flask",
    "kantharos": "cantharus kantharoi",
    "psykter": "psykteres wine-cooler",
    "dinos": "lebes deinos",
    "loutrophoros": "loutrophoroi",
    "lebes gamikos": "lebetes-gamikoi nuptial-lebes",
    "phiale": "phialai libation-bowl",
    "plate": "pinax dish plates",
    "rhyton": "rhyta",
    "askos": "askoi",
    "lekanis": "lekanides lekane",
    "mastos": "mastoi",
}
TECHNIQUES: dict[str, str] = {
    "black-figure": "black-figured bf blackfigure black-figures",
    "red-figure": "red-figured rf redfigure red-figures",
    "white-ground": "white-grounded wg whiteground",
    "black-glaze": "black-glazed black-gloss bg black-slip",
    "bilingual": "",
    "six's technique": "six-technique",
    "geometric": "",
    "relief": "relief-decorated",
    "coral-red": "",
    "outline": "",
}
FABRICS: dict[str, str] = {
    "attic": "athenian athens attica",
    "corinthian": "corinth",
    "apulian": "apulia",
    "lucanian": "lucania",
    "campanian": "campania",
    "paestan": "paestum",
    "sicilian": "sicily sicilian-greek",
    "boeotian": "boeotia boiotian",
    "laconian": "lakonian laconia sparta spartan",
    "chalcidian": "chalkidian chalcis",
    "etruscan": "etruria",
    "east greek": "east-greek ionian ionic",
    "euboean": "euboea",
    "cypriot": "cyprus cypriote",
    "mycenaean": "mycenean",
    "minoan": "cretan crete",
    "gnathian": "gnathia",
}
VOCABULARIES: dict[str, dict[str, str]] = {"shape": SHAPES, "technique": TECHNIQUES, "fabric": FABRICS}
ENTITIES: dict[str, str] = {
    "warrior": "warriors hoplite hoplites soldier soldiers",
    "rider": "riders horseman horsemen rider-on-horseback",
    "horse": "horses",
    "lion": "lions panther panthers feline",
    "dancer": "dancers dancing komast komasts",
    "draped figure": "draped-figures draped-man draped-woman draped-men draped-women mantle-figure mantle-figures",
    "youth": "youths young-man young-men ephebe",
    "woman": "women girl girls maiden maidens",
    "man": "men bearded-man",
    "satyr": "satyrs silen silenos silens",
    "maenad": "maenads mainad",
    "athlete": "athletes runner runners boxer wrestler",
    "herakles": "heracles hercules",
    "athena": "minerva",
    "dionysos": "dionysus bacchus",
    "apollo": "",
    "zeus": "jupiter",
    "hermes": "mercury",
    "poseidon": "neptune",
    "theseus": "",
    "achilles": "achilleus",
    "ajax": "aias",
    "nike": "victory",
    "eros": "cupid erotes",
    "amazon": "amazons",
    "centaur": "centaurs kentaur",
    "sphinx": "sphinxes",
    "siren": "sirens",
    "gorgon": "gorgons gorgoneion medusa",
    "chariot": "chariots quadriga",
    "bird": "birds swan owl cock rooster",
    "animal frieze": "animal-friezes animals",
    "symposium": "symposion banquet reclining",
    "shield": "shields",
    "spear": "spears lance",
    "meander": "meanders key-pattern greek-key",
    "tongue": "tongues tongue-pattern",
    "ivy": "ivy-leaves",
    "lozenge": "lozenges diamond",
    "palmette": "palmettes",
    "lotus": "lotus-bud lotus-buds",
    "rays": "ray",
    "laurel": "laurel-wreath",
}
STOP = frozenset(
    {
        "a",
        "an",
        "the",
        "of",
        "and",
        "or",
        "in",
        "on",
        "at",
        "to",
        "with",
        "by",
        "from",
        "is",
        "was",
        "were",
        "are",
        "be",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "as",
        "for",
        "into",
        "no",
        "not",
        "near",
        "his",
        "her",
        "their",
        "which",
        "who",
        "vase",
        "pot",
        "vessel",
        "shape",
        "technique",
        "fabric",
        "made",
        "painted",
        "decorated",
        "depicted",
        "shows",
        "showing",
        "scene",
        "figure",
        "figures",
        "side",
        "attributed",
        "attribution",
        "painter",
        "workshop",
        "group",
        "manner",
        "probably",
        "perhaps",
        "possibly",
        "ancient",
        "greek",
        "found",
        "provenance",
        "date",
        "dated",
        "answer",
    }
)
_WORD = re.compile(r"[^\W_]+")


@lru_cache(maxsize=8192)
def normalize(text: str) -> str:
    """Return the text in lower case without accents, with one kind of dash and single spaces."""
    plain = "".join(
        letter for letter in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(letter)
    )
    return " ".join(re.sub(r"[\u2010-\u2015\u2212]", "-", plain).split())


def words(text: str) -> list[str]:
    """Return the normalized words of a text."""
    return _WORD.findall(normalize(text))


def content(text: str) -> list[str]:
    """Return the words of a text without the common words that every answer has."""
    return [word for word in words(text) if word not in STOP]


@lru_cache(maxsize=16)
def _matcher(which: str) -> tuple[re.Pattern[str], dict[str, str]]:
    table = ENTITIES if which == "decoration" else VOCABULARIES[which]
    known: dict[str, str] = {}
    for canonical, others in table.items():
        for spelling in (canonical, *others.split()):
            known[" ".join(_WORD.findall(spelling))] = canonical
    longest = sorted(known, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(re.escape(spelling) for spelling in longest) + r")\b"), known


def terms(text: str, which: str) -> list[str]:
    """Return the canonical names of a vocabulary that occur in `text`, in order and each once.

    The vocabulary `which` is shape, technique, fabric or decoration.
    """
    pattern, known = _matcher(which)
    return list(dict.fromkeys(known[match[0]] for match in pattern.finditer(" ".join(words(text)))))


def likeness(one: str, other: str) -> float:
    """Return how alike the spellings of two short texts are, in [0, 1].

    The method is Ratcliff and Obershelp's matching blocks.
    """
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def jaccard(one: Iterable[str], other: Iterable[str]) -> float:
    """Return the size of the intersection divided by the size of the union, or 0 if both are empty."""
    left, right = set(one), set(other)
    return len(left & right) / len(left | right) if left | right else 0.0


def overlap(answer: Sequence[str], truth: Sequence[str], close: float = 0.84) -> float:
    """Return the F1 of the words of two texts, where repeated words count repeatedly.

    A word that is spelt nearly like another one counts by its likeness.
    """
    if not answer or not truth:
        return 0.0
    have, need = Counter(answer), Counter(truth)
    same = have & need
    matched = float(sum(same.values()))
    left, missing = list((have - same).elements())[:64], list((need - same).elements())[:64]
    for word in missing:
        if len(word) < 4:
            continue
        near = [other for other in left if other[0] == word[0] and abs(len(other) - len(word)) <= 2]
        best = max(((likeness(word, other), other) for other in near), default=(0.0, ""))
        if best[0] >= close:
            matched += best[0]
            left.remove(best[1])
    return 2 * matched / (len(answer) + len(truth))


def weighted(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the weighted mean of `parts`, with a weight for each part from `weights`."""
    total = sum(weights[name] for name in parts)
    return sum(parts[name] * weights[name] for name in parts) / total if total else 0.0
