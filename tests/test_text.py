"""Shares and amounts read as what they are."""

from __future__ import annotations

import pytest

from vasevqa.text import amount, cut, percent


@pytest.mark.parametrize(
    ("share", "digits", "expected"),
    [
        (0, 0, "0%"),
        (0.001, 0, "<1%"),
        (0.005, 0, "<1%"),
        (0.123, 0, "12%"),
        (0.996, 0, ">99%"),
        (1, 0, "100%"),
        (0.99996, 2, ">99.99%"),
        (0.995, 2, "99.50%"),
    ],
)
def test_a_share_of_some_is_neither_none_nor_all(share: float, digits: int, expected: str) -> None:
    assert percent(share, digits) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (1e-5, "<0.01"), (0.514, "0.51"), (3.24, "3.2"), (9.99, "10"), (12.3, "12"), (1234.5, "1,234")],
)
def test_an_amount_has_no_exponent(value: float, expected: str) -> None:
    assert amount(value) == expected


def test_a_text_that_is_cut_says_so() -> None:
    assert cut("abcd", 4) == "abcd"
    assert cut("abc de", 5) == "abc…"
