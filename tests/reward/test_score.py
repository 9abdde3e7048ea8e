"""The reward: right answers in any form get a high reward, and shortcuts that GRPO could find get a low reward."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from vasevqa.cli import cli
from vasevqa.evaluation.metrics import Answered
from vasevqa.evaluation.mistakes import mistakes_of
from vasevqa.reward.score import PAPER_WEIGHTS, exact, external_vase_acc, paper_score, score, vase_format
from vasevqa.reward.vocabulary import ATTRIBUTES, load

SHAPES, TECHNIQUES, FABRICS = (
    [name for name, concept in load(kind).concepts.items() if not concept.above and not concept.parts]
    for kind in ("shape", "technique", "fabric")
)
QUESTION = "<image>What is the shape of this vase?"


@pytest.mark.parametrize(
    ("answer", "truth", "attribute"),
    [
        ("lekythos", "lekythos", "shape"),
        ("Lecythus", "lekythos", "shape"),
        ("It is a lekythos.", "lekythos", "shape"),
        ("a crater", "krater", "shape"),
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
def test_a_right_answer_gets_the_full_reward(answer: str, truth: str, attribute: str | None) -> None:
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
def test_unclear_and_copied_answers_get_a_low_reward(answer: str, truth: str, attribute: str, most: float) -> None:
    assert score(answer, truth, attribute, QUESTION).value <= most


def test_a_misspelt_name_gets_a_partial_reward_and_a_better_answer_gets_more() -> None:
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
def test_the_reward_is_bounded_and_deterministic_for_any_answer(
    answer: str, truth: str, attribute: str | None, question: str
) -> None:
    first = score(answer, truth, attribute, question)
    assert 0 <= first.value <= 1
    assert first == score(answer, truth, attribute, question)
    assert 0 <= vase_format(answer) <= 1


@given(st.sampled_from(sorted(SHAPES)), st.lists(st.sampled_from(sorted(SHAPES)), max_size=6, unique=True))
def test_naming_more_values_never_raises_the_reward(truth: str, others: list[str]) -> None:
    others = [other for other in others if other != truth]
    values = [score(", ".join([truth, *others[:number]]), truth, "shape").value for number in range(len(others) + 1)]
    assert values == sorted(values, reverse=True)


def test_the_reward_accepts_plain_texts_like_the_original() -> None:
    assert external_vase_acc(["Attic", "kylix", ""], ["Attic", "lekythos", "Attic"]) == [
        1.0,
        pytest.approx(0, abs=0.2),
        0.0,
    ]
    with pytest.raises(ValueError, match="zip"):
        external_vase_acc(["Attic"], [])


def test_the_combined_reward_equals_the_formula_of_the_paper() -> None:
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


@pytest.mark.parametrize(
    ("answer", "truth", "value"),
    [
        ("I would attribute this amphora to the Tyrrhenian Group.", "TYRRHENIAN GROUP by BEAZLEY", 1),
        ("This vase belongs to the Leagros Group.", "LEAGROS GROUP by BEAZLEY", 1),
        ("a painter of the Leagros Group", "LEAGROS GROUP by BEAZLEY", 1),
        ("This is by the Berlin Painter, not by the Amasis Painter.", "BERLIN P by BEAZLEY", 1),
        ("by the hand of the Berlin Painter", "BERLIN P by BEAZLEY", 1),
        ("This cup was painted by Epiktetos", "EPIKTETOS by BEAZLEY", 1),
        ("Epictetus", "EPIKTETOS by BEAZLEY", 0.95),
        ("Cleophrades Painter", "KLEOPHRADES P by BEAZLEY", 0.95),
        ("wird dem Berliner Maler zugeschrieben", "BERLIN P by BEAZLEY", 0.95),
        ("attribué au Peintre de Berlin", "BERLIN P by BEAZLEY", 1),
        ("attribuito al Pittore di Berlino", "BERLIN P by BEAZLEY", 0.95),
        ("The Berlin Painter, one of the leading artists of late Archaic Athens", "BERLIN P by BEAZLEY", 1),
        ("It was most likely decorated by the Berlin Painter around 490 BC.", "BERLIN P by BEAZLEY", 1),
        ("Berlin Painter, after Beazley", "BERLIN P by BEAZLEY", 1),
        ("I would attribute this amphora to the Amasis Painter.", "BERLIN P by BEAZLEY", 0),
        ("the Kleophrades Painter, a contemporary of the Berlin Painter", "BERLIN P by BEAZLEY", 0),
        ("The Berlin Painter was active in Athens.", "BERLIN P by BEAZLEY", 1),
        ("The vase shows Herakles. It was painted by the Berlin Painter.", "BERLIN P by BEAZLEY", 1),
        ("Its style is typical of that time, so it is the Berlin Painter.", "BERLIN P by BEAZLEY", 1),
        ("Therefore, it is the Berlin Painter.", "BERLIN P by BEAZLEY", 1),
        ("Berlin Painter. He was a pupil of the Pan Painter.", "BERLIN P by BEAZLEY", 1),
        ("Pan Painter. He was a pupil of the Berlin Painter.", "BERLIN P by BEAZLEY", 0),
        ("Pan Painter. The Berlin Painter was his teacher.", "BERLIN P by BEAZLEY", 0),
        ("This vase is near the Berlin Painter.", "BERLIN P by BEAZLEY", 0.5),
        ("The krater was signed by Euphronios. The potter was Euxitheos.", "EUPHRONIOS (signed)", 1),
        ("Euphronios signed it.", "EUPHRONIOS (signed)", 1),
        ("Makron, in my view.", "MAKRON by BEAZLEY", 1),
        ("I would call it the Villa Giulia Painter, on account of the calm figures.", "VILLA GIULIA P by BEAZLEY", 1),
        ("Group E. It was a workshop of the mid 6th century.", "GROUP E by BEAZLEY", 1),
        ("The vase comes from the Leagros Group.", "LEAGROS GROUP by KUNZE-GOTTE", 1),
    ],
)
def test_an_attribution_in_a_sentence(answer: str, truth: str, value: float) -> None:
    assert score(answer, truth, "attribution").value == pytest.approx(value, abs=0.05)


@pytest.mark.parametrize(
    ("answer", "truth", "kind", "value"),
    [
        ("korinthischer Aryballos", "CORINTHIAN", "fabric", 1),
        ("céramique corinthienne", "CORINTHIAN", "fabric", 1),
        ("ceramica attica", "ATHENIAN", "fabric", 1),
        ("attische Keramik", "ATHENIAN", "fabric", 1),
        ("kylix (type C)", "CUP B", "shape", 0.5),
        ("oinochoe, shape 8", "OINOCHOE 2", "shape", 0.5),
        ("Amphora Typ B", "AMPHORA B", "shape", 1),
        ("a kylix (a type of cup)", "CUP", "shape", 1),
        ("It has one high handle and a deep bowl, so it is a kyathos.", "KYATHOS", "shape", 1),
        ("The lip is that of a cup, so it is a kyathos.", "KYATHOS", "shape", 1),
        ("Kylix, skyphos, amphora, so it is a kyathos.", "KYATHOS", "shape", 0.33),
        ("Kyathos, hence the high handle", "KYATHOS", "shape", 1),
        ("Herakles and the lion, hence the skin", "HERAKLES AND LION", "decoration", 1),
        ("It's a plain black-glazed vase.", "BLACK GLAZE", "technique", 1),
        ("cratere a campana attico", "CAMPANIAN", "fabric", 0),
        ("schwarzfigurig auf weißem Grund", "BLACK-FIGURE, WHITE GROUND", "technique", 1),
        ("red-figure, not white-ground", "WHITE GROUND, RED-FIGURE", "technique", 0.4),
        ("Is it red-figure? No, it is black-figure.", "BLACK-FIGURE", "technique", 1),
        ("spätarchaisch", "late Archaic", "date", 1),
        ("tra il 540 ed il 520 a.C.", "540-520 BC", "date", 1),
        ("Ajax carries Achilles", "AJAX CARRYING ACHILLES", "decoration", 1),
        ("On the neck: lions. On the body: a boar hunt.", "NECK: LIONS; BODY: BOAR HUNT", "decoration", 1),
        ("Not Makron, as one might think, but Douris.", "DOURIS by BEAZLEY", "attribution", 1),
        ("Not Makron, as one might think, but Douris.", "MAKRON by BEAZLEY", "attribution", 0),
        ("metà del V secolo a.C.", "mid 5th century BC", "date", 1),
        ("II metà V sec. a.C.", "second half of the 5th century BC", "date", 1),
    ],
)
def test_answers_as_people_and_models_write_them(answer: str, truth: str, kind: str, value: float) -> None:
    assert score(answer, truth, kind).value == pytest.approx(value, abs=0.05)


def test_single_years_are_compared_by_their_distance() -> None:
    near = [score(answer, "450 BC", "date").value for answer in ("450 BC", "c. 450 BC", "455 BC", "460 BC", "500 BC")]
    assert near == sorted(near, reverse=True)
    assert score("420 BC", "421/0 BC", "date").value == pytest.approx(0.7, abs=0.1)
    assert score("440-420 BC", "450 BC", "date").value < score("455 BC", "450 BC", "date").value


def test_the_command_explains_a_reward() -> None:
    result = CliRunner().invoke(cli, ["reward", "500-450 BC", "525-475 BCE", "--attribute", "date"])
    assert result.exit_code == 0
    assert result.output.startswith("0.364")
    assert "-500 to -450 against -525 to -475" in result.output
    told = json.loads(CliRunner().invoke(cli, ["reward", "BF", "black-figure", "--json"]).output)
    assert (told["value"], told["parts"]["technique"]) == (1.0, 1.0)
    paper = CliRunner().invoke(cli, ["reward", "An Attic kylix", '{"fabric": "Attic", "shape": "kylix"}', "--paper"])
    assert paper.exit_code == 0
    assert "fabric" in paper.output
    assert CliRunner().invoke(cli, ["reward", "x", "no json", "--paper"]).exit_code == 2


@pytest.mark.parametrize(
    ("attribute", "truth", "answer"),
    [
        ("shape", "kylix", "kylix, not a kylix"),
        ("shape", "neck-amphora", "neck-amphora, not an amphora"),
        ("date", "500-450 BC", "500-450 BC, not 500-450 BC"),
        ("attribution", "BERLIN P by BEAZLEY", "Berlin Painter, not the Berlin Painter"),
        ("provenance", "ITALY, NOLA", "Nola, not Nola"),
        ("decoration", "SATYR", "a satyr, not a satyr"),
    ],
)
def test_an_answer_that_denies_itself_is_wrong(attribute: str, truth: str, answer: str) -> None:
    assert not exact(answer, truth, attribute)
    assert score(answer, truth, attribute).value == 0


def test_denying_something_else_is_no_contradiction() -> None:
    assert exact("kylix, not a skyphos", "kylix", "shape")
    assert exact("amphora, not a neck-amphora", "amphora", "shape")
    assert score("Berlin Painter, not the Painter of Berlin 1686", "BERLIN P", "attribution").value == 1


@pytest.mark.parametrize(
    ("question", "answer", "value"),
    [
        ("<image>Which shape is it?", "Which shape is it? kylix", 0.5),
        ("<image>Which shape is it?", "which shape is it", 0),
        ("<image>Kylix?", "kylix", 1),
        ("<image>A vase", "A vase of the shape kylix", 1),
        ("<image>a red vase", "a red vaselike kylix", 1),
    ],
)
def test_only_a_copy_of_the_whole_question_is_detected(question: str, answer: str, value: float) -> None:
    assert score(answer, "kylix", "shape", question).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("Pelike (a type of amphora)", "pelike"),
        ("The lip is that of a cup, so it is a kyathos.", "KYATHOS"),
        ("pelike (storage jar)", "PELIKE"),
        ("a kylix, not a skyphos", "KYLIX"),
    ],
)
def test_reward_exact_match_and_mistakes_read_an_answer_alike(answer: str, truth: str) -> None:
    value = score(answer, truth, "shape").value
    assert value == 1
    assert exact(answer, truth, "shape")
    # The mistakes read the answer too; a right answer isn't one of several names.
    found = mistakes_of([Answered("vase", "shape", "", truth, answer, 1.0, value)])
    said = [answered for by_truth in found["confusion_fine"]["shape"].values() for answered in by_truth]
    assert said == list(found["confusion_fine"]["shape"])
