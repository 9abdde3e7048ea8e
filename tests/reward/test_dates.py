"""Dates as intervals: every spelling a catalogue uses, and the properties that a reward needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vasevqa.reward.dates import iou, parse_dates
from vasevqa.reward.score import score


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("c. 525-475 BCE", (-525, -475)),
        ("500-450 BC", (-500, -450)),
        ("500–450 B.C.", (-500, -450)),
        ("-500 to -450", (-500, -450)),
        ("-525/-475", (-525, -475)),
        ("between 525 and 475 BC", (-525, -475)),
        ("500 BC to 450 BC", (-500, -450)),
        ("480-70 BC", (-480, -470)),
        ("100-50 BC", (-100, -50)),
        ("525-475", (-525, -475)),
        ("25 BC - 25 AD", (-25, 25)),
        ("AD 50-100", (50, 100)),
        ("ca. 480 B.C.E.", (-490, -470)),
        ("circa 510 BC", (-520, -500)),
        ("550 BC", (-555, -545)),
        ("-480", (-485, -475)),
        ("c. 100 CE", (90, 110)),
        ("early 5th century BC", (-500, -468)),
        ("mid 5th century", (-467, -434)),
        ("5th c.", (-500, -401)),
        ("fifth century B.C.", (-500, -401)),
        ("1st c. AD", (1, 100)),
        ("2nd half of 6th c. BC", (-550, -501)),
        ("third quarter of the 6th century BC", (-550, -526)),
        ("late 6th to early 5th century BC", (-533, -468)),
        ("6th/5th century BC", (-600, -401)),
        ("Archaic period", (-600, -480)),
        ("dated to ca. 530-520 B.C.", (-530, -520)),
    ],
)
def test_a_date_in_every_spelling(text: str, interval: tuple[int, int]) -> None:
    assert parse_dates(text) == (interval,)


@pytest.mark.parametrize("text", ["", "unknown", "inv. 1500", "25 cm high", "a warrior", "1867 excavation"])
def test_what_is_no_date(text: str) -> None:
    assert parse_dates(text) == ()


years = st.integers(-800, 200)
intervals = st.tuples(years, years).map(lambda pair: (min(pair), max(pair)))


@given(intervals, intervals)
def test_iou_is_symmetric_and_bounded(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert iou(one, other) == iou(other, one)
    assert 0 <= iou(one, other) <= 1
    assert iou(one, one) == 1


@given(st.integers(-600, -300), st.integers(5, 100), st.integers(0, 150), st.integers(0, 150))
def test_further_off_never_earns_more(start: int, length: int, near: int, further: int) -> None:
    truth = f"{start} to {start + length}"
    shifts = sorted((near, further))
    scores = [score(f"{start + shift} to {start + shift + length}", truth, "date").value for shift in shifts]
    assert scores[0] >= scores[1]


@given(st.integers(-600, -300), st.integers(5, 60), st.integers(0, 400), st.integers(0, 400))
def test_a_wider_guess_never_earns_more(start: int, length: int, one: int, other: int) -> None:
    widths = sorted((one, other))
    scores = [
        score(f"{start - width} to {start + length + width}", f"{start} to {start + length}", "date").value
        for width in widths
        if start + length + width < 0
    ]
    assert scores == sorted(scores, reverse=True)


def test_a_thousand_years_and_many_dates_earn_little() -> None:
    assert score("1000 BC to 1 BC", "525-475 BCE", "date").value < 0.1
    assert score("525-475 BC, 400-300 BC, 600-550 BC", "525-475 BCE", "date").value == 0
