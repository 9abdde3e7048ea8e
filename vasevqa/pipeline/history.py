"""Read the history of a run's steps from the event log.

The launcher, `status`, the report and the costs use the history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
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
    """The resources that an attempt held, and how long the attempt held them in seconds.

    The resources are those that the attempt requested. A step with `device: cpu` uses no GPU, so it holds no GPU.
    """

    resources: dict[str, Any]
    seconds: float


@dataclass
class StepHistory:
    """The history of one step of a run. Times are seconds since the epoch. `vasevqa status` prints `state`."""

    name: str
    state: str = "waiting"  # running, done, up to date, failed, skipped, cancelled
    text: str = ""  # the summary of the step, or why the step failed or was skipped
    progress: str = ""
    speed: str = ""
    key: str = ""
    job: str = ""
    attempt: int = 0
    seconds: float | None = None  # seconds from the step's start to its artifact
    began: float | None = None
    ended: float | None = None
    held: list[Held] = field(default_factory=list)
    _resources: dict[str, Any] = field(default_factory=dict)
    _running: float | None = None
    _seen: float = 0.0  # the time of the last event

    @property
    def resources(self) -> Mapping[str, object]:
        """The resources that the last attempt requested; {} if no attempt began. On the CPU, GPUs are left out."""
        return self._resources

    @property
    def used(self) -> list[Held]:
        """The resources that each attempt held. An attempt whose end isn't logged counts up to its last event."""
        return [*self.held, *self._open()]

    def _open(self) -> list[Held]:
        if self._running is None or not self._resources:
            return []
        return [Held(self._resources, self._seen - self._running)]

    def see(self, event: Event) -> None:
        """Update the history with the next event of this step."""
        kind = event["event"]
        if kind == "step-started":
            self.held += self._open()  # the launcher of an earlier attempt ended before the attempt
            self.began = self.began or event["time"]
            self._resources, self._running = dict(event.get("resources") or {}), None
            if event.get("device") == "cpu":  # whatever number of GPUs the recipe requests
                self._resources.pop("gpus", None)
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
        self._seen = event.get("time", self._seen)

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
    """Return a mapping from step to history, in the order of the plan; skipped steps come last."""
    histories: dict[str, StepHistory] = {}
    for event in events:
        if event["event"] == "run-started":
            for name in event.get("steps") or []:
                histories.setdefault(name, StepHistory(name))
            for name, why in (event.get("skipped") or {}).items():
                histories.setdefault(name, StepHistory(name, "skipped", why))
        step = event.get("step")
        if step is None or (step not in histories and event["event"] not in _STATES):
            continue
        histories.setdefault(step, StepHistory(step)).see(event)
    return histories


@dataclass
class Restored:
    """The state of one step in the log of earlier launchers. The next launcher resumes from this state."""

    job: str = ""  # the last job; empty if its failure is logged
    attempt: int = 0
    started: float = 0.0  # seconds since the epoch, as in the next three fields; 0: not yet known
    placed: float = 0.0
    ran: float = 0.0
    last_event_time: float = 0.0  # stage events up to this time are already in the log
    previous: str = ""  # the artifact that a refresh replaces
    failures: Counter[str] = field(default_factory=Counter)  # class of failure -> how often
    raised: dict[str, Any] = field(default_factory=dict)  # resources that were raised after failures


def restore(events: Iterable[Event], step: str, key: str) -> Restored:
    """Return the state of `step` from the events about the artifact `key`."""
    restored = Restored()
    for event in events:
        if event.get("step") != step:
            continue
        restored.last_event_time = max(restored.last_event_time, float(event.get("at", 0.0)))
        if event.get("key") != key:
            continue
        kind = event["event"]
        if kind in ("step-started", "step-adopted") and "job" in event and "attempt" in event:
            if event["job"] != restored.job:
                restored.placed = restored.ran = 0.0
                restored.started = event["time"]
            restored.job, restored.attempt = event["job"], event["attempt"]
        elif kind == "step-running":
            restored.placed = restored.ran = event["time"]
        elif kind == "step-requeued":
            restored.ran = 0.0
        elif kind == "step-refreshed":
            restored.previous = event.get("aside", "")
        elif kind == "attempt-failed":
            restored.job = ""
            restored.failures[event.get("failure", "")] += 1
            restored.raised |= event.get("raised", {})
    return restored
