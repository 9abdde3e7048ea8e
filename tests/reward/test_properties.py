"""Properties of the reward: no constant answer wins, a closer answer never gets less, and tricks don't help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vasevqa.reward.dates import nearness
from vasevqa.reward.decoration import things
from vasevqa.reward.score import external_vase_acc, score, vase_format
from vasevqa.reward.vocabulary import load

PAINTERS = [
    "BERLIN P",
    "PAN P",
    "NIOBID P",
    "ACHILLES P",
    "HAIMON P",
    "SWING P",
    "ANTIMENES P",
    "MEIDIAS P",
    "DARIUS P",
]
SITES = [
    "ITALY, ETRURIA, VULCI",
    "ITALY, ETRURIA, CERVETERI",
    "ITALY, CAMPANIA, NOLA",
    "ITALY, SICILY, GELA",
    "GREECE, ATHENS, KERAMEIKOS",
    "GREECE, BOEOTIA, THEBES",
    "GREECE, RHODES, CAMIRUS",
    "LIBYA, CYRENAICA, BENGHAZI",
    "UKRAINE, OLBIA",
]
SCENES = [
    "TRIPTOLEMOS IN CHARIOT BETWEEN DEMETER AND PERSEPHONE",
    "A: HERAKLES AND NEMEAN LION; B: YOUTHS",
    "DEPARTURE OF WARRIOR, WOMAN WITH PHIALE, OLD MAN",
    "SYMPOSIUM, YOUTHS RECLINING, FLUTE GIRL",
    "THESEUS AND MINOTAUR, WOMEN LOOKING ON",
    "DIONYSOS BETWEEN SATYRS AND MAENADS",
    "EOS PURSUING TITHONOS, YOUTHS WITH LYRES",
    "AMAZON WITH BOW, GREEK WITH SHIELD",
    "PALMETTES, LOTUS BUDS",
    "ATHLETES WITH DISCUS AND JAVELIN, TRAINER",
]
DATES = [f"-{year} to -{year - 24}" for year in range(600, 400, -25)]
VALUES: dict[str, list[str]] = {
    "attribution": [f"{painter} by BEAZLEY" for painter in PAINTERS],
    "provenance": SITES,
    "date": DATES,
    "decoration": SCENES,
    **{
        kind: [name for name, concept in load(kind).concepts.items() if not concept.above and not concept.parts]
        for kind in ("shape", "technique", "fabric")
    },
}
TEMPLATES = [
    "P by BEAZLEY", "the painter", "GROUP by BEAZLEY", "Italy", "ITALY, ETRURIA", "Greece", "600-400 BC", "Greek",
    "1000 BC to AD 1", "5th century BC", "a vase", "painted", "youths", "figures", "woman and man", "unknown", "x",
    "I do not know",
]  # fmt: skip


def mean(answer: str, truths: Sequence[str], attribute: str) -> float:
    return sum(score(answer, truth, attribute).value for truth in truths) / len(truths)


@pytest.mark.parametrize("attribute", VALUES)
def test_no_constant_answer_wins_on_balanced_records(attribute: str) -> None:
    truths = VALUES[attribute]
    assert len(truths) >= 8
    constants = {truth: mean(truth, truths, attribute) for truth in truths}
    assert {answer: value for answer, value in constants.items() if value > 1 / len(truths) + 0.1} == {}
    listed = [*TEMPLATES, ", ".join(truths), "; ".join(truths), " or ".join(truths[:4])]
    best = max(constants.values())
    if attribute in (
        "provenance",
        "date",
    ):  # a wide answer is partly right: its reward may be similar, but must not be higher
        best = 1 / len(truths) + 0.1
    assert {answer: value for answer in listed if (value := mean(answer, truths, attribute)) > best} == {}


COMMON_SCENES = [
    "DIONYSOS BETWEEN SATYRS AND MAENADS",
    "WARRIORS FIGHTING, WOMEN LOOKING ON",
    "A: YOUTH AND WOMAN; B: DRAPED YOUTHS",
    "HERAKLES AND NEMEAN LION, ATHENA, IOLAOS",
    "WARRIOR DEPARTING, WOMAN, OLD MAN, DOG",
    "AMAZONS IN CHARIOT, HOPLITES",
    "YOUTHS ON HORSEBACK, DOG",
    "KOMOS, YOUTHS DANCING, WOMAN PLAYING FLUTE",
    "EOS PURSUING YOUTH",
    "ATHENA AND POSEIDON",
    "NIKE WITH WREATH, YOUTH",
    "APOLLO WITH LYRE, ARTEMIS",
]


@pytest.mark.parametrize("scenes", [SCENES, COMMON_SCENES])
@pytest.mark.parametrize("longest", [8, 10, 15, 25, 60])
def test_a_list_of_common_figures_gets_a_low_reward(scenes: Sequence[str], longest: int) -> None:
    counts = Counter(thing for scene in scenes for thing in things(scene))
    listed = ", ".join(thing for thing, _ in counts.most_common(longest))
    assert mean(listed, scenes, "decoration") <= 1 / len(scenes) + 0.1


@pytest.mark.parametrize("scenes", [SCENES, COMMON_SCENES])
def test_the_description_of_another_vase_gets_a_low_reward(scenes: Sequence[str]) -> None:
    others = [score(said, true, "decoration").value for said in scenes for true in scenes if said != true]
    assert sum(others) / len(others) < 0.15


@pytest.mark.parametrize(
    ("truth", "answer"),
    [
        ("SATYR AND MAENAD", "a satyr pursuing a maenad, who holds a thyrsos"),
        ("SYMPOSIUM", "a symposium with youths reclining on couches"),
        ("THESEUS AND MINOTAUR", "Theseus killing the Minotaur with a sword"),
        ("A: HERAKLES AND LION; B: YOUTHS", "A: Herakles wrestling the Nemean lion, Athena beside; B: three youths"),
        ("WARRIORS FIGHTING", "two warriors fighting over a fallen third, framed by palmettes"),
    ],
)
def test_a_longer_correct_description_does_not_get_a_lower_reward(truth: str, answer: str) -> None:
    assert score(answer, truth, "decoration").value >= 0.95


YEARS = st.integers(-800, -300)


@given(YEARS, st.integers(1, 100), YEARS, st.integers(0, 200))
def test_a_closer_year_never_gets_a_lower_reward(begin: int, width: int, year: int, step: int) -> None:
    truth = (begin, begin + width)
    away = min(year, begin) if year < begin else max(year, begin + width)
    farther = away - step if year < begin else away + step
    near, far = (nearness((point - 5, point + 5), truth) for point in (away, farther))
    assert near >= far


@pytest.mark.parametrize(
    ("attribute", "truth", "answers"),
    [
        ("date", "-500 to -450", ["500-450 BC", "495-450 BC", "480-450 BC", "475 BC", "440 BC", "400 BC", "100 BC"]),
        ("shape", "KRATER, COLUMN", ["column-krater", "krater", "volute-krater", "dinos", "kylix"]),
        ("provenance", "ITALY, ETRURIA, VULCI", ["Italy, Etruria, Vulci", "Vulci", "Etruria", "Italy", "Athens"]),
        ("attribution", "BERLIN P by BEAZLEY", ["Berlin Painter", "manner of the Berlin Painter", "Pan Painter"]),
        ("fabric", "APULIAN", ["Apulian", "South Italian", "Lucanian", "Attic"]),
        ("decoration", "THESEUS AND MINOTAUR", ["Theseus kills the Minotaur", "Theseus", "a hero", "two women"]),
    ],
)
def test_a_closer_answer_gets_a_higher_reward(attribute: str, truth: str, answers: list[str]) -> None:
    values = [score(answer, truth, attribute).value for answer in answers]
    assert all(nearer >= farther for nearer, farther in pairwise(values))
    assert values[0] > values[len(values) // 2] > values[-1] or values[0] > values[-1] == 0


@pytest.mark.parametrize(
    ("response", "least", "most"),
    [
        ("kylix", 1, 1),
        ("foo</think>kylix", 0.95, 1),
        ("<think>maybe a skyphos</think>kylix", 0.95, 1),
        ("The shape is a kylix.", 0.9, 1),
        ("skyphos, no wait: kylix", 0, 0.7),
        ("kylix " + "asdf qwer zxcv " * 10, 0, 0.5),
        ("x", 0, 0),
        ("I do not know", 0, 0),
        ("not a kylix", 0, 0),
        ("What is the shape of this vase? kylix", 0, 0.6),
        ("Let me think step by step. " * 12 + "kylix", 0, 0.4),
    ],
)
def test_the_reward_of_a_response_matches_the_judgement_of_a_reader(response: str, least: float, most: float) -> None:
    [reward] = external_vase_acc([response], ["kylix"], ["shape"], ["<image>What is the shape of this vase?"])
    assert least <= reward <= most


def test_a_wrong_answer_gets_no_reward_for_its_form() -> None:
    wrong = ["skyphos'", "{'answer': 3}", "x", "I do not know", "", "krater " * 50]
    assert [value for value in external_vase_acc(wrong, ["hydria"] * 6, ["shape"] * 6) if value > 0.2] == []
    plain, tagged = external_vase_acc(["kylix", "kylix<|im_end|>"], ["kylix"] * 2, ["shape"] * 2)
    assert plain == 1
    assert 0.85 < tagged < plain
    assert vase_format("I do not know") == vase_format("x") == 0
