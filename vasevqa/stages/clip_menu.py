"""The menu of `clip-filter --interactive`, and the question of `clip-filter --auto-select-device`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from vasevqa.stages.clip_filter import Options, Params, check_terminal

CHOICES = (
    "analyse only",
    "automatic threshold",
    "own threshold",
    "force CPU",
    "choose a GPU",
    "quick look at 100 samples",
)


def devices() -> list[str]:
    """Return the names of this machine's devices, the CPU first."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in range(count))]


def choose_device() -> str:
    """Ask the user for one of this machine's devices."""
    known = devices()
    for number, name in enumerate(known, 1):
        click.echo(f"  {number}. {name}")
    picked: int = click.prompt("Device", type=click.IntRange(1, len(known)), default=len(known))
    return known[picked - 1]


def interact(params: Params, options: Options, inputs: Mapping[str, Path]) -> tuple[Params, Options]:
    """Show the menu until the user chooses an action, and return the chosen parameters and options."""
    if options.auto_select_device and not options.interactive:
        check_terminal("--auto-select-device")
        return params, options.model_copy(update={"device": choose_device(), "auto_select_device": False})
    check_terminal("--interactive")
    while True:
        click.echo(f"clip-filter on {inputs['images']} (device {options.device})")
        for number, text in enumerate(CHOICES, 1):
            click.echo(f"  {number}. {text}")
        choice: int = click.prompt("Choice", type=click.IntRange(1, len(CHOICES)))
        if choice == 1:
            return params.model_copy(update={"analyze_only": True}), options
        if choice == 2:
            return params.model_copy(update={"analyze_only": False, "threshold": None}), options
        if choice == 3:
            threshold: float = click.prompt("Threshold", type=click.FloatRange(-2, 2))
            return params.model_copy(update={"analyze_only": False, "threshold": threshold}), options
        if choice == 6:
            return params.model_copy(update={"analyze_only": True, "sample_size": 100}), options
        options = options.model_copy(update={"device": "cpu" if choice == 4 else choose_device()})
