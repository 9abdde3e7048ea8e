"""`vasevqa repro`: return the `docker run` command that repeats a step of a run."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from vasevqa.artifacts.contents import RECORD
from vasevqa.artifacts.volume import Volume
from vasevqa.backends.base import Task
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.environment import container_environment, reaches_hub, stage_environment
from vasevqa.confidential import HUB_TOKENS, is_confidential
from vasevqa.errors import ConfigError
from vasevqa.pipeline.events import Event
from vasevqa.pipeline.runs import Run
from vasevqa.spec import Resources, Stage, quantity_bytes
from vasevqa.text import nearest

CONFIDENTIAL = re.compile(
    r"TOKEN|SECRET|PASSW|_KEY$", re.IGNORECASE
)  # stricter than the check of the Cluster file, so that no possible secret is shown


def started(run: Run, step: str) -> tuple[Run, Event]:
    """Return the run that made the artifact of `step`, and the last `step-started` event of the step in this run.

    Raise ConfigError if `run` has no such step, or if the event logs contain no such event.
    """
    keys = run.keys()
    if step not in keys:
        raise ConfigError(f"Run {run.name} has no step '{step}'.{nearest(step, list(keys))}")
    runs = [run]
    try:
        record = json.loads((run.volume.artifact(step, keys[step]).path / RECORD).read_text(encoding="utf-8"))
        runs.append(Run(run.volume, str(record["run"])))
    except (OSError, ValueError, KeyError):
        pass
    for maker in runs:
        starts = [
            event
            for event in maker.events.read()
            if event["event"] == "step-started" and event.get("step") == step and event.get("key") == keys[step]
        ]
        if starts and "arguments" in starts[-1]:
            return maker, starts[-1]
    raise ConfigError(
        f"There is no record of how {step} of run {run.name} was started; run the recipe again with --refresh {step},"
        " then repeat this command."
    )


def docker_run(stage: Stage, volume: Volume, step: str, event: Event, cluster: Cluster) -> list[str]:
    """Return the parts of the `docker run` command; each part goes on its own line.

    The command contains no secret values: docker takes them from the caller's environment.
    """
    asked = Resources.model_validate(event["resources"])
    image = str(event.get("image") or cluster.image(stage.name))
    arguments = _standalone(
        list(event["arguments"]), stage.output_flag, volume.root / "repro" / f"{step}-{event['key'][:10]}"
    )
    task = Task(
        run="",
        step=step,
        stage=stage.name,
        key=str(event["key"]),
        attempt=0,
        arguments=(),
        resources=asked,
        volume=volume.root,
        log=Path(),
        offline=bool(event.get("offline")),
        image=image,
    )
    cores = os.cpu_count() or 1
    environment = {
        **cluster.over(container_environment(task, cores, event.get("environment", {}))),
        **stage_environment(task),
    }
    caches = {
        folder
        for folder in (Path(environment[name]) for name in ("HF_HOME", "TORCH_HOME"))
        if not folder.is_relative_to(volume.root)
    }
    # An old event has no `reads`. Its arguments name at least some of the paths.
    reads = event.get(
        "reads", [word for word in arguments if word.startswith("/") and not Path(word).is_relative_to(volume.root)]
    )
    secret = {
        *HUB_TOKENS,
        *cluster.secrets,
        *(name for name, value in environment.items() if CONFIDENTIAL.search(name) or is_confidential(name, value)),
    }
    secret -= set() if reaches_hub(environment) else set(HUB_TOKENS)
    parts = ["docker run --rm"]
    if asked.gpus and "--device=cpu" not in arguments:
        parts.append(f"--gpus {asked.gpus}")
    parts.append(
        f"--cpus {min(asked.cpus, cores):g} --memory {quantity_bytes(asked.memory)}b --shm-size"
        f" {quantity_bytes(asked.shm)}b"
    )
    parts.append(
        '--read-only --tmpfs /tmp:exec --cap-drop ALL --security-opt no-new-privileges --user "$(id -u):$(id -g)"'
    )
    parts += [_volume(volume.root, volume.root), *(_volume(folder, folder) for folder in sorted(caches))]
    parts += [_volume(os.path.realpath(path), path, ":ro") for path in sorted(set(reads))]
    parts += [
        f"-e {shlex.quote(f'{name}={value}')}" for name, value in sorted(environment.items()) if name not in secret
    ]
    parts += [f"-e {name}" for name in sorted(secret)]
    return [*parts, shlex.quote(image), *_lines(arguments)]


def _volume(source: Path | str, target: Path | str, mode: str = "") -> str:
    return f"-v {shlex.quote(f'{source}:{target}{mode}')}"


def _standalone(arguments: list[str], output_flag: str, output: Path) -> list[str]:
    """Return the stage's arguments without the arguments that only a launcher gives.

    `output` replaces the output folder.
    """
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--task":
            next(rest)
        elif word == output_flag:
            next(rest)
            words += [word, str(output)]
        elif word != "--json-events":
            words.append(word)
    return words


def _lines(arguments: list[str]) -> list[Any]:
    """Return the arguments as lines; each line holds a flag and its value."""
    lines: list[str] = []
    for word in arguments:
        if word.startswith("--") or not lines or " " in lines[-1]:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines
