"""Estimate the time of steps from earlier runs of the same steps on this machine, or from a short measurement."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.errors import DataError
from vasevqa.pipeline.plan import Plan
from vasevqa.spec import Options, Params
from vasevqa.stages import clip_filter
from vasevqa.text import duration

if TYPE_CHECKING:
    from vasevqa.curation.images import ImageFile


@dataclass(frozen=True)
class Forecast:
    """The estimated duration of each step in seconds, and the steps without an estimate."""

    seconds: Mapping[str, float]
    unknown: tuple[str, ...]

    def said(self) -> str:
        """Return a line such as `time: about 12 min on this machine for clip-filter; unknown for sft`."""
        known = f"about {duration(sum(self.seconds.values()))} on this machine for {', '.join(self.seconds)}"
        parts = [
            *([known] if self.seconds else []),
            *([f"unknown for {', '.join(self.unknown)}"] if self.unknown else []),
        ]
        return "time: " + ("; ".join(parts) or "nothing is missing")


def forecast(
    planned: Plan,
    photographs: int | None,
    measured: Mapping[str, float] | None = None,
    new: Mapping[str, int] | None = None,
) -> Forecast:
    """Return the forecast for the steps that will run.

    The seconds per photograph come from the step's newest artifact that was made on this machine. For a step without
    such an artifact, they come from `measured` (step -> seconds per photograph).

    `photographs` is the number of all photographs; None if it is unknown. Some steps reuse values of earlier runs.
    `new` maps such a step to the number of photographs without values. A step without an entry in `new` processes all
    photographs. There is no estimate for a step whose number of photographs is unknown.
    """
    missing = [step.name for step in planned.steps if not step.hit]
    counts = {name: (new or {}).get(name, photographs) for name in missing}
    return _forecast(counts, {**(measured or {}), **_paces(planned.volume, missing)})


def first_forecast(steps: Sequence[str], photographs: int, measured: Mapping[str, float]) -> Forecast:
    """Return the forecast for steps that have never run. `measured` maps a step to its seconds per photograph."""
    return _forecast(dict.fromkeys(steps, photographs), measured)


def measure(planned: Plan, photographs: Sequence[ImageFile]) -> dict[str, float]:
    """Measure the seconds per photograph of the plan's clip-filter step. The measurement takes some seconds.

    Return {} if the step won't run, or if an artifact from this machine already shows the step's speed. Also return {}
    if the CLIP model comes from a hub, if torch isn't installed, or if no photograph can be read. Raise ConfigError or
    DataError if the model can't be used.
    """
    step = next((step for step in planned.steps if step.stage.name == "clip-filter" and not step.hit), None)
    if step is None or _paces(planned.volume, [step.name]):
        return {}
    model = step.inputs["clip_model"].path
    if model is None:
        return {}
    seconds = measure_clip(model, photographs, step.params, step.options)
    return {} if seconds is None else {step.name: seconds}


def measure_clip(model: Path, photographs: Sequence[ImageFile], params: Params, options: Options) -> float | None:
    """Return how many seconds `clip-filter` needs per photograph with its parameters and options.

    Return None if torch isn't installed, or if no photograph can be read.
    """
    assert isinstance(params, clip_filter.Params)
    assert isinstance(options, clip_filter.Options)
    if importlib.util.find_spec("torch") is None:
        return None
    from vasevqa.curation.pace import Settings, seconds_per_photograph

    settings = Settings(
        options.device,
        options.batch_size,
        options.workers,
        params.precision,
        exact_decode=params.exact_decode,
        checked=params.checks == "full",
    )
    return seconds_per_photograph(model, photographs, settings)


def _forecast(counts: Mapping[str, int | None], paces: Mapping[str, float]) -> Forecast:
    """Return the forecast from the number of photographs and the seconds per photograph of each step."""
    seconds = {name: paces[name] * count for name, count in counts.items() if name in paces and count is not None}
    return Forecast(seconds, tuple(name for name in counts if name not in seconds))


def _paces(volume: Volume, steps: Sequence[str]) -> dict[str, float]:
    known = {name: _seconds_each(volume, name) for name in steps}
    return {name: seconds for name, seconds in known.items() if seconds is not None}


def _seconds_each(volume: Volume, step: str) -> float | None:
    """Return the step's seconds per photograph, from its newest artifact that was made on this machine.

    Artifacts without a recorded speed are skipped. Return None if no artifact is left.
    """
    rates = (_rate(artifact) for artifact in reversed(volume.complete(step)))
    return next((rate for rate in rates if rate is not None), None)


def _rate(artifact: Artifact) -> float | None:
    try:
        record = artifact.record()
        figures = record["figures"]
        # Images that an earlier run or attempt had computed cost no time.
        images = figures.get("images") - figures.get("known", 0) if isinstance(figures, dict) else None
        began, ended = (datetime.fromisoformat(str(record[name])) for name in ("started", "finished"))
    except (DataError, KeyError, TypeError, ValueError):
        return None
    here = record.get("host") == socket.gethostname()
    return (ended - began).total_seconds() / images if here and isinstance(images, int) and images > 0 else None
