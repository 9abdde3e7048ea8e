"""Which photograph is shown next, and with which probability."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from vasevqa.review.choosing import UNIFORM, Pool, Scores, draw, number_of

VASES = ["a", "a", "a", "b", "c", "c"]
POOL = Pool([f"{vase}{number}" for number, vase in enumerate(VASES)], VASES)
SCORES = Scores({"a0": 0.5, "a1": 0.9, "b3": 0.4, "c4": 0.1, "c5": 0.45}, 0.5, "classify")
STEPS = 6000


@pytest.mark.parametrize("scores", [None, SCORES])
@pytest.mark.parametrize("labelled", [Counter(), Counter(a=1, c=2)])
def test_the_recorded_probability_is_how_often_a_photograph_is_drawn(
    scores: Scores | None, labelled: Counter[str]
) -> None:
    pool = Pool(POOL.names, POOL.vases, labelled)
    drawn = [draw(pool, scores, (step + 0.5) / STEPS) for step in range(STEPS)]
    counted = Counter(one.place for one in drawn)
    probability = {one.place: one.probability for one in drawn}
    assert set(counted) == set(range(6))
    assert sum(probability.values()) == pytest.approx(1)
    for place, value in probability.items():
        assert counted[place] / STEPS == pytest.approx(value, abs=2e-3)
        assert value >= UNIFORM / 6
    by_chance = sum(one.why == "any photograph" for one in drawn)
    assert by_chance / STEPS == pytest.approx(UNIFORM, abs=1e-3)


def test_without_scores_the_vases_take_turns() -> None:
    names = [f"{vase}{view}" for vase in range(20) for view in range(1 + vase % 4)]
    left, labelled = {name: int(name[:-1]) for name in names}, Counter[str]()
    first = []
    for turn in range(20):
        pool = Pool(list(left), [str(vase) for vase in left.values()], labelled)
        # Draws of any photograph are left out, to see the others alone.
        drawn = draw(pool, None, UNIFORM + (1 - UNIFORM) * number_of("seed", turn))
        assert drawn.why == "spread over the vases"
        name = pool.names[drawn.place]
        labelled[str(left.pop(name))] += 1
        first.append(name)
    assert len({name[:-1] for name in first}) == 20


def test_photographs_near_the_threshold_are_likelier_and_those_without_a_score_have_their_chance() -> None:
    chance = {one.place: one.probability for one in (draw(POOL, SCORES, (step + 0.5) / 6000) for step in range(6000))}
    near, far, unscored = (chance[POOL.names.index(name)] for name in ("a0", "c4", "a2"))
    assert near > 2 * far
    assert far > unscored
    assert unscored == pytest.approx(UNIFORM / 6)
    assert draw(POOL, SCORES, 0.9).why == "near the threshold of classify"


def test_labels_of_a_vase_make_its_other_photographs_less_likely() -> None:
    pool = Pool(POOL.names, POOL.vases, Counter(a=3))
    places = [draw(pool, SCORES, (step + 0.5) / 6000) for step in range(6000)]
    chance = {one.place: one.probability for one in places}
    assert chance[0] < chance[5]


@pytest.mark.parametrize("values", [{}, {"other": 0.3}])
def test_scores_of_other_photographs_are_as_none(values: dict[str, float]) -> None:
    assert draw(POOL, Scores(values, 0.5, "classify"), 0.7) == draw(POOL, None, 0.7)


def test_scores_for_a_threshold_leave_more_draws_to_chance() -> None:
    scores = replace(SCORES, uniform=0.5)
    drawn = [draw(POOL, scores, (step + 0.5) / STEPS) for step in range(STEPS)]
    counted = Counter(one.place for one in drawn)
    for place, value in {one.place: one.probability for one in drawn}.items():
        assert counted[place] / STEPS == pytest.approx(value, abs=2e-3)
        assert value >= 0.5 / 6
    assert sum(one.why == "any photograph" for one in drawn) == STEPS / 2


def test_equal_scores_are_equally_likely() -> None:
    pool = Pool(["x", "y"], ["v", "w"])
    drawn = [draw(pool, Scores({"x": 0.5, "y": 0.5}, 0.5, "classify"), number) for number in (0.0, 0.3, 0.99999)]
    assert [(one.place, one.probability) for one in drawn] == [(0, 0.5), (0, 0.5), (1, 0.5)]


def test_a_number_follows_from_its_words() -> None:
    assert number_of(0, "quality", 3) == number_of("0", "quality", "3") != number_of(1, "quality", 3)
    assert all(0 <= number_of(index) < 1 for index in range(100))


GROUPS = {"a0": (0, 0), "a1": (0, 1), "a2": (0, 2), "b3": (1, 0), "c4": (2, 0), "c5": (2, 1)}


def _chances(pool: Pool, scores: Scores | None) -> dict[str, float]:
    drawn = [draw(pool, scores, (step + 0.5) / STEPS) for step in range(STEPS)]
    counted = Counter(one.place for one in drawn)
    for place, value in {one.place: one.probability for one in drawn}.items():
        assert counted[place] / STEPS == pytest.approx(value, abs=2e-3)
        assert value >= UNIFORM / len(pool.names)
    return {pool.names[one.place]: one.probability for one in drawn}


@pytest.mark.parametrize("scores", [None, SCORES])
def test_a_typical_photograph_of_each_group_comes_first(scores: Scores | None) -> None:
    left, seen, shown = dict(zip(POOL.names, POOL.vases, strict=True)), set[int](), []
    for turn in range(3):
        pool = Pool(list(left), list(left.values()), groups=GROUPS, seen=frozenset(seen))
        chances = _chances(pool, scores)
        assert all(chances[name] == pytest.approx(UNIFORM / len(left)) for name in left if GROUPS[name][0] in seen)
        drawn = draw(pool, scores, UNIFORM + (1 - UNIFORM) * number_of("seed", turn))
        assert drawn.why == "typical of a group of photographs"
        name = pool.names[drawn.place]
        del left[name]
        seen.add(GROUPS[name][0])
        shown.append(name)
    assert {GROUPS[name][0] for name in shown} == {0, 1, 2}
    whole = _chances(Pool(POOL.names, POOL.vases, groups=GROUPS), scores)
    assert whole["a0"] > whole["a1"] > whole["a2"]
    after = draw(Pool(list(left), list(left.values()), groups=GROUPS, seen=frozenset(seen)), scores, 0.99)
    assert after.why != "typical of a group of photographs"


def test_groups_in_which_answers_and_step_disagree_are_shown_more_often() -> None:
    names, vases = ["a1", "a2", "c4"], ["a", "a", "c"]  # b3 and c5 have labels
    seen = frozenset({0, 1, 2})
    agrees = Pool(names, vases, answers={"b3": False, "c5": False}, groups=GROUPS, seen=seen)
    disagrees = replace(agrees, answers={"b3": False, "c5": True})  # 0.45 is below the threshold
    assert _chances(disagrees, SCORES)["c4"] > 1.4 * _chances(agrees, SCORES)["c4"]
    whys = {draw(disagrees, SCORES, (step + 0.5) / 100).why for step in range(100)}
    assert whys == {"any photograph", SCORES.why, "answers and classify disagree"}
