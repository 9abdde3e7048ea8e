"""Read dates of vases as intervals of years.

Examples are "c. 525-475 BCE", "-500 to -450", "early 5th century BC" and "2nd half of 6th c. BC". Years BC are
negative, and both ends of an interval are inclusive. The 5th century BC is -500 to -401. The 1st century AD is 1 to
100. A single year becomes the interval from five years before it to five years after it. With "c.", the interval
extends ten years in both directions. The intervals are this wide because catalogues date by generations, not by years.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

from vasevqa.reward.words import without_accents

Interval = tuple[int, int]

EXACT, CIRCA = 5, 10  # years to each side of a single year
CLOSE, TOLERANCE = 0.8, 6.8  # explained in nearness()
SAME_YEARS, YEARS = 0.75, 11.0  # explained in years_nearness()
_PARTS: dict[str, tuple[float, float]] = {
    "early": (0, 1 / 3),
    "beginning": (0, 1 / 4),
    "start": (0, 1 / 4),
    "mid": (1 / 3, 2 / 3),
    "middle": (1 / 3, 2 / 3),
    "late": (2 / 3, 1),
    "end": (3 / 4, 1),
    "first half": (0, 1 / 2),
    "second half": (1 / 2, 1),
    "last half": (1 / 2, 1),
    "first third": (0, 1 / 3),
    "second third": (1 / 3, 2 / 3),
    "middle third": (1 / 3, 2 / 3),
    "last third": (2 / 3, 1),
    "third third": (2 / 3, 1),
    "first quarter": (0, 1 / 4),
    "second quarter": (1 / 4, 1 / 2),
    "third quarter": (1 / 2, 3 / 4),
    "fourth quarter": (3 / 4, 1),
    "last quarter": (3 / 4, 1),
}
_PERIODS: dict[str, Interval] = {
    "geometric": (-900, -700),
    "orientalizing": (-700, -600),
    "archaic": (-600, -480),
    "classical": (-480, -323),
    "hellenistic": (-323, -31),
    "protogeometric": (-1050, -900),
    "severe": (-480, -450),
    "roman": (-31, 400),
}
_ABOUT_DATES = {
    *(
        "c",
        "ca",
        "date",
        "dated",
        "dating",
        "to",
        "from",
        "between",
        "and",
        "year",
        "years",
        "made",
        "in",
        "it",
        "is",
        "was",
    ),
    *(
        "the",
        "this",
        "vase",
        "of",
        "around",
        "about",
        "circa",
        "or",
        "early",
        "late",
        "probably",
        "approximately",
        "created",
    ),
    *("produced", "likely", "roughly", "bc", "ad", "at", "possibly", "perhaps", "its"),
}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_PART_NAMES = "|".join(name.replace(" ", r"\s+") for name in sorted(_PARTS, key=len, reverse=True))
_PART = rf"(?:(?P<part{{n}}>{_PART_NAMES})[\s-]+(?:of\s+)?(?:the\s+)?)?"
_NTH = r"(?P<nth{n}>\d{{1,2}}|" + "|".join(_ORDINALS) + r")(?:st|nd|rd|th)?"
_ERA = r"(?:\s*(?P<era{n}>bc|ad)\b)?"
_CENTURY = r"\s*(?:centuries|century|cent\b\.?|c\b\.?)"


def _pattern(*parts: str) -> re.Pattern[str]:
    return re.compile("".join(parts))


def _n(text: str, number: int) -> str:
    return text.replace("{{", "{").replace("}}", "}").replace("{n}", str(number))


_CENTURIES = _pattern(
    r"\b",
    _n(_PART, 1),
    _n(_NTH, 1),
    rf"(?:{_CENTURY})?",
    _n(_ERA, 1),
    r"\s*(?:-|to|or|and|/)\s*(?:the\s+)?",
    _n(_PART, 2),
    _n(_NTH, 2),
    _CENTURY,
    _n(_ERA, 2),
)
_ONE_CENTURY = _pattern(r"\b", _n(_PART, 1), _n(_NTH, 1), _CENTURY, _n(_ERA, 1))
_DECADE = re.compile(r"\b(\d{2,3}0)s\b\s*(bc|ad)?")
_SLASH = re.compile(r"\b(\d{3})/(\d{1,3})\s*bc\b")
_PERIOD = re.compile(r"\b(?:(early|mid|middle|late|end)[\s-]+(?:of\s+the\s+)?)?(" + "|".join(_PERIODS) + r")\b")
_SIGNED = re.compile(r"(?<![\w-])-\s?(\d{1,4})\s*(?:-|to|/|and|,)\s*(-?)\s?(\d{1,4})\b")
_RANGE = re.compile(
    r"(?:\b(?P<era>bc|ad)\s*)?(?<![\d-])~?\s*(?P<first>\d{1,4})\s*(?P<era1>bc|ad)?\s*(?:-|to|/|and)\s*~?\s*"
    r"(?:\b(?P<before2>bc|ad)\s*)?(?P<second>\d{1,4})\b(?!\s*(?:st|nd|rd|th)\b)\s*(?P<era2>bc|ad)?"
)
_YEAR = re.compile(
    r"(?P<circa>~\s*)?(?:(?P<before>bc|ad)\s*)?(?P<sign>(?<![\w-])-\s?)?\b(?P<year>\d{2,4})\b\s*(?P<era>bc|ad)?"
)


# Words in other languages and spellings, in the order of replacement.
_SPELLINGS: tuple[tuple[str, str], ...] = (
    (r"[\u2010-\u2015\u2212]", "-"),
    (r"(?<=\d)(?=b\.? ?c\b|bce?\b|a\.? ?d\b|ce\b)", " "),  # 580BC
    (r"\b(?:v\. ?chr\.?|v\. ?u\. ?z\.?|vor christus|av(?:\.|ant) ?j\.?-? ?c\.?|avanti cristo|before christ)", " bc "),
    (r"\b(?:n\. ?chr\.?|nach christus|apr?(?:\.|es) ?j\.?-? ?c\.?|dopo cristo|anno domini)", " ad "),
    (r"(?<=[\d.a-z] )a\. ?c\.|(?<=\d)a\. ?c\.|\ba\. ?c\.$", " bc "),
    (r"(?<=[\d.a-z] )d\. ?c\.", " ad "),
    (r"\bb\.?\s?c\.?\s?e\b\.?|\bb\.?\s?c\b\.?", " bc "),
    (r"\ba\.\s?d\.|\bad\b|(?<=\d)\s*c\.\s?e\.|(?<=\d)\s*ce\b|(?<=century)\s*ce\b", " ad "),
    (r"\bπ\. ?χ\.?(?!\w)", " bc "),
    (r"\bμ\. ?χ\.?(?!\w)", " ad "),
    (
        r"\b(?:jahrhunderts?|jhs?\b\.?|jhdt?s?\b\.?|jahrh\b\.?|siecles?|s\.(?= *[ivx]+\b)|(?<=[ivx]e )s\.|secol[oi]"
        r"|sec\.|siglos?|αι\.|αιων(?:ας|α|ος|ων))",
        " century ",
    ),
    (r"(?<=\d)ου\b|(?<=\d)ος\b", " "),
    *(  # the numeral sign after a letter has become a space
        (
            rf"\b{letter}(?:[ʹʼ’']|(?=\s))\s*(?=(?:-\s*(?:στ|[α-θ\d])\b[ʹʼ’']?\s*)?(?:century|μισο|τεταρτο|τριτο)\b)",
            f"{nth} ",
        )
        for nth, letter in enumerate(("α", "β", "γ", "δ", "ε", "στ", "ζ", "η"), 1)
    ),
    (r"\bcentury\s+([ivx]{1,5}\s*-\s*[ivx]{1,5})\b", r"\1 century"),
    (r"\bc(?=\d{1,2}(?:st|nd|rd|th)\b)", " century "),  # "C5th" is the 5th century
    (r"\bcentury\s+([ivx]{1,5}|\d{1,2}(?:st|nd|rd|th))\b", r"\1 century"),
    (r"\b(\d{1,2})\.\s*(?=(?:-|bis|und|century|halfte|viertel|drittel))", r"\1 "),
    (r"\b(?:funfte[ns]?|cinquieme|quinto)\b", "fifth"),
    (r"\b(?:sechste[ns]?|sixieme|sesto|sexto)\b", "sixth"),
    (r"\b(?:siebte[ns]?|septieme|settimo|septimo)\b", "seventh"),
    (r"\b(?:achte[ns]?|huitieme|ottavo|octavo)\b", "eighth"),
    (
        r"\b(?:vierte[ns]?|4e|quatrieme|quart[oa](?= +(?:century|quart[oi]))|cuart[oa](?= +(?:century|cuarto)))\b",
        "fourth",
    ),
    (r"\b(?:erste[ns]?|1e?re|premiere?|1er|prim[ao]|primera?|πρωτ[οη])\b|\bα['΄ʹ´]", "first"),
    (r"\b(?:zweite[ns]?|2(?:e|nde)|deuxieme|second[aeo]|segund[ao]|2da|δευτερ[οη])\b|\bβ['΄ʹ´]", "second"),
    (r"\b(?:dritte[ns]?|3e|troisieme|terz[ao]|tercera?|τριτ[οη])\b", "third"),
    (r"\b(?:letzte[ns]?|derniere?|ultim[ao]|τελευται[οα])\b", "last"),
    (r"\b([12])\. ?h\.(?= ?\d)", r"\1 half"),
    (r"\b(?:halfte|moitie|meta|mitad|μισο)\b", "half"),
    (r"\b(?:viertels?|quarts?|quarto|cuarto|τεταρτο)\b", "quarter"),
    (r"\b(?:drittels?|tiers|terzo|tercio)\b", "third"),
    (
        r"\b(?:anfang|beginn|debut|inizi[o]?|principi[oa]?s?|comienzos?|αρχες|αρχη)\b(?: (?:du|del|des|του|de))?",
        "beginning",
    ),
    (r"\b(?:ende|fin|fine|finales|fines|τελη|τελος)\b(?: (?:du|del|des|του|de))?", "end"),
    (r"\b(?:mitte|milieu|mediados|μεσα)\b(?: (?:du|del|des|του|de))?", "middle"),
    (r"\b(?:fruhe[sn]?|friihes)\b", "early"),
    (r"\b(?:spate[sn]?)\b", "late"),
    (r"\bτου\b", " "),
    (r"\b(?:until|till|bis|jusqu'en|jusqu'a|fino al?|al|hasta|εως|ως|μεχρι)\b", " to "),
    (r"\b(?:il|lo|la|le|les|el|den|die|το|l')\s*(?=\d{2,4}\b)", " "),
    (r"(?<=[\dcd])\s+a\s+(?=\d)", " to "),  # de 500 à 450, 500 a.C. a 450 a.C.
    (r"\b(?:und|et|ed?|y|και)\b(?= *-?\d)", " and "),
    (r"\bmittlere[sn]?\b", "middle"),
    (r"\bspat-?(?=(?:archaisch|klassisch|geometrisch|hellenistisch))", "late "),
    (r"\bfruh-?(?=(?:archaisch|klassisch|geometrisch|hellenistisch))", "early "),
    (r"\b(?:archaisch(?:e[nrs]?)?|archaik|archaique|arcaic[oa]|αρχαικ\w+)\b", "archaic"),
    (r"\b(?:klassisch(?:e[nrs]?)?|klassik|classique|classic[oa]|clasic[oa]|κλασικ\w+)\b", "classical"),
    (r"\b(?:geometrisch(?:e[nrs]?)?|geometrique|geometric[oa]|γεωμετρικ\w+)\b", "geometric"),
    (r"\b(?:hellenistisch(?:e[nrs]?)?|hellenistique|ellenistic[oa]|helenistic[oa]|ελληνιστικ\w+)\b", "hellenistic"),
    (r"\b(?:des|der|du|del|dem)\b", " "),
    (r"(\d{1,4}\s*(?:bc|ad)?)\s*\(\s*(?:circa|ca?\.?|about|approx\.?)\s*\)", r"~ \1"),
    (r"\(\s*(?:circa|ca?\.?|about|approx\.?)\s*\)", " "),
    (
        r"\b(?:circa|approximately|approx\.?|about|around|roughly|ca\.?|c\.|um|gegen|vers|environ|verso)(?=\s*-?\d{2,4})",
        " ~ ",
    ),
    (r"(?<=\d)[ -](?=centur)|(?<=th)-(?=centur)|(?<=st)-(?=centur)|(?<=nd)-(?=centur)|(?<=rd)-(?=centur)", " "),
)
_COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in _SPELLINGS)
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "x": 10}
_ROMAN_CENTURY = re.compile(
    rf"\b([ivx]{{1,5}})(?:e|o|eme|th)?(?=(?:\s*-\s*(?:(?:{_PART_NAMES})\s+)?[ivx]{{1,5}}(?:e|o)?)?\s*century)"
)
# 1/2, 2/2, 1/3 and so on, with the name of the part
_SHARES = {
    f"{nth}/{whole}": f"{_ORDINALS[nth - 1]} {name}"
    for whole, name in ((2, "half"), (3, "third"), (4, "quarter"))
    for nth in range(1, whole + 1)
}
_SHARE = re.compile(rf"(?<![\d/])({'|'.join(_SHARES)})(?=\s+(?:of\s+)?(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?\s*century)")


# "5th century BC, first half" means the first half of the 5th century BC.
_PART_AFTER = re.compile(
    rf"(\d{{1,2}}(?:st|nd|rd|th)?{_CENTURY}(?:\s*(?:bc|ad)\b)?)\s*[,(]\s*({_PART_NAMES})\b(?=\s*(?:[),;.]|$))\)?"
)


def _plain(text: str) -> str:
    """Return the text in lower case without accents, with one spelling of dashes, eras, centuries and circa.

    All spellings of the eras become `bc` and `ad`. All spellings of circa become `~`. Words in other languages are
    replaced by English words.
    """
    text = without_accents(text)
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    text = _ROMAN_CENTURY.sub(lambda match: str(_ROMAN.get(match[1], match[1])), text)
    text = re.sub(r"\b(i{1,3}|iv)(?= (?:half|third|quarter)\b)", lambda match: str(_ROMAN[match[1]]), text)
    text = _SHARE.sub(lambda match: _SHARES[match[1]], text)
    text = re.sub(
        r"\b([1-9])(?:st|nd|rd|th)?\s+(half|third|quarter)\b",
        lambda match: f"{_ORDINALS[int(match[1]) - 1]} {match[2]}",
        text,
    )
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(rf"(?<!first )(?<!second )(?<!last )\bhalf(?= (?:of )?(?:the )?\d{{1,2}}{_CENTURY})", "middle", text)
    return _PART_AFTER.sub(r"\2 \1", text)


def _nth(word: str) -> int:
    return int(word) if word.isdigit() else _ORDINALS.index(word) + 1


def _century(nth: int, era: str, part: str | None) -> Interval:
    begin = -100 * nth if era == "bc" else 100 * (nth - 1) + 1
    low, high = _PARTS[re.sub(r"\s+", " ", part)] if part else (0.0, 1.0)
    return begin + round(100 * low), begin + round(100 * high) - 1


def _of_centuries(match: re.Match[str]) -> Interval | None:
    first, second = _nth(match["nth1"]), _nth(match["nth2"])
    era2 = match["era2"] or match["era1"] or ("bc" if first >= second else "ad")
    one, other = _century(first, match["era1"] or era2, match["part1"]), _century(second, era2, match["part2"])
    return min(one[0], other[0]), max(one[1], other[1])


def _of_century(match: re.Match[str]) -> Interval | None:
    return _century(_nth(match["nth1"]), match["era1"] or "bc", match["part1"])


def _of_signed(match: re.Match[str]) -> Interval | None:
    one, other = -int(match[1]), int(match[3]) * (-1 if match[2] or int(match[3]) < int(match[1]) else 1)
    return min(one, other), max(one, other)


def _of_range(match: re.Match[str]) -> Interval | None:
    first, second = int(match["first"]), int(match["second"])
    era1, era2 = match["era1"] or match["era"], match["era2"] or match["before2"]
    if not (era1 or era2):
        if not _is_bare(match.string) and not 1200 >= first > second >= 100:
            return None  # these numbers are pages or sizes
        if max(first, second) < 100:
            return None  # without an era, such small numbers are not years
    era2 = era2 or era1 or ("bc" if first >= second else "ad")
    era1 = era1 or era2
    if era1 == era2 == "bc" and second < 100 <= first and len(match["second"]) == 2 and first % 100 > second:
        second += first // 100 * 100  # 480-70 BC means 480-470 BC
    one, other = (-first if era1 == "bc" else first), (-second if era2 == "bc" else second)
    return min(one, other), max(one, other)


def _of_decade(match: re.Match[str]) -> Interval | None:
    year = int(match[1])
    return (-year - 9, -year) if match[2] != "ad" else (year, year + 9)


def _of_slash(match: re.Match[str]) -> Interval | None:
    """Return the interval of two years BC with a slash between them.

    421/0 BC means 421/420 BC, one year of Athens, which began in summer. 480/70 BC means the range 480-470 BC.
    """
    first, digits = int(match[1]), len(match[2])
    second = int(match[1][: len(match[1]) - digits] + match[2])
    before = second - 10**digits  # 400/99 BC means 400/399 BC
    if second > first and first - before in (1, 2):
        second = before
    return -max(first, second), -min(first, second)


def _of_year(match: re.Match[str]) -> Interval | None:
    year, era = int(match["year"]), match["era"] or match["before"]
    if era is None and not match["sign"] and (year < 100 or year > 1200 or not _is_bare(match.string)):
        return None  # a page, a size, an inventory number or a modern year
    signed = year if era == "ad" else -year
    around = CIRCA if match["circa"] else EXACT
    return signed - around, signed + around


def _is_bare(text: str) -> bool:
    """Return whether a text contains only a date. In such a text, a number without an era is read as a year."""
    return all(word in _ABOUT_DATES for word in re.findall(r"[a-z]+", text))


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Interval | None]], ...] = (
    (_CENTURIES, _of_centuries),
    (_ONE_CENTURY, _of_century),
    (_DECADE, _of_decade),
    (_SLASH, _of_slash),
    (_SIGNED, _of_signed),
    (_RANGE, _of_range),
    (_YEAR, _of_year),
)


def parse_dates(text: str) -> tuple[Interval, ...]:
    """Return every interval of years in `text`, without repetition. Return () if `text` has no date.

    Without an era, 450 and 450-400 are read as BC, and 400-450 as AD. Only the first 2000 characters are read.
    """
    return tuple(_read(text))


def single_years(text: str) -> frozenset[Interval]:
    """Return the intervals from `parse_dates` that the text writes as a single year, such as 450 BC or 421/0 BC."""
    return frozenset(interval for interval, single in _read(text).items() if single)


@lru_cache(maxsize=4096)
def _read(text: str) -> dict[Interval, bool]:
    """Return a mapping with the intervals in the text as keys. A value is True if the text writes a single year."""
    left = _plain(text[:2000])
    intervals: dict[Interval, bool] = {}
    for pattern, read in _READERS:
        while (match := pattern.search(left)) is not None:
            interval = read(match)
            if interval is not None:
                year = read is _of_year or (read is _of_slash and interval[1] - interval[0] == 1)
                intervals.setdefault(interval, year)
            left = left[: match.start()] + " ; " + left[match.end() :]
    return intervals or {_period(match): False for match in _PERIOD.finditer(left)}


def _period(match: re.Match[str]) -> Interval:
    begin, end = _PERIODS[match[2]]
    low, high = _PARTS[match[1]] if match[1] else (0.0, 1.0)
    return begin + round((end - begin) * low), begin + round((end - begin) * high)


def nearness(said: Interval, known: Interval) -> float:
    """Return the similarity of two intervals, in [0, 1].

    The similarity is the IoU or the nearness of the ends, whichever is greater. The nearness falls with the mean
    distance between the ends of the two intervals. The scale of this distance is `TOLERANCE` (in years) plus half the
    width of the true interval. A year inside or near the true interval therefore gets a score above 0. A closer answer
    never gets a lower score than a more distant answer.
    """
    distance = (abs(said[0] - known[0]) + abs(said[1] - known[1])) / 2
    scale = TOLERANCE + (known[1] - known[0]) / 2
    return max(iou(said, known), CLOSE * math.exp(-distance / scale) if distance else 1.0)


def years_nearness(said: Interval, known: Interval) -> float:
    """Return the similarity of two single years, in [0, 1].

    The similarity falls with the distance between the years. The scale of this distance is `YEARS`. The similarity is
    never less than `nearness` of the two intervals.
    """
    distance = abs(sum(said) - sum(known)) / 2
    return max(nearness(said, known), SAME_YEARS * math.exp(-((distance / YEARS) ** 2)))


def iou(one: Interval, other: Interval) -> float:
    """Return the number of years in both intervals divided by the number of years in at least one of them.

    The result is 1 for equal intervals, and 0 for intervals that don't overlap.
    """
    both = min(one[1], other[1]) - max(one[0], other[0]) + 1
    if both <= 0:
        return 0.0
    either = max(one[1], other[1]) - min(one[0], other[0]) + 1
    return both / either
