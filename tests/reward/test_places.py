"""Unknown places are scored like places in the vocabulary: a list of places gets a low reward."""

from __future__ import annotations

import pytest

from vasevqa.reward.score import score

TRUTH = "ITALY, ETRURIA, MONTALTO DI CASTRO"


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        ("Italy, Etruria, Montalto di Castro", 1, 1),
        ("Montalto di Castro, Etruria", 0.9, 1),
        ("found at Montalto di Castro, in a tomb", 0.85, 0.95),
        ("Montalto di Castro, Vulci", 0.3, 0.5),
        ("Montalto di Castro, Etruria, Campania", 0.3, 0.5),
        ("Montalto di Castro, Vulci, Athens, Nola, Gela", 0, 0.1),
        ("Montalto di Castro; Pescia Romana; Ischia", 0, 0.4),
        ("Etruria", 0.3, 0.5),
        ("Vulci", 0.1, 0.3),
        ("Athens", 0, 0),
    ],
)
def test_a_site_that_is_not_in_the_vocabulary_is_scored(answer: str, least: float, most: float) -> None:
    assert least <= score(answer, TRUTH, "provenance").value <= most


def test_a_site_without_a_known_region() -> None:
    assert score("Presidio, Italy", "PRESIDIO", "provenance").value == 1
    assert score("Presidio, Vulci, Athens", "PRESIDIO", "provenance").value <= 0.5


def test_a_list_of_unknown_sites_is_no_better_than_one_site() -> None:
    sites = ["Presidio", "Montalto", "Pescia", "Ischia", "Saturnia", "Bisenzio", "Tuscania", "Norchia"]
    listed, one = (
        sum(score(answer, site, "provenance").value for site in sites) for answer in (", ".join(sites), sites[0])
    )
    assert listed <= one
