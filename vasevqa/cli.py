"""The `vasevqa` command: a thin face of the library."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vasevqa import __version__
from vasevqa.errors import Terminated, VaseError, storage_error

# Mounted by name: a command's module is imported when it is used.
MOUNTED = {
    "attach": ("vasevqa.commands.submitting", "Follow a run in the cluster."),
    "doctor": ("vasevqa.commands.doctoring", "Check the place before spending GPU hours."),
    "download": ("vasevqa.commands.moving", "Bring results of a run from the cluster."),
    "reward": ("vasevqa.commands.rewarding", "Explain the reward of an answer."),
    "submit": ("vasevqa.commands.submitting", "Run a recipe in the cluster."),
    "upload": ("vasevqa.commands.moving", "Bring files to the cluster's volume."),
    "sample": ("vasevqa.sample.command", "Draw synthetic vases (and make tiny models) for the demo."),
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *MOUNTED})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in MOUNTED:
            command: click.Command = getattr(importlib.import_module(MOUNTED[cmd_name][0]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            own = self.commands.get(name)
            rows.append((name, own.get_short_help_str(70) if own else MOUNTED[name][1]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Group, context_settings={"max_content_width": 120})
@click.version_option(__version__, prog_name="vasevqa")
def cli() -> None:
    """Photographs of ancient vases in, a fine-tuned vision-language model out."""


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
            "--inputs-from", type=click.Path(path_type=Path, file_okay=False), help="paths in the recipe are relative to this folder, not to the recipe"
        ),
        click.option("--from", "first", metavar="STEP", help="begin here; what this step reads must exist"),
        click.option("--to", "last", metavar="STEP", help="end here"),
        click.option("--only", multiple=True, metavar="STEP", help="only this step (may be repeated)"),
        click.option("--refresh", multiple=True, metavar="STEP", help="make this step's artifact anew (may be repeated)"),
        click.option("--json", "as_json", is_flag=True, help="print JSON lines"),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@cli.command()
@plan_options
@click.option("--parallel", "--max-parallel", type=click.IntRange(1), default=2, show_default=True, help="steps side by side")
@click.option(
    "--backend", type=click.Choice(["local", "docker", "kubernetes"]), default="local", envvar="VASEVQA_BACKEND", show_default=True, help="where steps run"
)
@cluster_option
@click.option("--detach", is_flag=True, help="on Ctrl-C leave running steps to the next `run`, which adopts them")
@click.option("--launch", envvar="VASEVQA_LAUNCH", hidden=True, help="the launch that this is a start of, in a cluster")
def run(**given: Any) -> None:
    """Run RECIPE, as far as its artifacts are missing.

    The same command goes on after a crash, a kill or Ctrl-C; when nothing is missing, it does nothing.

    \b
    Example:
      vasevqa run recipe.yaml --set clip-filter.threshold=0.15 --input images=photos/
    """
    from vasevqa.commands import running

    sys.exit(running.run(given))


@cli.command()
@plan_options
@place_options
def plan(**given: Any) -> None:
    """Show what `run` would do, and why.

    With a namespace: on the cluster's volume, as `submit` would have it.

    \b
    Example:
      vasevqa plan recipe.yaml --set clip-filter.threshold=0.15
    """
    from vasevqa.commands import remotely, running

    if remotely.is_remote(given["volume"], given["cluster"], given["namespace"]):
        sys.exit(remotely.plan(given))
    running.plan(given)


@cli.command()
@click.argument("path", metavar="[RECIPE]", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--schema", is_flag=True, help="print the JSON schema for editors")
@click.option("--stages", is_flag=True, help="print the stages that RECIPE runs, one a line")
@click.option("--to", "last", metavar="STEP", help="up to this step")
def recipe(path: Path | None, schema: bool, stages: bool, last: str | None) -> None:
    """Describe every step and its parameters, or RECIPE's stages."""
    if stages:
        from vasevqa.commands import doctoring

        if path is None:
            raise click.UsageError("--stages needs a RECIPE.")
        click.echo("\n".join(doctoring.stages_of(path, last)))
        return
    from vasevqa.commands import running

    running.describe_recipes(schema)


@cli.command()
@click.argument("name", metavar="[RUN]", required=False)
@volume_option
@place_options
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def status(name: str | None, volume: Path, cluster: Path | None, namespace: str | None, as_json: bool) -> None:
    """Show the steps of RUN, and the other runs.

    Without RUN, those of the newest.
    """
    from vasevqa.commands import remotely, runs

    if remotely.is_remote(volume, cluster, namespace):
        sys.exit(remotely.answer(cluster, namespace, ["status", *remotely.asked(name, ("--json", as_json))]))
    runs.status(name, volume, as_json)


@cli.command()
@click.argument("name", metavar="[RUN]", required=False)
@click.argument("step", required=False)
@volume_option
@place_options
@click.option("-f", "--follow", is_flag=True, help="go on until the run ends")
@click.option("--raw", is_flag=True, help="print the log files as they are, with the stages' JSON events")
def logs(name: str | None, step: str | None, volume: Path, cluster: Path | None, namespace: str | None, follow: bool, raw: bool) -> None:
    """Print the logs of RUN, or of its STEP.

    Without RUN, the newest run's: `vasevqa logs -f` follows what runs now.
    """
    from vasevqa.commands import remotely, runs

    if remotely.is_remote(volume, cluster, namespace):
        words = ["logs", *filter(None, (name, step)), *remotely.asked(None, ("--follow", follow), ("--raw", raw))]
        sys.exit(remotely.answer(cluster, namespace, words))
    runs.logs(name, step, volume, follow, raw)


@cli.command()
@click.argument("name", metavar="RUN", required=False)
@volume_option
@place_options
def cancel(name: str | None, volume: Path, cluster: Path | None, namespace: str | None) -> None:
    """Stop RUN and its running steps.

    Without RUN, the newest. The same `run` command goes on later from where the steps were.
    """
    from vasevqa.commands import remotely, runs

    if remotely.is_remote(volume, cluster, namespace):
        sys.exit(remotely.answer(cluster, namespace, ["cancel", *remotely.asked(name)]))
    runs.cancel(name, volume)


@cli.command()
@click.argument("name", metavar="RUN")
@click.argument("step")
@volume_option
@cluster_option
def repro(name: str, step: str, volume: Path, cluster: Path | None) -> None:
    """Print the `docker run` that repeats STEP of RUN.

    Its image is named by digest, and secrets stay names: docker takes their values from your environment.
    """
    from vasevqa.commands import repeating

    repeating.repro(name, step, volume, cluster)


@cli.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@volume_option
@click.option("--yes", is_flag=True, help="remove; without it, only list")
def clean(names: tuple[str, ...], volume: Path, yes: bool) -> None:
    """List what no run points to; remove it with --yes.

    That is: artifacts of no run, unfinished work of runs that are over, finished jobs, and the RUNs named (whose artifacts are
    then free to go unless another run points to them). Never inputs.
    """
    from vasevqa.commands import cleaning

    cleaning.clean(names, volume, yes)


@cli.command()
@click.argument("name", metavar="[RUN]", required=False)
@volume_option
def report(name: str | None, volume: Path) -> None:
    """Write the report of RUN anew and say where it is."""
    from vasevqa.commands import runs

    runs.report(name, volume)


def main() -> None:
    """The console script: runs the command, prints one sentence for an expected error, ends with its exit code."""
    import signal

    def stop(number: int, frame: object) -> None:
        raise Terminated

    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, stop)
    try:
        cli(prog_name="vasevqa", standalone_mode=False)
    except VaseError as error:
        _end(str(error), getattr(error, "code", error.exit_code))
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:  # click turns the first into the second
        if isinstance(error, Terminated) or isinstance(error.__cause__, Terminated):
            _end("Stopped by SIGTERM; the same command goes on where it was.", 143)
        _end("Stopped; the same command goes on where it was.", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        known = storage_error(error, "write or read")
        if known is None:
            raise
        _end(str(known), known.exit_code)


def _end(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
