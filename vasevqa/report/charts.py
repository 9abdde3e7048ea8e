"""Draw line charts as SVG: axes with units, round ticks, and marks at training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360, 210  # of a chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 10, 168  # of the plot in the chart
POINTS = 400

Measured = Sequence[tuple[float, float]]  # (training step, value)


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its position in SVG units, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One series of a chart. `points` is an SVG polyline; `dot` is the only point of a series that has one."""

    title: str
    points: str
    dot: tuple[float, float] | None
    first: float
    last: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """Series over the training steps. `resumed` marks the steps from which the training was resumed."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    resumed: tuple[Tick, ...] = field(default=())
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def chart(title: str, unit: str, series: Mapping[str, Measured], resumed: Sequence[int] = ()) -> Chart | None:
    """Return a chart of the series that have a finite value; None if no series has two of them."""
    kept = {name: [point for point in points if math.isfinite(point[1])] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not any(len(points) > 1 for points in kept.values()):
        return None
    every = [point for points in kept.values() for point in points]
    begin, end = min(step for step, _ in every), max(step for step, _ in every)
    heights = ticks(min(value for _, value in every), max(value for _, value in every))
    low, high = heights[0], heights[-1]

    def x(step: float) -> float:
        return round(LEFT + (step - begin) / ((end - begin) or 1) * (RIGHT - LEFT), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    def line(name: str, points: Measured) -> Line:
        shown = _thinned(points)
        values = [value for _, value in points]
        drawn = " ".join(f"{x(step)},{y(value)}" for step, value in shown) if len(shown) > 1 else ""
        dot = None if drawn else (x(shown[0][0]), y(shown[0][1]))
        return Line(name, drawn, dot, values[0], values[-1], min(values), max(values))

    return Chart(
        title,
        unit,
        tuple(line(name, points) for name, points in kept.items()),
        tuple(Tick(x(step), f"{step:,.0f}") for step in _steps(begin, end)),
        tuple(Tick(y(value), f"{value:.4g}") for value in heights),
        tuple(Tick(x(step), str(step)) for step in sorted(set(resumed)) if begin <= step <= end),
    )


def _thinned(points: Measured) -> Measured:
    every = -(-len(points) // POINTS)
    shown = list(points[::every])
    return shown if shown[-1] == points[-1] else [*shown, points[-1]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round values at equal distances; the first is at most `low`, and the last is at least `high`."""
    span = high - low or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(span / count))
    distance = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor * count >= span)
    first, last = math.floor(low / distance), math.ceil(high / distance)
    return [number * distance for number in range(first, max(last, first + 1) + 1)]


def _steps(begin: float, end: float) -> list[float]:
    """Return the first step, the last step, and round steps between them that leave room for both labels."""
    room = (end - begin) / 8
    between = [step for step in ticks(begin, end) if begin + room < step < end - room and step == round(step)]
    return [begin, *between, end]
