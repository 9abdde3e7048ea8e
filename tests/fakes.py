"""Stand-ins for this project's own Protocols, for tests that call a stage's `run` directly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from vasevqa import files


class FolderOutput:
    """An Output that is a plain folder; `check` counts its calls."""

    def __init__(self, root: Path, standalone: bool = True, volume: Path | None = None) -> None:
        self.root = root
        self.volume = volume
        self.standalone = standalone
        self.checks = 0
        root.mkdir(parents=True, exist_ok=True)

    @property
    def final(self) -> Path:
        return self.root

    def check(self) -> None:
        self.checks += 1

    @contextlib.contextmanager
    def writing(self, name: str, mode: str = "wb") -> Iterator[IO[Any]]:
        with files.writing(self.root / name, mode, self.check) as stream:
            yield stream

    def write_text(self, name: str, text: str) -> None:
        files.write_text(self.root / name, text)

    def write_json(self, name: str, value: Any) -> None:
        files.write_json(self.root / name, value)

    def place(self, source: Path, name: str) -> str:
        self.check()
        return files.place(source, self.root / name)


class RecordingProgress:
    """A Progress that records all calls."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None, str]] = []
        self.done = 0
        self.notes: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.summaries: list[tuple[str, dict[str, Any]]] = []
        self.speeds: list[tuple[dict[str, float], int]] = []

    def start(self, what: str, total: int | None = None, unit: str = "images") -> None:
        self.phases.append((what, total, unit))

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, kind: str, **fields: Any) -> None:
        self.events.append({"event": kind, **fields})

    def summary(self, text: str, **figures: Any) -> None:
        self.summaries.append((text, figures))

    def speed(self, seconds: Mapping[str, float], count: int, unit: str = "images") -> None:
        self.speeds.append((dict(seconds), count))
