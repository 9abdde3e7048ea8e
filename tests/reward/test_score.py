"""The reward: right answers in any form earn, and what GRPO would find instead of answering doesn't."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from vasevqa.cli import cli
from vasevqa.reward.score import PAPER_WEIGHTS, external_vase_acc, paper_score, score, vase_format
from vasevqa.reward.vocabulary import ATTRIBUTES, FABRICS, SHAPES, TECHNIQUES

QUESTION = "<image>What is the shape of this vase?"


@pytest.mark.parametrize(
    ("answer", "truth", "attribute"),
    [
        ("lekythos", "lekythos", "shape"),
        ("Lecythus", "lekythos", "shape"),
        ("It is a lekythos.", "lekythos", "shape"),
        ("a column krater", "krater", "shape"),
        ("BF", "black-figure", "technique"),
        ("black figured", "black-figure", "technique"),
        ("Athenian", "Attic", "fabric"),
        ("<answer>Attic</answer>", "Attic", "fabric"),
        ("<think>Or Apulian?</think><answer>Attic</answer>", "Attic", "fabric"),
        ('{"answer": "Attic"}', "Attic", "fabric"),
        ('```json\n{"fabric": "Attic"}\n```', "Attic", "fabric"),
        ("500–450 B.C.", "500-450 BCE", "date"),
        ("the first half of the 5th century BC", "-500 to -451", "date"),
        ("Berlin Painter", "the Berlin Painter", "attribution"),
        ("attributed to the Berlin Painter", "the Berlin Painter", "attribution"),
        ("Kerameikos, Athens", "Athens, Kerameikos", "provenance"),
        ("a warrior with spear and shield", "a warrior with spear and shield", "decoration"),
        ("Attic", "Attic", None),
    ],
)
def test_a_right_answer_earns_all(answer: str, truth: str, attribute: str | None) -> None:
    assert score(answer, truth, attribute, QUESTION).value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("answer", "truth", "attribute", "most"),
    [
        ("", "lekythos", "shape", 0),
        ("   \n", "lekythos", "shape", 0),
        ("<answer></answer>", "lekythos", "shape", 0),
        ("{}", "lekythos", "shape", 0),
        ("amphora", "lekythos", "shape", 0.1),
        ("red-figure", "black-figure", "technique", 0.1),
        ("What is the shape of this vase?", "lekythos", "shape", 0),
        ("What is the shape of this vase? lekythos", "lekythos", "shape", 0.5),
        ("lekythos lekythos lekythos lekythos", "lekythos", "shape", 0.3),
        ("lekythos " * 500, "lekythos", "shape", 0.01),
        (", ".join(SHAPES), "lekythos", "shape", 0.06),
        (", ".join(TECHNIQUES), "black-figure", "technique", 0.12),
        (", ".join(FABRICS), "Attic", "fabric", 0.07),
        ("amphora or lekythos", "lekythos", "shape", 0.5),
        ("<answer>amphora</answer><answer>lekythos</answer>", "lekythos", "shape", 0.5),
        ("lekythos " + " ".join(f"word{number}" for number in range(200)), "lekythos", "shape", 0.05),
        ("Vulci; Nola; Gela; Cerveteri; Tarquinia", "Vulci", "provenance", 0.1),
        ("the painter", "the Berlin Painter", "attribution", 0.55),
        ("a lion", "a warrior with spear and shield", "decoration", 0.1),
    ],
)
def test_what_earns_little(answer: str, truth: str, attribute: str, most: float) -> None:
    assert score(answer, truth, attribute, QUESTION).value <= most


def test_a_misspelt_name_earns_something_and_a_better_answer_more() -> None:
    ranked = ["kantharos", "lekytos", "lekythos"]
    values = [score(answer, "lekythos", "shape").value for answer in ranked]
    assert values[0] < values[1] < values[2]
    truth = "a warrior with spear and shield, framed by lozenge bands"
    ranked = [
        "two dancers",
        "a hoplite",
        "a hoplite with a spear",
        "a hoplite with spear and shield between lozenge bands",
    ]
    values = [score(answer, truth, "decoration").value for answer in ranked]
    assert values == sorted(values)
    assert values[-1] > 0.8


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=300), st.text(max_size=80), st.sampled_from([*ATTRIBUTES, None, "nonsense"]), st.text(max_size=40)
)
def test_bounded_and_deterministic_whatever_is_said(
    answer: str, truth: str, attribute: str | None, question: str
) -> None:
    first = score(answer, truth, attribute, question)
    assert 0 <= first.value <= 1
    assert first == score(answer, truth, attribute, question)
    assert 0 <= vase_format(answer) <= 1


@given(st.sampled_from(sorted(SHAPES)), st.lists(st.sampled_from(sorted(SHAPES)), max_size=6, unique=True))
def test_naming_more_never_earns_more(truth: str, others: list[str]) -> None:
    others = [other for other in others if other != truth]
    values = [score(", ".join([truth, *others[:number]]), truth, "shape").value for number in range(len(others) + 1)]
    assert values == sorted(values, reverse=True)


def test_the_originals_plain_form() -> None:
    assert external_vase_acc(["Attic", "kylix", ""], ["Attic", "lekythos", "Attic"]) == [
        1.0,
        pytest.approx(0, abs=0.2),
        0.0,
    ]
    with pytest.raises(ValueError, match="zip"):
        external_vase_acc(["Attic"], [])


def test_the_papers_combination() -> None:
    truth = {
        "fabric": "Attic",
        "technique": "black-figure",
        "decoration": "a warrior with spear and shield",
        "shape": "lekythos",
        "date": "525-475 BCE",
        "attribution": "the Berlin Painter",
    }
    whole = (
        "An Attic black-figure lekythos, 525-475 BCE, attributed to the Berlin Painter, showing a warrior with spear"
        " and shield."
    )
    full = paper_score(whole, truth)
    assert full.value > 0.95
    assert sum(PAPER_WEIGHTS.values()) == pytest.approx(1)
    without = paper_score(
        "An Attic black-figure lekythos, 400-300 BCE, attributed to the Berlin Painter, showing a warrior with spear"
        " and shield.",
        truth,
    )
    assert without.parts["date"] == 0
    assert full.value - without.value == pytest.approx(PAPER_WEIGHTS["date"], abs=0.08)
    assert paper_score("A vase.", truth).value < 0.1
    assert paper_score(" ".join([whole] * 8), truth).value < full.value - 0.1


@pytest.mark.parametrize(
    ("response", "least", "most"),
    [
        ("lekythos", 1, 1),
        ("<answer>lekythos</answer>", 1, 1),
        ('{"answer": "lekythos"}', 1, 1),
        ("", 0, 0),
        ("<answer>lekythos", 0.5, 0.5),
        ("<answer>a</answer><answer>b</answer>", 0.3, 0.5),
        ('{"answer": ', 0.2, 0.5),
        ("very " * 300, 0, 0.05),
        ("lekythos<|im_start|>user", 0.2, 0.5),
    ],
)
def test_format(response: str, least: float, most: float) -> None:
    assert least <= vase_format(response) <= most


def test_the_command_explains() -> None:
    result = CliRunner().invoke(cli, ["reward", "500-450 BC", "525-475 BCE", "--attribute", "date"])
    assert result.exit_code == 0
    assert result.output.startswith("0.342")
    assert "-500 to -450 against -525 to -475" in result.output
    told = json.loads(CliRunner().invoke(cli, ["reward", "BF", "black-figure", "--json"]).output)
    assert (told["value"], told["parts"]["technique"]) == (1.0, 1.0)
    paper = CliRunner().invoke(cli, ["reward", "An Attic kylix", '{"fabric": "Attic", "shape": "kylix"}', "--paper"])
    assert paper.exit_code == 0
    assert "fabric" in paper.output
    assert CliRunner().invoke(cli, ["reward", "x", "no json", "--paper"]).exit_code == 2
