"""The history of a run's steps, read from its event log by the launcher, `status`, the report and its costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vasevqa.pipeline.events import Event, progress_text

_STATES = {
    "step-started": "running",
    "step-adopted": "running",
    "step-elsewhere": "waiting",
    "step-done": "done",
    "step-failed": "failed",
    "step-cancelled": "cancelled",
}
_ENDS = ("attempt-failed", "step-done", "step-failed", "step-cancelled", "step-requeued")


@dataclass(frozen=True)
class Held:
    """The resources that an attempt held (as in the recipe), and for how many seconds."""

    resources: dict[str, Any]
    seconds: float


@dataclass
class StepHistory:
    """The history of one step of a run. Times are seconds since the epoch; `state` is what `status` prints."""

    name: str
    state: str = "waiting"  # running, done, up to date, failed, skipped, cancelled
    text: str = ""  # its summary, or why it failed or was skipped
    progress: str = ""
    speed: str = ""
    key: str = ""
    job: str = ""
    attempt: int = 0
    seconds: float | None = None  # from its start to its artifact
    began: float | None = None
    ended: float | None = None
    held: list[Held] = field(default_factory=list)
    _resources: dict[str, Any] = field(default_factory=dict)
    _running: float | None = None

    def see(self, event: Event) -> None:
        """Update from the next event of this step."""
        kind = event["event"]
        if kind == "step-started":
            self.began = self.began or event["time"]
            self._resources, self._running = event.get("resources") or {}, None
        elif kind == "step-running" and self._running is None:
            self._running = event["time"]
        elif kind in _ENDS and self._running is not None and self._resources:
            self.held.append(Held(self._resources, event["time"] - self._running))
            self._running = None
        elif kind == "stage-progress":
            self.progress = progress_text(event)
        elif kind == "stage-speed":
            self.speed = event.get("text", "")
        if kind in _STATES:
            self._reach(kind, event)

    def _reach(self, kind: str, event: Event) -> None:
        hit = bool(event.get("hit")) and self.state != "done" and self.began is None
        self.state = "up to date" if hit else _STATES[kind]
        self.text = event.get("summary") or event.get("message") or self.text
        if kind in ("step-done", "step-failed", "step-cancelled"):
            self.ended = event["time"]
        if event.get("seconds") is not None:
            self.seconds = event["seconds"]
        self.key = event.get("key") or self.key
        self.job = event.get("job") or self.job
        self.attempt = event.get("attempt") or self.attempt

    def to_json(self) -> dict[str, object]:
        """Return the row of `status --json`, without unknown values."""
        known = {"progress": self.progress, "key": self.key, "job": self.job, "attempt": self.attempt}
        row: dict[str, Any] = {"state": self.state}
        if self.state != "waiting" or self.text:
            row["text"] = self.text
        row |= {name: said for name, said in known.items() if said}
        return row if self.seconds is None else {**row, "seconds": self.seconds}


def read_history(events: Iterable[Event]) -> dict[str, StepHistory]:
    """Return step -> its history in the plan's order; skipped steps come last."""
    found: dict[str, StepHistory] = {}
    for event in events:
        if event["event"] == "run-started":
            for name in event["steps"]:
                found.setdefault(name, StepHistory(name))
            for name, why in event.get("skipped", {}).items():
                found.setdefault(name, StepHistory(name, "skipped", why))
        step = event.get("step")
        if step is None or (step not in found and event["event"] not in _STATES):
            continue
        found.setdefault(step, StepHistory(step)).see(event)
    return found


@dataclass
class Restored:
    """What an earlier launcher of the run logged about one step's artifact; the next launcher resumes from it."""

    job: str = ""  # the last one; empty if its failure is logged
    attempt: int = 0
    started: float = 0.0  # seconds since the epoch, like those below; 0: not yet
    placed: float = 0.0
    ran: float = 0.0
    last_event_time: float = 0.0  # stage events up to this time are already in the log
    previous: str = ""  # the artifact that a refresh replaces
    failures: Counter[str] = field(default_factory=Counter)  # class of failure -> how often
    raised: dict[str, Any] = field(default_factory=dict)  # resources that were raised after failures


def restore(events: Iterable[Event], step: str, key: str) -> Restored:
    """Return the state that the events of `step` about the artifact `key` describe."""
    found = Restored()
    for event in events:
        if event.get("step") != step:
            continue
        found.last_event_time = max(found.last_event_time, float(event.get("at", 0.0)))
        if event.get("key") != key:
            continue
        kind = event["event"]
        if kind in ("step-started", "step-adopted"):
            if event["job"] != found.job:
                found.placed = found.ran = 0.0
                found.started = event["time"]
            found.job, found.attempt = event["job"], event["attempt"]
        elif kind == "step-running":
            found.placed = found.ran = event["time"]
        elif kind == "step-requeued":
            found.ran = 0.0
        elif kind == "step-refreshed":
            found.previous = event["aside"]
        elif kind == "attempt-failed":
            found.job = ""
            found.failures[event["failure"]] += 1
            found.raised |= event.get("raised", {})
    return found
