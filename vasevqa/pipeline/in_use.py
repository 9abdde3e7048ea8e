"""Which artifacts the runs on the volume use. `clean` removes no artifact that a run uses."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from vasevqa.artifacts.contents import RECORD
from vasevqa.artifacts.lease import holder
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.pipeline.runs import Run

ENDED = ("finished", "failed", "cancelled")  # the states of a run that no launcher continues

Name = tuple[str, str]  # the step and the key of an artifact


def folders(volume: Volume) -> Iterator[Run]:
    """Yield all runs, oldest first. This includes damaged runs, and runs whose files are not all written yet."""
    for entry in sorted(volume.runs.iterdir()) if volume.runs.is_dir() else []:
        if entry.is_dir() and not entry.name.startswith("."):
            yield Run(volume, entry.name)


class InUse(Exception):
    """A file or an artifact must stay where it is. The text says why."""


class ArtifactsInUse:
    """The artifacts that runs use.

    `selected` holds the names of runs that `clean` is asked to remove. Such a run is treated as if it used no artifact,
    unless a launcher works on it. Each method reads the volume again, except for runs that have ended.
    """

    def __init__(self, volume: Volume, selected: Collection[str] = ()) -> None:
        self._volume = volume
        self._selected = frozenset(selected)
        self._ended: dict[str, set[Name]] = {}
        self._known: set[str] = set()
        self._planned: dict[Name, int] = {}
        self.previous: set[Path] = set()  # artifacts that a refresh replaces, until the new artifact is complete
        for run in folders(volume):
            self._known.add(run.name)
            uses = run.uses()
            for name in uses:
                self._planned[name] = max(self._planned.get(name, 0), _planned(run))
            if run.state in ENDED:
                self._ended[run.name] = uses
            else:
                self.previous |= _previous(run)

    def kept(self) -> set[Name]:
        """Return the artifacts that a run has planned or linked."""
        kept: set[Name] = set()
        for run in folders(self._volume):
            if run.name in self._ended:
                kept |= set() if run.name in self._selected else self._ended[run.name]
            elif run.name not in self._selected or holder(run.lease) is not None:
                kept |= run.uses()
        return kept

    def worked_on(self) -> set[Name]:
        """Return the artifacts in the plans of running runs, and of runs that began after this object was made."""
        return {
            name
            for run in folders(self._volume)
            if run.name not in self._ended and (run.name not in self._known or holder(run.lease) is not None)
            for name in run.uses()
        }

    def starting(self, artifact: Artifact) -> bool:
        """Return True if a run has marked the artifact as used, but hasn't written its plan.

        Each run marks the artifacts that it uses, and then writes its plan (Artifact.mark_used).
        """
        marked = artifact.path.stat().st_mtime_ns
        made = (artifact.path / RECORD).stat().st_mtime_ns if artifact.complete else 0
        return marked > max(made, self._planned.get((artifact.step, artifact.key), 0))


def _previous(run: Run) -> set[Path]:
    """Return the old artifacts that a refresh in this run replaces. Return an empty set if the log can't be read."""
    try:
        events = list(run.events.read())
    except OSError:
        return set()
    asides = [event.get("aside") for event in events if event["event"] == "step-refreshed"]
    return {Path(aside) for aside in asides if isinstance(aside, str)}


def _planned(run: Run) -> int:
    """Return when the run's last launcher finished its plan, in nanoseconds since the epoch; 0 if unknown."""
    for name in ("place.json", "plan.json"):
        try:
            return (run.path / name).stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return 0
