"""Show when each step waited, ran, failed and ran again. Pauses in which no step was active are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vasevqa.pipeline.events import Event
from vasevqa.pipeline.history import StepHistory
from vasevqa.report.costs import costs
from vasevqa.report.provenance import Record
from vasevqa.report.usage import StepUse, uses
from vasevqa.text import duration

LABELS = {"waiting": "not reached"}  # states that the report and `vasevqa status` name differently
WAITING, STARTING, RUNNING, FAILED = "waiting", "starting", "running", "failed attempt"
KINDS = (WAITING, STARTING, RUNNING, FAILED)
ENDS = ("step-done", "step-failed", "step-cancelled")
LONG = 60.0  # seconds; shorter pauses are not mentioned


@dataclass
class Span:
    """A period in which a step waited, started, ran or failed. Times are in seconds since the epoch."""

    kind: str
    begin: float
    end: float


@dataclass(frozen=True)
class Bar:
    """A span on the timeline. `left` and `width` are in percent of the run's active time."""

    kind: str
    left: float
    width: float
    text: str


@dataclass(frozen=True)
class StepRow:
    """One step: its state, its bars, its result, and its failed attempts.

    `took` is the total duration of the bars as text, and `seconds` is this duration as a number. Pauses don't count.
    """

    name: str
    state: str
    label: str
    took: str
    bars: tuple[Bar, ...]
    text: str
    speed: str
    cost: str
    troubles: tuple[str, ...]
    seconds: float = 0.0


@dataclass(frozen=True)
class Timeline:
    """All steps on one axis. `kinds` are the kinds of bars that occur.

    `pauses` is a sentence about the pauses that are left out. `active` is the time in seconds in which at least one
    step was active. `uses` compares what the steps used with what they asked for.
    """

    rows: tuple[StepRow, ...]
    ticks: tuple[tuple[float, str], ...]  # percent, label
    kinds: tuple[str, ...]
    pauses: str
    active: float
    uses: tuple[StepUse, ...] = ()


def timeline(events: Sequence[Event], history: Mapping[str, StepHistory], records: Mapping[str, Record]) -> Timeline:
    """Return the timeline of a run. `records` are the records of the artifacts by step.

    A step that took no time has no bars.
    """
    spans = {name: spans_of([event for event in events if event.get("step") == name]) for name in history}
    active = _union(span for found in spans.values() for span in found)
    total = sum(end - begin for begin, end in active)
    spent = costs(history, records)
    rows = []
    for name, step in history.items():
        record = records.get(name, Record())
        took = sum(span.end - span.begin for span in spans[name])
        attempts = f" ({step.attempt} attempts)" if step.attempt > 1 else ""
        rows.append(
            StepRow(
                name=name,
                state="hit" if step.state == "up to date" else step.state,
                label=LABELS.get(step.state, step.state) + attempts,
                took=duration(took) if took or (step.ended is not None and step.began is not None) else "",
                bars=tuple(_bar(span, active, total) for span in spans[name]),
                text=step.text or record.summary,
                speed=step.speed,
                cost=spent[name].text() if name in spent else "",
                troubles=_troubles(events, name),
                seconds=round(took, 1),
            )
        )
    kinds = {span.kind for found in spans.values() for span in found}
    left_out = active[-1][1] - active[0][0] - total if active else 0.0
    return Timeline(
        tuple(rows),
        tuple((25.0 * quarter, duration(total * quarter / 4)) for quarter in range(5)) if total else (),
        tuple(kind for kind in KINDS if kind in kinds),
        f"Pauses of {duration(left_out)}, in which no step was active, are left out." if left_out > LONG else "",
        total,
        uses(history, records, spent),
    )


def spans_of(events: Iterable[Event]) -> list[Span]:
    """Return the spans of one step from its events.

    From the start of a step until it runs, the kind of its span is `starting`. If the step reported why it waits, the
    kind is `waiting` instead. If the step did not end, its last span ends at its last event.
    """
    spans: list[Span] = []
    current: Span | None = None
    for event in events:
        kind, time = event["event"], float(event["time"])
        if kind == "step-started":  # if the launcher was stopped, the end of the earlier attempt is unknown
            current = None
        if current is not None:
            current.end = time
        if kind in ("step-started", "step-requeued"):
            current = Span(STARTING if kind == "step-started" else WAITING, time, time)
            spans.append(current)
        elif kind == "step-waiting" and current is not None and current.kind == STARTING:
            current.kind = WAITING
        elif kind in ("step-running", "step-adopted") and (current is None or current.kind != RUNNING):
            current = Span(RUNNING, time, time)
            spans.append(current)
        elif kind == "attempt-failed":
            if current is not None:
                current.kind = FAILED
            current = None
        elif kind in ENDS:
            if current is not None and kind == "step-failed":
                current.kind = FAILED
            current = None
    return [span for span in spans if span.end > span.begin]


def _union(spans: Iterable[Span]) -> list[tuple[float, float]]:
    """Return the intervals in which at least one step was active, in the order of time."""
    joined: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda span: span.begin):
        if joined and span.begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], span.end))
        else:
            joined.append((span.begin, span.end))
    return joined


def _bar(span: Span, active: Sequence[tuple[float, float]], total: float) -> Bar:
    before = sum(max(0.0, min(end, span.begin) - begin) for begin, end in active)
    text = f"{span.kind}: {duration(span.end - span.begin)}"
    return Bar(span.kind, round(100 * before / total, 2), round(100 * (span.end - span.begin) / total, 2), text)


def _troubles(events: Iterable[Event], step: str) -> tuple[str, ...]:
    """Return a sentence for each attempt of the step that failed and was repeated."""
    return tuple(
        f"Attempt {event.get('attempt', '')} failed and was tried again: {event.get('message', '')}"
        for event in events
        if event["event"] == "attempt-failed" and event.get("step") == step and event.get("retry")
    )
