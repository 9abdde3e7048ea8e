"""Draw line charts of a training as SVG, with ticks at round values and marks where the training was resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360, 210  # size of a chart in SVG units
LEFT, RIGHT, TOP, BOTTOM = 60, 350, 10, 168  # edges of the plot in the chart
POINTS = 400
LARGEST = 1e100  # larger values are not drawn
SMALLEST = 1e-100  # smaller differences are drawn as a flat line
FLAT = 1e-3  # a smaller spread, relative to the largest value, is drawn as a flat line

Measured = Sequence[tuple[float, float]]  # (training step, value)


@dataclass(frozen=True)
class Tick:
    """A tick on an axis: its position in SVG units, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    `points` is an SVG polyline. If the series has only one value, `points` is empty, and `dot` is the point.
    """

    title: str
    points: str
    dot: tuple[float, float] | None
    first: float
    last: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """A chart of values over the training steps. `resumed` marks the steps from which the training was resumed.

    `gaps` holds sentences about values that are not drawn because they are not finite.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    resumed: tuple[Tick, ...] = field(default=())
    gaps: tuple[str, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def chart(title: str, unit: str, series: Mapping[str, Measured], resumed: Sequence[int] = ()) -> Chart | None:
    """Return a chart of the series; None if it would have neither a line nor a gap.

    A line needs at least two finite values. Values that are not finite are not drawn. The chart's `gaps` reports them,
    because they are a sign of divergence.
    """
    kept = {name: [point for point in points if _drawable(point[1])] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    gaps = tuple(filter(None, (_gap(name, points) for name, points in series.items())))
    if not gaps and not any(len(points) > 1 for points in kept.values()):
        return None
    steps = [step for points in series.values() for step, _ in points]
    begin, end = min(steps), max(steps)
    values = [value for points in kept.values() for _, value in points]
    heights = ticks(min(values), max(values)) if values else [0.0, 1.0]
    low, high = heights[0], heights[-1]

    def x(step: float) -> float:
        return round(LEFT + (step - begin) / ((end - begin) or 1) * (RIGHT - LEFT), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    def line(name: str, points: Measured) -> Line:
        shown = _thinned(points)
        told = [value for _, value in points]
        drawn = " ".join(f"{x(step)},{y(value)}" for step, value in shown) if len(shown) > 1 else ""
        dot = None if drawn else (x(shown[0][0]), y(shown[0][1]))
        return Line(name, drawn, dot, told[0], told[-1], min(told), max(told))

    return Chart(
        title,
        unit,
        tuple(line(name, points) for name, points in kept.items()),
        tuple(Tick(x(step), f"{step:,.0f}") for step in _steps(begin, end)),
        tuple(Tick(y(value), label) for value, label in zip(heights, _labels(heights), strict=True) if values),
        tuple(Tick(x(step), str(step)) for step in sorted(set(resumed)) if begin <= step <= end),
        gaps,
    )


def _drawable(value: float) -> bool:
    return abs(value) <= LARGEST  # false for NaN, too


def _gap(name: str, points: Measured) -> str:
    """Return a sentence about the values of a series that are not drawn; '' if all values are drawn."""
    steps = [step for step, value in points if not _drawable(value)]
    if not steps:
        return ""
    where = f"step {steps[0]:,.0f}" + (f" to {steps[-1]:,.0f}" if len(steps) > 1 else "")
    verb = "is" if len(steps) == 1 else "are"
    return f"{name}: {len(steps):,} of {len(points):,} values {verb} not finite and not drawn ({where})"


def _labels(values: Sequence[float]) -> list[str]:
    """Return the values as texts, rounded to four significant digits, or to more if two texts would be equal."""
    for digits in range(4, 17):
        labels = [f"{value:.{digits}g}" for value in values]
        if len(set(labels)) == len(labels):
            break
    return labels


def _thinned(points: Measured) -> Measured:
    every = -(-len(points) // POINTS)
    shown = list(points[::every])
    return shown if shown[-1] == points[-1] else [*shown, points[-1]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round values at equal distances. The first is at most `low`, and the last is at least `high`.

    The result has at least two values, even if `low` and `high` are equal or almost equal.
    """
    largest = max(abs(low), abs(high))
    span = high - low if high - low > FLAT * largest else largest
    if span < SMALLEST:
        span = 1.0
    size = 10.0 ** math.floor(math.log10(span / count))
    distance = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor * count >= span)
    first, last = math.floor(low / distance), math.ceil(high / distance)
    return [number * distance for number in range(first, max(last, first + 1) + 1)]


def _steps(begin: float, end: float) -> list[float]:
    """Return `begin`, `end`, and the round numbers between them that are not too close to either."""
    room = (end - begin) / 8
    between = [step for step in ticks(begin, end) if begin + room < step < end - room and step == round(step)]
    return [begin, *between, end] if begin < end else [begin]
