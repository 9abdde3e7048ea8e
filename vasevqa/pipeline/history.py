"""What became of a run's steps, by its event log."""

from __future__ import annotations

from typing import Any

from vasevqa.pipeline.events import progress_text
from vasevqa.pipeline.runs import Run


def steps_of(run: Run) -> dict[str, dict[str, Any]]:
    """Per step of the run: its state, seconds, summary or message, by its events."""
    found: dict[str, dict[str, Any]] = {}
    states = {
        "step-started": "running",
        "step-adopted": "running",
        "step-elsewhere": "waiting",
        "step-done": "done",
        "step-failed": "failed",
        "step-cancelled": "cancelled",
    }
    for event in run.events.read():
        if event["event"] == "run-started":
            for name in event["steps"]:
                found.setdefault(name, {"state": "waiting"})
            found |= {name: {"state": "skipped", "text": why} for name, why in event.get("skipped", {}).items()}
        if event["event"] == "stage-progress" and event["step"] in found:
            found[event["step"]]["progress"] = progress_text(event)
        if event["event"] in states:
            row = found.setdefault(event["step"], {})
            hit = event.get("hit") and row.get("state") != "done"
            row |= {
                "state": "up to date" if hit else states[event["event"]],
                "text": event.get("summary") or event.get("message") or row.get("text", ""),
            }
            row |= {key: event[key] for key in ("seconds", "job", "attempt", "key") if event.get(key) is not None}
    return found
