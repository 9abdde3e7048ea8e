"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vasevqa.pipeline.requests import RecipeRequest
from vasevqa.pipeline.selection import Selection


def volume_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--volume DIR`, the folder with artifacts and runs."""
    return click.option(
        "--volume",
        type=click.Path(path_type=Path, file_okay=False),
        default="volume",
        envvar="VASEVQA_VOLUME",
        show_default=True,
        help="the shared directory of artifacts and runs",
    )(function)


def cluster_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--cluster FILE`, the site's settings."""
    return click.option(
        "--cluster",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="VASEVQA_CLUSTER",
        help="YAML file with the site's settings: registry, proxies, secrets, namespace, claim",
    )(function)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--cluster` and `--namespace`, for commands that can also use a volume in a cluster."""
    return cluster_option(
        click.option("-n", "--namespace", help="use the volume in this namespace of the cluster")(function)
    )


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Combine several options into one decorator. `--help` lists them in the order of the arguments."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="print JSON lines")
parallel_option = click.option(
    "--parallel",
    "--max-parallel",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help=("number of steps that run at the same time"),
)
inputs_from_option = click.option(
    "--inputs-from",
    type=click.Path(path_type=Path, file_okay=False),
    help="paths in the recipe are relative to this folder, not to the recipe",
)


def recipe_options(
    required: bool = True, inputs_from: bool = True, about_input: str = "give or replace an input"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add RECIPE and the options that change the recipe.

    The command gets the argument `recipe`: a RecipeRequest, or None if the user gave no RECIPE.
    """

    def gather(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_recipe(
            *arguments: Any,
            recipe: Path | None,
            overrides: tuple[str, ...],
            inputs: tuple[str, ...],
            device: str | None,
            inputs_from: Path | None = None,
            **rest: Any,
        ) -> Any:
            request = None if recipe is None else RecipeRequest(recipe, overrides, inputs, inputs_from, device)
            return function(*arguments, recipe=request, **rest)

        return with_recipe

    return _options(
        click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False), required=required),
        click.option("--set", "overrides", multiple=True, metavar="STEP.PARAM=VALUE", help="change a parameter"),
        click.option("--device", metavar="DEVICE", help="device of every step: auto, cpu, cuda or cuda:N"),
        click.option("--input", "inputs", multiple=True, metavar="NAME=PATH", help=about_input),
        *([inputs_from_option] if inputs_from else []),
        gather,
    )


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select steps. The command gets the argument `selection`, a Selection."""

    @functools.wraps(function)
    def with_selection(
        *arguments: Any,
        first: str | None,
        last: str | None,
        only: tuple[str, ...],
        refresh: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        return function(*arguments, selection=Selection(first, last, only, refresh), **rest)

    return _options(
        click.option("--from", "first", metavar="STEP", help="begin with this step; its inputs must exist"),
        click.option("--to", "last", metavar="STEP", help="end here"),
        click.option("--only", multiple=True, metavar="STEP", help="only this step (may be repeated)"),
        click.option(
            "--refresh", multiple=True, metavar="STEP", help="make this step's artifact again (may be repeated)"
        ),
    )(with_selection)


def namespace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--namespace NAME`."""
    return click.option(
        "-n", "--namespace", help=("the namespace; unset: the namespace in the Cluster file or in the context")
    )(function)


def is_remote(volume: Path, cluster: Path | None, namespace: str | None) -> bool:
    """Return True if the command must use the volume in a cluster.

    A namespace always means a cluster. A Cluster file means a cluster only if `volume` is not a folder on this machine.
    """
    return namespace is not None or (cluster is not None and not volume.is_dir())


def asked(name: str | None, *options: tuple[str, bool]) -> list[str]:
    """Return the arguments of a command line: a run's name, and options.

    Each of `options` is an option and its value. If the value is True, the option becomes a flag without a value. If
    the value is False or empty, the option is left out.
    """
    words = [name] if name else []
    for option, value in options:
        words += [option] if value is True else [option, str(value)] if value else []
    return words


def backend_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--backend NAME`, which runs steps as local processes, as containers or in a cluster."""
    return click.option(
        "--backend",
        type=click.Choice(["local", "docker", "kubernetes"]),
        default="local",
        envvar="VASEVQA_BACKEND",
        show_default=True,
        help="where steps run",
    )(function)
