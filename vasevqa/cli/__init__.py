"""The `vasevqa` command: a thin layer over the library, with one module per command."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

import click

from vasevqa import __version__
from vasevqa.confidential import Masker
from vasevqa.errors import Terminated, VaseError, storage_error
from vasevqa.text import filtered_output, visible

# A command's module is imported only when the command is used, so that `--help` is quick.
COMMANDS = {
    "attach": "Follow a run in the cluster.",
    "cancel": "Stop RUN and its running steps.",
    "clean": "List files and jobs that no run uses; remove them with --yes.",
    "doctor": "Check cluster, volume and recipe before spending GPU hours.",
    "download": "Copy results of a run from the cluster.",
    "init": "Look at FOLDER and write a recipe for its photographs.",
    "logs": "Print the logs of RUN, or of its STEP.",
    "models": "List suitable models, and how to fetch them.",
    "plan": "Show what `run` would do, and why.",
    "recipe": "Explain RECIPE, or describe every step and its parameters.",
    "report": "Write the report of RUN again and print its path.",
    "repro": "Print the `docker run` that repeats STEP of RUN.",
    "review": "Label the photographs of FOLDER or RUN on a web page.",
    "reward": "Explain the reward of an answer.",
    "run": "Run the steps of RECIPE whose artifacts are missing.",
    "sample": "Draw synthetic vases (and make tiny models) for the demo.",
    "status": "Show the steps of RUN, and the other runs.",
    "submit": "Run a recipe in the cluster.",
    "upload": "Copy files to the cluster's volume.",
    "verify": "Read the artifacts of RUN or STEP again, and say what changed.",
    "vocabulary": "Check or make the words that the reward knows.",
    "why": "Explain why RUN kept or lost PHOTOGRAPH.",
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"vasevqa.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Group, context_settings={"max_content_width": 120})
@click.version_option(__version__, prog_name="vasevqa")
def cli() -> None:
    """Photographs of ancient vases in, a fine-tuned vision-language model out."""


def main(context: object = None) -> None:
    """Run the command, and exit with the exit code of the command. An expected error is printed as one sentence.

    `context` is a cli.context.Context with a different pipeline or different backends. None means the defaults.
    """
    import signal

    def stop(number: int, frame: object) -> None:
        raise Terminated

    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, stop)
    with filtered_output(visible):
        _run(context)


def _run(context: object) -> None:
    try:
        cli(prog_name="vasevqa", standalone_mode=False, obj=context)
    except VaseError as error:
        _end(str(error), getattr(error, "code", error.exit_code))
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:  # click turns KeyboardInterrupt into Abort
        if isinstance(error, Terminated) or isinstance(error.__cause__, Terminated):
            _end("Stopped by SIGTERM; run the same command again to resume.", 143)
        _end("Stopped; run the same command again to resume.", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        known = storage_error(error, "write or read")
        if known is None:
            raise
        _end(str(known), known.exit_code)


def _end(message: str, code: int) -> None:
    click.echo(f"error: {Masker(os.environ)(message)}", err=True)
    sys.exit(code)
