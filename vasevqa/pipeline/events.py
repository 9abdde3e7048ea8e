"""The event log of a run, a file of JSON lines.

Lines are only appended. So the log can be read during the run and after a crash.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from vasevqa.text import duration

Event = dict[str, Any]


class EventLog:
    """The event log `runs/<run>/events.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, /, **fields: Any) -> Event:
        """Append one event with the time in seconds since the epoch, and return the event.

        One system call writes the event, so lines of two writers never mix. If the method raises OSError, for example
        because the disk is full, the log keeps no part of the event.
        """
        event: Event = {"event": kind, "time": round(time.time(), 3), **fields}
        line = json.dumps(event, ensure_ascii=False, default=str).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if (
                size and os.pread(descriptor, 1, size - 1) != b"\n"
            ):  # a truncated last line must not merge with the new line
                line = b"\n" + line
            written = os.write(descriptor, line)
            if written < len(line):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(descriptor)
        return event

    def last(self, kinds: Collection[str]) -> Event | None:
        """Return the newest event whose kind is in `kinds`; None if there is no such event."""
        newest = None
        for event in self.read():
            if event["event"] in kinds:
                newest = event
        return newest

    def read(self) -> Iterator[Event]:
        """Yield all events so far; skip lines that are not complete events. Raise OSError if the file can't be read."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for event in parse(text.split("\n")):
            event.setdefault("time", 0.0)
            yield event


def parse(lines: list[str]) -> Iterator[Event]:
    """Yield the events in `lines`; skip other lines, such as the output of a library."""
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if (
            isinstance(event, dict)
            and isinstance(event.get("event"), str)
            and isinstance(event.get("time", 0.0), (int, float))
        ):
            yield event


def progress_text(event: Event) -> str:
    """Return the progress as text: 'scoring 120/400 images (33.1/s, 8 s left)'."""
    of = f"/{event['total']}" if event.get("total") else ""
    left = f", {duration(event['left'])} left" if event.get("left") else ""
    rate = f" ({event['rate']}/s{left})" if event.get("rate") else ""
    return f"{event.get('what', '')} {event.get('done', 0)}{of} {event.get('unit', '')}{rate}".strip()
