"""Read dates of vases as intervals of years.

Examples are "c. 525-475 BCE", "-500 to -450", "early 5th century BC" and "2nd half of 6th c. BC".

Years before the era are negative, and both ends of an interval are inclusive. The 5th century BC is -500 to -401. The
1st century AD is 1 to 100. A lone year becomes an interval that reaches five years to each side. With "c." it reaches
ten years to each side. The reason is that catalogues date by generations, not by years.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Interval = tuple[int, int]

EXACT, CIRCA = 5, 10  # years around a lone year
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
}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_FRACTION = r"(?:first|second|third|fourth|last)\s+(?:half|third|quarter)"
_PART = rf"(?:(?P<part{{n}}>early|beginning|start|middle|mid|late|end|{_FRACTION})[\s-]+(?:of\s+)?(?:the\s+)?)?"
_NTH = r"(?P<nth{n}>\d{{1,2}}|" + "|".join(_ORDINALS) + r")(?:st|nd|rd|th)?"
_ERA = r"(?:\s*(?P<era{n}>bc|ad))?"
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
_SIGNED = re.compile(r"(?<![\w-])-\s?(\d{1,4})\s*(?:-|to|/|and|,)\s*(-?)\s?(\d{1,4})\b")
_RANGE = re.compile(
    r"(?<![\d-])(?P<circa>~\s*)?(\d{1,4})\s*(bc|ad)?\s*(?:-|to|/|and)\s*~?\s*(\d{1,4})\b(?!\s*(?:st|nd|rd|th)\b)\s*(bc|ad)?"
)
_YEAR = re.compile(
    r"(?P<circa>~\s*)?(?:(?P<before>bc|ad)\s*)?(?P<sign>(?<![\w-])-\s?)?\b(?P<year>\d{2,4})\b\s*(?P<era>bc|ad)?"
)


def _plain(text: str) -> str:
    """Return the text in lower case with one spelling of dashes, eras and circa.

    All dashes become one kind of dash. All spellings of the eras become `bc` and `ad`. All spellings of circa become
    `~`.
    """
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text.lower())
    text = re.sub(r"\bb\.?\s?c\.?\s?e\b\.?|\bb\.?\s?c\b\.?|\bbefore christ\b", " bc ", text)
    text = re.sub(
        r"\ba\.\s?d\.|\bad\b|\banno domini\b|(?<=\d)\s*c\.\s?e\.|(?<=\d)\s*ce\b|(?<=century)\s*ce\b", " ad ", text
    )
    text = re.sub(r"\b(?:circa|approximately|approx\.?|about|around|roughly|ca\.?|c\.)(?=\s*-?\d{2,4}\b)", " ~ ", text)
    text = re.sub(
        r"\b(\d)(?:st|nd|rd|th)\s+(half|third|quarter)\b",
        lambda match: f"{_ORDINALS[int(match[1]) - 1]} {match[2]}" if match[1] != "0" else match[0],
        text,
    )
    return re.sub(r"\s+", " ", text).strip()


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
    first, second = int(match[2]), int(match[4])
    era2 = match[5] or match[3] or ("bc" if first >= second else "ad")
    era1 = match[3] or era2
    if era1 == era2 == "bc" and second < 100 <= first and len(match[4]) == 2 and first % 100 > second:
        second += first // 100 * 100  # 480-70 BC
    one, other = (-first if era1 == "bc" else first), (-second if era2 == "bc" else second)
    return min(one, other), max(one, other)


def _of_year(match: re.Match[str]) -> Interval | None:
    year, era = int(match["year"]), match["era"] or match["before"]
    if era is None and not match["sign"] and (year < 100 or year > 1200):
        return None  # a page, a size, a modern year
    signed = year if era == "ad" else -year
    around = CIRCA if match["circa"] else EXACT
    return signed - around, signed + around


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Interval | None]], ...] = (
    (_CENTURIES, _of_centuries),
    (_ONE_CENTURY, _of_century),
    (_SIGNED, _of_signed),
    (_RANGE, _of_range),
    (_YEAR, _of_year),
)


@lru_cache(maxsize=4096)
def parse_dates(text: str) -> tuple[Interval, ...]:
    """Return every interval of years that `text` names, each once.

    Return () if the text names none. Years without an era count as BC. Only the first 2000 characters are read.
    """
    left = _plain(text[:2000])
    found: list[Interval] = []
    for pattern, read in _READERS:
        while (match := pattern.search(left)) is not None:
            interval = read(match)
            if interval is not None and interval not in found:
                found.append(interval)
            left = left[: match.start()] + " ; " + left[match.end() :]
    if not found:
        found = [interval for name, interval in _PERIODS.items() if re.search(rf"\b{name}\b", left)]
    return tuple(found)


def iou(one: Interval, other: Interval) -> float:
    """Return the number of years in both intervals divided by the number of years in either.

    The result is 1 for the same interval, and 0 for intervals that don't meet.
    """
    both = min(one[1], other[1]) - max(one[0], other[0]) + 1
    if both <= 0:
        return 0.0
    either = max(one[1], other[1]) - min(one[0], other[0]) + 1
    return both / either
