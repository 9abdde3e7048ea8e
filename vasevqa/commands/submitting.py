"""`vasevqa submit` and `attach`: a recipe runs in the cluster, whether this machine stays on or not."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vasevqa.backends.cluster import Cluster, load_cluster
from vasevqa.backends.launcher_manifest import VOLUME, Launch, named
from vasevqa.cli import cluster_option
from vasevqa.errors import ClusterError, ConfigError, nearest
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import load_recipe

if TYPE_CHECKING:
    from vasevqa.backends.kubernetes_access import Access


def namespace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--namespace NAME`."""
    return click.option("-n", "--namespace", help="the namespace; unset: the Cluster file's, or the context's")(function)


def cluster_of(path: Path | None, namespace: str | None) -> Cluster:
    """The Cluster file's settings, in `namespace` if one is given."""
    cluster = load_cluster(path)
    return cluster.model_copy(update={"namespace": namespace}) if namespace else cluster


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False))
@cluster_option
@namespace_option
@click.option("--set", "overrides", multiple=True, metavar="STEP.PARAM=VALUE", help="change a parameter")
@click.option("--input", "inputs", multiple=True, metavar="NAME=PATH", help="give or replace an input; PATH is relative to the volume")
@click.option("--upload", is_flag=True, help="first bring the recipe's inputs that are on this machine to the volume, as inputs/NAME-DIGEST")
@click.option("--from", "first", metavar="STEP", help="begin here; what this step reads must exist")
@click.option("--to", "last", metavar="STEP", help="end here")
@click.option("--only", multiple=True, metavar="STEP", help="only this step (may be repeated)")
@click.option("--refresh", multiple=True, metavar="STEP", help="make this step's artifact anew (may be repeated)")
@click.option("--parallel", "--max-parallel", type=click.IntRange(1), default=2, show_default=True, help="steps side by side")
@click.option("--detach", is_flag=True, help="start it and don't follow it")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="at the end bring the run's report into this folder")
def submit(**given: Any) -> None:
    """Run RECIPE in the cluster.

    Hands the recipe to a launcher in the cluster and follows it. Paths in the recipe are relative to the volume's root, where
    `vasevqa upload` puts things. Ctrl-C stops following, not the run. The same again follows what runs, or goes on where it was.

    \b
    Example:
      vasevqa upload photos && vasevqa submit recipe.yaml -n my-namespace
    """
    sys.exit(_submit(given))


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@cluster_option
@namespace_option
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="at the end bring the run's report into this folder")
def attach(name: str | None, cluster: Path | None, namespace: str | None, report: Path | None) -> None:
    """Follow RUN, which `submit` or Helm started.

    RUN is the name of a run or of a launch; without it, the newest launch.

    \b
    Example:
      vasevqa attach vasevqa-my-vases-0123456789
    """
    from vasevqa.backends import kubernetes_launch
    from vasevqa.backends.kubernetes_access import Access

    access = Access(cluster_of(cluster, namespace))
    sys.exit(_follow(access, kubernetes_launch.find(access, name), report, _where(access, cluster)))


def _submit(given: dict[str, Any]) -> int:
    from vasevqa.backends import kubernetes_launch
    from vasevqa.backends.kubernetes_access import Access

    inputs = absolute(given["inputs"]) if given["upload"] else list(given["inputs"])
    recipe = load_recipe(given["recipe"], PIPELINE, given["overrides"], inputs, here=False)
    for option in ("first", "last"):
        known_step(given[option])
    for name in (*given["only"], *given["refresh"]):
        known_step(name)
    _on_the_volume(recipe.inputs, given["upload"])
    access = Access(cluster_of(given["cluster"], given["namespace"]))
    needs_claim(access)
    where = _where(access, given["cluster"])
    if given["upload"]:
        from vasevqa.commands import moving

        inputs = moving.upload_inputs(access, recipe.inputs, given["recipe"].parent)
    launch = Launch(named(given["recipe"].read_text(encoding="utf-8"), recipe.name), recipe.name, access.cluster, _arguments(given, inputs))
    started = kubernetes_launch.start(access, launch, os.environ.get("VASEVQA_OWNER_CONFIGMAP") or kubernetes_launch.release(access))
    click.echo(f"{'Started' if started else 'Already running:'} {launch.name} in namespace {access.namespace}.")
    if given["detach"]:
        click.echo(f"`vasevqa attach {launch.name}{where}` follows it.")
        return 0
    return _follow(access, launch.name, given["report"], where)


def _where(access: Access, cluster: Path | None) -> str:
    """The options with which another command gets to the same place."""
    mine = cluster is not None and "VASEVQA_OWNER_CONFIGMAP" not in os.environ  # the chart's lies in its own pod
    return f" -n {access.namespace}" + (f" --cluster {shlex.quote(str(cluster))}" if mine else "")


def _arguments(given: dict[str, Any], inputs: list[str]) -> tuple[str, ...]:
    """The options for `vasevqa run` in the cluster."""
    words = [word for override in given["overrides"] for word in ("--set", override)]
    words += [word for one in inputs for word in ("--input", one)]
    for option, value in (("--from", given["first"]), ("--to", given["last"])):
        words += [option, value] if value else []
    words += [word for option in ("only", "refresh") for name in given[option] for word in (f"--{option}", name)]
    return (*words, "--parallel", str(given["parallel"]))


def known_step(name: str | None) -> str | None:
    """`name`; ConfigError if it is no step."""
    if name is not None and name not in PIPELINE.names:
        raise ConfigError(f"There is no step '{name}'.{nearest(name, PIPELINE.names)}")
    return name


def absolute(inputs: Sequence[str]) -> list[str]:
    """`--input NAME=PATH` words; a PATH that is on this machine as the caller sees it, whatever folder the recipe is in."""
    words = []
    for given in inputs:
        name, equals, value = given.partition("=")
        words.append(f"{name}={Path(value).absolute()}" if equals and Path(value).exists() else given)
    return words


def _on_the_volume(inputs: dict[str, str], upload: bool) -> None:
    """Inputs of a run in the cluster lie on the volume; ConfigError for one that can't."""
    for name, value in inputs.items():
        path = Path(value)
        outside = (path.is_absolute() and not path.is_relative_to(VOLUME)) or os.path.normpath(value).startswith("..")
        if outside and not upload:
            raise ConfigError(
                f"The input {name} is {value}, which is not on the volume; `vasevqa upload` it and name it relative to the volume, or give --upload."
            )


def needs_claim(access: Access) -> None:
    """ClusterError if there is no claim: a pod would wait for it in vain."""
    from vasevqa.backends.kubernetes_api import Refused

    name = access.cluster.claim
    try:
        claim = access.find("persistentvolumeclaims", name)
    except Refused:
        return  # it may not look; the launcher's pod will say
    if claim is None:
        raise ClusterError(
            f"There is no claim {name} in namespace {access.namespace}; `helm install vasevqa helm/vasevqa` or `kubectl apply -k k8s` makes it, "
            "or name yours as `claim` in the Cluster file."
        )


def _follow(access: Access, launch: str, report: Path | None, where: str) -> int:
    from vasevqa.backends import kubernetes_launch

    runs: list[str] = []

    def say(line: str) -> None:
        if match := re.fullmatch(r"run (\S+)", line):
            runs.append(match[1])
        if match := re.search(r"Report: \S+/runs/([^/]+)/report.html", line):
            runs.append(match[1])
        click.echo(line)

    try:
        code = kubernetes_launch.follow(access, launch, say, where)
    except KeyboardInterrupt:
        click.echo(
            f"\nDetached: it goes on in the cluster. `vasevqa attach {launch}{where}` follows it again, "
            f"and `kubectl -n {access.namespace} delete configmap {launch}` stops and removes it."
        )
        return 0
    if runs and report is not None:
        from vasevqa.commands import moving

        moving.fetch(access, f"runs/{runs[-1]}/report.html", report / f"{runs[-1]}.html")
        click.echo(f"Report on this machine: {report / f'{runs[-1]}.html'}")
    elif runs:
        click.echo(f"`vasevqa download {runs[-1]} report.html{where}` brings its report here.")
    return code
