"""Charts show any series, also one that is flat, tiny, huge or not finite."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vasevqa.report.charts import BOTTOM, LEFT, RIGHT, TOP, chart, ticks

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100)


@given(FINITE, st.sampled_from([0.0, 5e-324, 1e-300, 1e-17, 1e-9, 1.0]))
def test_ticks_rise_and_enclose_values_that_are_equal_or_almost_equal(low: float, more: float) -> None:
    high = low + more
    found = ticks(low, high)
    assert len(found) > 1
    assert all(one < other for one, other in pairwise(found))
    rounding = 1e-9 * max(abs(low), abs(high))
    assert found[0] - rounding <= low <= high <= found[-1] + rounding


@given(st.lists(st.floats(), min_size=2, max_size=30))
def test_a_chart_of_any_values_lies_in_its_plot_and_counts_what_is_not_drawn(values: list[float]) -> None:
    drawn = chart("Loss", "nats", {"loss": list(enumerate(values, 1))})
    missing = sum(not abs(value) <= 1e100 for value in values)
    assert drawn is not None
    assert len(drawn.gaps) == (missing > 0)
    assert all(gap.startswith(f"loss: {missing} of {len(values)} values ") for gap in drawn.gaps)
    for line in drawn.lines:
        places = [tuple(map(float, point.split(","))) for point in line.points.split()] or [line.dot or (LEFT, TOP)]
        assert all(LEFT <= across <= RIGHT and TOP <= up <= BOTTOM for across, up in places)
    labels = [tick.label for tick in drawn.up]
    assert len(set(labels)) == len(labels)


def test_labels_have_the_digits_that_distinguish_them_and_fit_beside_the_plot() -> None:
    drawn = chart("Share", "share", {"share": [(1, 0.9985), (2, 0.9998)]})
    assert drawn is not None
    assert [tick.label for tick in drawn.up] == ["0.9985", "0.999", "0.9995", "1"]
    flat = chart("Share", "share", {"share": [(1, 1.0), (2, 1.0 + 2**-52)]})
    assert flat is not None
    assert [tick.label for tick in flat.up] == ["1", "1.5"]
    rate = chart("Rate", "size", {"rate": [(1, 1e-6), (2, 1.001e-6)]})
    assert rate is not None
    assert max(len(tick.label) for tick in [*drawn.up, *rate.up]) * 6.4 <= LEFT - 6


def test_a_training_that_diverged_has_a_chart_that_says_so() -> None:
    lost = chart("Loss", "nats", {"training loss": [(5, math.nan), (6, math.inf)], "validation loss": []})
    assert lost is not None
    assert (lost.lines, lost.up) == ((), ())
    assert lost.gaps == ("training loss: 2 of 2 values are not finite and not drawn (step 5 to 6)",)
    assert [tick.label for tick in lost.across] == ["5", "6"]
    assert chart("Loss", "nats", {"validation loss": [(5, 1.0)], "training loss": []}) is None
