"""Dates as intervals: the spellings in catalogues, and the properties that the reward needs."""

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
        ("third third of the 6th century BC", (-533, -501)),
        ("2/2 of the 5th century BC", (-450, -401)),
        ("third half of the 5th century BC", (-500, -401)),
        ("4/2 of the 5th century BC", (-500, -401)),
        ("5th century BC, first half", (-500, -451)),
        ("5. Jh. v. Chr. (Anfang)", (-500, -476)),
        ("VI sec. a.C., seconda metà", (-550, -501)),
        ("5th century BC, late", (-433, -401)),
        ("AD 475-425", (425, 475)),
        ("510 BC (circa)", (-520, -500)),
        ("tra il 475 e il 425 a.C.", (-475, -425)),
        ("421/0 BC", (-421, -420)),
        ("410/9 BC", (-410, -409)),
        ("400/99 BC", (-400, -399)),
        ("480/470 BC", (-480, -470)),
        ("470/480 BC", (-480, -470)),
        ("ca. 480/70 BC", (-480, -470)),
        ("500/490 v. Chr.", (-500, -490)),
        ("seconde moitié du Ve siècle avant J.-C.", (-450, -401)),
        ("premier quart du Ve s. av. J.-C.", (-500, -476)),
        ("2e moitié du VIe s. av. J.-C.", (-550, -501)),
        ("cinquième siècle av. J.-C.", (-500, -401)),
        ("seconda metà del V secolo a.C.", (-450, -401)),
        ("quarto secolo a.C.", (-400, -301)),
        ("ultimo quarto del V secolo a.C.", (-425, -401)),
        ("fine VI - inizio V secolo a.C.", (-525, -476)),
        ("inizi del V sec. a.C.", (-500, -476)),
        ("segunda mitad del siglo V a.C.", (-450, -401)),
        ("primer cuarto del siglo V a.C.", (-500, -476)),
        ("mediados del siglo V a.C.", (-467, -434)),
        ("finales del siglo VI a.C.", (-525, -501)),
        ("zweite Hälfte 5. Jh. v. Chr.", (-450, -401)),
        ("2. H. 5. Jh. v. Chr.", (-450, -401)),
        ("fünftes Jahrhundert v. Chr.", (-500, -401)),
        ("spätes 6. Jh. v. Chr.", (-533, -501)),
        ("letztes Viertel des 5. Jhs. v. Chr.", (-425, -401)),
        ("δεύτερο μισό 5ου αι. π.Χ.", (-450, -401)),
        ("β' μισό του 5ου αιώνα π.Χ.", (-450, -401)),
        ("αρχές 5ου αι. π.Χ.", (-500, -476)),
        ("440-430 π.Χ.", (-440, -430)),
        ("από το 500 έως το 450 π.Χ.", (-500, -450)),
        ("μεταξύ 500 και 450 π.Χ.", (-500, -450)),
        ("Ε΄ αι. π.Χ.", (-500, -401)),
        ("ε' αιώνας π.Χ.", (-500, -401)),
        ("ΣΤ΄-Ε΄ αι. π.Χ.", (-600, -401)),
        ("entre 500 y 450 a.C.", (-500, -450)),
        ("entre el 500 y el 450 a.C.", (-500, -450)),
        ("desde 500 hasta 450 a.C.", (-500, -450)),
        ("500 a 450 a.C.", (-500, -450)),
        ("siglos VI-V a.C.", (-600, -401)),
        ("de 500 à 450 av. J.-C.", (-500, -450)),
        ("tra il 500 e il 450 a.C.", (-500, -450)),
        ("middle third of the 5th century BC", (-467, -434)),
        ("mittleres Drittel des 5. Jh. v. Chr.", (-467, -434)),
    ],
)
def test_a_date_is_read_in_every_spelling(text: str, interval: tuple[int, int]) -> None:
    assert parse_dates(text) == (interval,)


def test_a_word_such_as_early_belongs_to_the_century_after_it() -> None:
    assert parse_dates("late 5th century BC, early 4th century BC") == ((-433, -401), (-400, -368))


@pytest.mark.parametrize("text", ["", "unknown", "inv. 1500", "25 cm high", "a warrior", "1867 excavation", "4/2"])
def test_texts_without_a_date_give_no_interval(text: str) -> None:
    assert parse_dates(text) == ()


PIECES = (
    "first second third fourth fifth last half quarter early mid late end of the century centuries 5th 6th V c. - / to"
    " and 1/4 3/2 4/4 421/0 480/90 500 450 99 0 BC AD v. Chr. -500 480s archaic Viertel siècle ~ ca."
)


@given(st.lists(st.sampled_from(PIECES.split()), max_size=8).map(" ".join))
def test_every_text_gives_ordered_intervals(text: str) -> None:
    assert [interval for interval in parse_dates(text) if interval[0] > interval[1]] == []


years = st.integers(-800, 200)
intervals = st.tuples(years, years).map(lambda pair: (min(pair), max(pair)))


@given(intervals, intervals)
def test_iou_is_symmetric_and_bounded(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert iou(one, other) == iou(other, one)
    assert 0 <= iou(one, other) <= 1
    assert iou(one, one) == 1


@given(st.integers(-600, -300), st.integers(5, 100), st.integers(0, 150), st.integers(0, 150))
def test_a_more_distant_date_never_gets_a_higher_reward(start: int, length: int, near: int, further: int) -> None:
    truth = f"{start} to {start + length}"
    shifts = sorted((near, further))
    scores = [score(f"{start + shift} to {start + shift + length}", truth, "date").value for shift in shifts]
    assert scores[0] >= scores[1]


@given(st.integers(-600, -300), st.integers(5, 60), st.integers(0, 400), st.integers(0, 400))
def test_a_wider_interval_never_gets_a_higher_reward(start: int, length: int, one: int, other: int) -> None:
    widths = sorted((one, other))
    scores = [
        score(f"{start - width} to {start + length + width}", f"{start} to {start + length}", "date").value
        for width in widths
        if start + length + width < 0
    ]
    assert scores == sorted(scores, reverse=True)


def test_a_very_wide_interval_and_many_dates_get_a_low_reward() -> None:
    assert score("1000 BC to 1 BC", "525-475 BCE", "date").value < 0.1
    assert score("525-475 BC, 400-300 BC, 600-550 BC", "525-475 BCE", "date").value < 0.05
