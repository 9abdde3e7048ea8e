"""The event log of a run: JSON lines, append-only, readable while it grows and after a crash."""

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
    """`runs/<run>/events.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, /, **fields: Any) -> Event:
        """Append one event with the time in seconds since the epoch, and return it.

        The event is written by one call, so lines of two writers never mix. An OSError (a full disk) leaves no partial
        event behind.
        """
        event: Event = {"event": kind, "time": round(time.time(), 3), **fields}
        line = json.dumps(event, ensure_ascii=False, default=str).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if (
                size and os.pread(descriptor, 1, size - 1) != b"\n"
            ):  # a truncated last line must not merge with this one
                line = b"\n" + line
            written = os.write(descriptor, line)
            if written < len(line):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(descriptor)
        return event

    def last(self, kinds: Collection[str]) -> Event | None:
        """Return the newest event of these kinds, or None."""
        found = None
        for event in self.read():
            if event["event"] in kinds:
                found = event
        return found

    def read(self) -> Iterator[Event]:
        """Yield all events so far; skip lines that are not complete events."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        yield from parse(text.split("\n"))


def parse(lines: list[str]) -> Iterator[Event]:
    """Yield the events among `lines`; skip other lines, such as a library's prints."""
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
