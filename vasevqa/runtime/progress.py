"""Show a stage's progress: a bar on a terminal, lines in a pipe, JSON lines for a launcher."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from vasevqa.text import duration, visible

LINE_SECONDS = 5.0
EVENT_SECONDS = 1.0


class StageProgress:
    """The base class of all progress displays.

    It keeps the phase, the number of finished units and the rate. Subclasses show these values.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.last_summary = ""
        self.figures: dict[str, Any] = {}
        self._what, self._unit = "", ""
        self._total: int | None = None
        self._done = 0
        self._began = time.monotonic()
        self._shown = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> StageProgress:
        self.event("started", stage=self.stage)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self, what: str, total: int | None = None, unit: str = "images") -> None:
        """End the current phase, and begin a phase with the title `what`."""
        self._end()
        self._what, self._total, self._unit, self._done = what, total, unit, 0
        self._began, self._shown = time.monotonic(), time.monotonic()
        self._show_phase()

    def advance(self, count: int = 1) -> None:
        """Report `count` more units as done."""
        with self._lock:
            self._done += count
        self._show_count(final=False)

    def note(self, text: str) -> None:
        """Show one line to the user."""
        print(visible(f"{self.stage}: {text}"), file=sys.stderr, flush=True)

    def event(self, kind: str, **fields: Any) -> None:
        """Report an event for programs; only JsonProgress prints such events."""

    def summary(self, text: str, **figures: Any) -> None:
        """Report the stage's result: one line for the user, and figures for programs."""
        self._end()
        self.last_summary = text
        self.figures.update(figures)
        self._say_summary(text, figures)

    def speed(self, seconds: Mapping[str, float], count: int, unit: str = "images") -> None:
        """Report the rate and the slowest part of the work.

        `seconds` maps each part of the work to its duration, and `count` is the number of processed units.
        """
        total = sum(seconds.values())
        if not seconds or total <= 0:
            return
        bottleneck = max(seconds, key=lambda kind: seconds[kind])
        parts = ", ".join(f"{kind} {value:.1f} s" for kind, value in seconds.items())
        self.figures["speed"] = {
            "seconds": {kind: round(value, 3) for kind, value in seconds.items()},
            "count": count,
            "bottleneck": bottleneck,
        }
        self._say_speed(
            f"{count} {unit} at {count / total:.1f}/s; {parts}; the bottleneck is {bottleneck}",
            dict(seconds),
            count,
            bottleneck,
        )

    def error(self, kind: str, exit_code: int, message: str) -> None:
        """Show the final error message of a failed stage."""
        self._end()
        print(visible(f"error: {message}"), file=sys.stderr, flush=True)

    @property
    def rate(self) -> float:
        """Units per second in the current phase."""
        return self._done / max(time.monotonic() - self._began, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds left in the current phase; None if the total is unknown or nothing is done yet."""
        return (self._total - self._done) / self.rate if self._total and self._done else None

    def _say_summary(self, text: str, figures: Mapping[str, object]) -> None:
        print(visible(f"{self.stage}: {text}"), flush=True)

    def _say_speed(self, text: str, seconds: dict[str, float], count: int, bottleneck: str) -> None:
        print(visible(f"{self.stage}: {text}"), flush=True)

    def _end(self) -> None:
        if self._what:
            self._show_count(final=True)
            self._what = ""

    def _show_phase(self) -> None:
        pass

    def _show_count(self, final: bool) -> None:
        pass


class LineProgress(StageProgress):
    """Prints a line every few seconds, for pipes and log files."""

    def _show_count(self, final: bool) -> None:
        now = time.monotonic()
        if not self._what or (not final and now - self._shown < LINE_SECONDS):
            return
        self._shown = now
        of = f"/{self._total}" if self._total else ""
        left = f", {duration(self.left)} left" if self.left and not final else ""
        print(
            f"{self.stage}: {self._what} {self._done}{of} {self._unit} ({self.rate:.1f}/s{left})",
            file=sys.stderr,
            flush=True,
        )


class JsonProgress(StageProgress):
    """Prints each event as a line of JSON on stdout."""

    def event(self, kind: str, **fields: Any) -> None:
        """Print one event."""
        line = json.dumps({"event": kind, "time": round(time.time(), 3), **fields}, ensure_ascii=False, default=str)
        with self._lock:
            print(visible(line), flush=True)

    def note(self, text: str) -> None:
        """Print an event that contains one line for the user."""
        self.event("note", text=text)

    def error(self, kind: str, exit_code: int, message: str) -> None:
        """Print the final error message of a failed stage, as an event on stdout and as a line on stderr."""
        self.event("error", **{"class": kind, "exit_code": exit_code, "message": message})
        super().error(kind, exit_code, message)

    def _say_summary(self, text: str, figures: Mapping[str, object]) -> None:
        self.event("summary", text=text, figures=dict(figures))

    def _say_speed(self, text: str, seconds: dict[str, float], count: int, bottleneck: str) -> None:
        self.event("speed", text=text, seconds=seconds, count=count, bottleneck=bottleneck)

    def _show_phase(self) -> None:
        self.event("phase", what=self._what, total=self._total, unit=self._unit)

    def _show_count(self, final: bool) -> None:
        now = time.monotonic()
        if not self._what or (not final and now - self._shown < EVENT_SECONDS):
            return
        self._shown = now
        left = None if self.left is None else round(self.left, 1)
        self.event(
            "progress",
            what=self._what,
            done=self._done,
            total=self._total,
            unit=self._unit,
            rate=round(self.rate, 2),
            left=left,
        )


class TerminalProgress(StageProgress):
    """Shows a progress bar of the library `rich`, with the rate and the remaining time."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns)
        self._task: Any = None

    def note(self, text: str) -> None:
        """Print one line above the bar."""
        self._bar.console.print(visible(f"{self.stage}: {text}"), markup=False, highlight=False)

    def _say_summary(self, text: str, figures: Mapping[str, object]) -> None:
        self.note(text)

    def _say_speed(self, text: str, seconds: dict[str, float], count: int, bottleneck: str) -> None:
        self.note(text)

    def _show_phase(self) -> None:
        from rich.markup import escape

        self._bar.start()
        self._task = self._bar.add_task(escape(visible(f"{self.stage}: {self._what}")), total=self._total, rate="")

    def _show_count(self, final: bool) -> None:
        if self._task is None:
            return
        self._bar.update(self._task, completed=self._done, rate=f"{self.rate:.1f} {self._unit}/s")
        if final:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None


def make_progress(stage: str, json_events: bool = False) -> StageProgress:
    """Return the progress display that suits the output.

    The display prints JSON if `json_events` is True, shows a bar on a terminal, and prints lines otherwise.
    """
    if json_events:
        return JsonProgress(stage)
    return TerminalProgress(stage) if sys.stderr.isatty() and sys.stdout.isatty() else LineProgress(stage)
