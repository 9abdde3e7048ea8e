"""Options that several commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def volume_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--volume DIR`: where artifacts and runs lie."""
    return click.option(
        "--volume",
        type=click.Path(path_type=Path, file_okay=False),
        default="volume",
        envvar="VASEVQA_VOLUME",
        show_default=True,
        help="the shared directory of artifacts and runs",
    )(function)


def cluster_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--cluster FILE`: the site's settings."""
    return click.option(
        "--cluster",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="VASEVQA_CLUSTER",
        help="YAML file with the site's settings: registry, proxies, secrets, namespace, claim",
    )(function)


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--cluster` and `--namespace`: ask a cluster where there is no volume here."""
    return cluster_option(click.option("-n", "--namespace", help="ask the cluster, in this namespace")(function))


def plan_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `plan` and `run` have in common."""
    options: list[Callable[..., Any]] = [
        click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False)),
        volume_option,
        click.option("--set", "overrides", multiple=True, metavar="STEP.PARAM=VALUE", help="change a parameter"),
        click.option("--input", "inputs", multiple=True, metavar="NAME=PATH", help="give or replace an input"),
        click.option(
            "--inputs-from",
            type=click.Path(path_type=Path, file_okay=False),
            help="paths in the recipe are relative to this folder, not to the recipe",
        ),
        click.option("--from", "first", metavar="STEP", help="begin here; what this step reads must exist"),
        click.option("--to", "last", metavar="STEP", help="end here"),
        click.option("--only", multiple=True, metavar="STEP", help="only this step (may be repeated)"),
        click.option(
            "--refresh", multiple=True, metavar="STEP", help="make this step's artifact anew (may be repeated)"
        ),
        click.option("--json", "as_json", is_flag=True, help="print JSON lines"),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def namespace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--namespace NAME`."""
    return click.option("-n", "--namespace", help="the namespace; unset: the Cluster file's, or the context's")(
        function
    )


def is_remote(volume: Path, cluster: Path | None, namespace: str | None) -> bool:
    """Is the question for a cluster? If a namespace is named, or a Cluster file where there is no such volume."""
    return namespace is not None or (cluster is not None and not volume.is_dir())


def asked(name: str | None, *options: tuple[str, Any]) -> list[str]:
    """A run's name and options as words; flags that are off and options without a value are left out."""
    words = [name] if name else []
    for option, value in options:
        words += [option] if value is True else [option, str(value)] if value else []
    return words


def backend_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--backend NAME`: where steps run."""
    return click.option(
        "--backend",
        type=click.Choice(["local", "docker", "kubernetes"]),
        default="local",
        envvar="VASEVQA_BACKEND",
        show_default=True,
        help="where steps run",
    )(function)
