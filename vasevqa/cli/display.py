"""Show the output of `vasevqa run`: progress bars on a terminal, plain lines in a pipe, JSON lines with --json."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from vasevqa.pipeline.events import Event, parse, progress_text
from vasevqa.text import duration, unfiltered, visible

LINE_SECONDS = 5.0


def sentence(event: Event) -> str | None:
    """Return an event as text for a user; None if the event is not shown."""
    kind, step = event["event"], event.get("step", "")
    if kind == "run-started":
        return "\n".join(f"{name}: {why}" for name, why in event.get("skipped", {}).items()) or None
    if kind == "step-started":
        return _started(event)
    if kind == "step-adopted":
        return f"{step}: found running, adopted (attempt {event['attempt']})"
    if kind == "step-waiting":
        return f"{step}: {event['message']}"
    if kind == "step-elsewhere":
        return f"{step}: another launcher runs this step, waiting for the artifact"
    if kind == "step-done":
        took = "" if event.get("seconds") is None else f" in {duration(event['seconds'])}"
        summary = f": {event['summary']}" if event.get("summary") else ""
        return f"{step}: {'up to date' if event['hit'] else 'done' + took}{summary}"
    if kind == "attempt-failed":
        return f"{step}: {event['message']}{' Trying again.' if event['retry'] else ''}"
    if kind == "step-failed":
        return f"{step}: failed; its log is {event['log']}"
    if kind in ("stage-note", "stage-speed"):
        return f"{step}: {event.get('text', '')}"
    if kind == "step-refreshed":
        return f"{step}: its artifact is made again"
    if kind == "step-cancelled":
        return f"{step}: stopping"
    return None


def log_line(line: str) -> str | None:
    """Return a line of a stage's log as text for a user; None if the line is not shown.

    Events become sentences. All other lines stay unchanged.
    """
    event = next(parse([line]), None)
    if event is None:
        return line
    kind = event["event"]
    if kind == "progress":
        return progress_text(event)
    if kind == "phase":
        total = f": {event['total']} {event.get('unit', '')}" if event.get("total") else ""
        return f"{event.get('what', '')}{total}"
    if kind == "metrics":
        return ", ".join(f"{name} {value}" for name, value in event.items() if name not in ("event", "time"))
    if kind in ("note", "summary", "speed"):
        return str(event.get("text", ""))
    return None  # the log also contains errors as plain text


def _started(event: Event) -> str:
    again = f" (attempt {event['attempt']})" if event["attempt"] > 1 else ""
    return f"{event['step']}: started{again}"


class PlainDisplay:
    """Prints one line per event, and the progress every few seconds."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Show one event."""
        line = sentence(event)
        if event["event"] == "stage-progress":
            step = event["step"]
            if time.monotonic() - self._shown.get(step, -1e9) < LINE_SECONDS:
                return
            self._shown[step] = time.monotonic()
            line = f"{step}: {progress_text(event)}"
        if line:
            print(line, flush=True)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class JsonDisplay:
    """Prints one JSON line per event."""

    def __call__(self, event: Event) -> None:
        """Show one event."""
        print(json.dumps(event, ensure_ascii=False, default=str), flush=True)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class TerminalDisplay:
    """Shows a progress bar per running step, and lines above the bars."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            console=Console(file=unfiltered(sys.stdout)),
        )
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        kind, step = event["event"], event.get("step", "")
        line = sentence(event)
        if line:
            self._progress.console.print(visible(line), markup=False, highlight=False)
        if kind in ("stage-phase", "stage-progress"):
            if step not in self._tasks:
                self._tasks[step] = self._progress.add_task(step, total=None, rate="")
            rate = visible(f"{event['rate']} {event.get('unit', '')}/s") if "rate" in event else ""
            self._progress.update(
                self._tasks[step],
                description=visible(f"{step}: {event.get('what', '')}"),
                total=event.get("total"),
                completed=event.get("done", 0),
                rate=rate,
            )
        elif kind in ("step-done", "step-failed", "step-cancelled") and step in self._tasks:
            self._progress.remove_task(self._tasks.pop(step))

    def close(self) -> None:
        """Stop the progress bars and restore the terminal."""
        self._progress.stop()


Display = PlainDisplay | JsonDisplay | TerminalDisplay


def make_display(as_json: bool) -> Display:
    """Return the display for JSON, a terminal or a pipe."""
    if as_json:
        return JsonDisplay()
    return TerminalDisplay() if sys.stdout.isatty() else PlainDisplay()
