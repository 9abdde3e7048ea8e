"""The command that runs one stage, the same on a laptop, in a container and under a launcher."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from vasevqa import files
from vasevqa.confidential import Masker, add_secrets
from vasevqa.errors import (
    ConfigError,
    GpuMemoryError,
    HostMemoryError,
    Interrupted,
    Terminated,
    VaseError,
    out_of_gpu_memory,
    out_of_host_memory,
    storage_error,
)
from vasevqa.models import HUB_ID
from vasevqa.runtime.flags import flag, in_recipe, option, plain_type, validate
from vasevqa.spec import Input, Stage, StageCall
from vasevqa.text import filtered_output


@dataclass(frozen=True)
class CommandLine:
    """The values from a stage's command line.

    `inputs` holds the path of each input. `fields` holds the value of each parameter and of each option. A value is
    None or an empty tuple if the user did not give it.
    """

    inputs: Mapping[str, str | None]
    fields: Mapping[str, object]
    output: Path | None = None
    task: Path | None = None
    json_events: bool = False

    @classmethod
    def of(cls, stage: Stage, **values: Any) -> CommandLine:
        """Return the values that click has read for the command of `stage`, as a CommandLine."""
        return cls(
            inputs={known.name: values[f"input__{known.name}"] for known in stage.inputs},
            fields={name: values[name] for model in (stage.params, stage.options) for name in model.model_fields},
            output=values["output__dir"],
            task=values["task__file"],
            json_events=values["json_events"],
        )


def _input_path(stage: Stage, known: Input, value: str | None) -> Path | None:
    if value is None:
        if known.required:
            raise ConfigError(f"{stage.name} needs {known.flag}; give {known.help or known.name}.")
        return None
    path = Path(value)
    if files.exists(path):
        known.refuse_other_kind(path, known.flag)
        return path.absolute()
    if known.hub and HUB_ID.fullmatch(value):
        return path
    raise ConfigError(f"{known.flag}: {value} does not exist; give the path of {known.help or known.name}.")


class _StageCommand(click.Command):
    """A command whose flags may be written with underscores instead of dashes."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        # click's token_normalize_func would also change the values of choices.
        return super().make_context(info_name, [_dashed(word) for word in args], parent, **extra)


def _dashed(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def command(stage: Stage) -> click.Command:
    """Return the click command of `stage`.

    The command has a flag for each input, parameter and option, and a hidden flag --task for the launcher.
    """
    options: list[click.Parameter] = [
        click.Option(
            [known.flag, *known.aliases, f"input__{known.name}"],
            metavar="PATH",
            help=known.help + ("" if known.required else "  (optional)"),
        )
        for known in stage.inputs
    ]
    flags = [stage.output_flag] + (["--output-dir"] if stage.output_flag != "--output-dir" else [])
    options.append(
        click.Option(
            [*flags, "output__dir"],
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="folder for the results; other files in it are kept",
        )
    )
    for model in (stage.params, stage.options):
        options += [
            option(name, info, or_path=name in {known.also for known in stage.inputs})
            for name, info in model.model_fields.items()
        ]
    options.append(click.Option(["--json-events"], is_flag=True, help="print progress as JSON lines"))
    options.append(
        click.Option(
            ["--task", "task__file"],
            hidden=True,
            type=click.Path(path_type=Path),
            help="file in which the launcher describes this attempt",
        )
    )

    def invoke(**values: Any) -> None:
        sys.exit(run_stage(stage, CommandLine.of(stage, **values)))

    return _StageCommand(
        stage.name, params=options, callback=invoke, help=stage.summary, context_settings={"max_content_width": 120}
    )


def run_stage(stage: Stage, line: CommandLine) -> int:
    """Run `stage` with the values of the command line, and return an exit code (errors.py lists them).

    A mistake by the user is printed as one sentence, without a stack trace.
    """
    add_secrets()
    with filtered_output(Masker(os.environ)):
        return _run_stage(stage, line)


def _run_stage(stage: Stage, line: CommandLine) -> int:
    from vasevqa.runtime.progress import make_progress

    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # set before torch is imported; threads that spin on busy cores are ten times slower
    progress = make_progress(stage.name, json_events=line.json_events)

    def say(kind: str, exit_code: int, told: str) -> int:
        message = told if line.task is None else in_recipe(stage, told)
        with contextlib.suppress(OSError):  # the log may be on the full disk
            progress.error(kind, exit_code, message)
        return exit_code

    try:
        _stop_on_sigterm()
        with progress:
            _run(stage, line, progress)
        return 0
    except VaseError as error:
        return say(type(error).__name__, error.exit_code, str(error))
    except Terminated:
        return say(
            "Interrupted",
            Interrupted.exit_code,
            f"{stage.name} was stopped by SIGTERM; run the same command again to resume.",
        )
    except KeyboardInterrupt:
        return say("Interrupted", 130, f"{stage.name} was stopped; run the same command again to resume.")
    except Exception as error:
        known = storage_error(error, "write or read")
        if known is not None:
            return say(type(known).__name__, known.exit_code, str(known))
        if out_of_host_memory(error):
            return say(
                "HostMemoryError",
                HostMemoryError.exit_code,
                f"The memory does not suffice for {stage.name}; lower its batch size or workers, or give it more"
                " memory.",
            )
        if out_of_gpu_memory(error):
            return say(
                "GpuMemoryError",
                GpuMemoryError.exit_code,
                f"The GPU has too little memory for {stage.name}; lower its batch size.",
            )
        return _bug(stage, error, say)


def _bug(stage: Stage, error: Exception, say: Callable[[str, int, str], int]) -> int:
    import traceback

    with contextlib.suppress(OSError):
        traceback.print_exc()
    return say(
        "bug",
        1,
        f"{stage.name} failed unexpectedly ({type(error).__name__}: {error}); this is a bug, please report it with the"
        " log.",
    )


def _stop_on_sigterm() -> None:
    def stop(signum: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _paths_as_inputs(stage: Stage, line: CommandLine) -> CommandLine:
    """If the user gave a file instead of a choice (`--weights FILE`), use the file's path as an input."""
    inputs, fields = dict(line.inputs), dict(line.fields)
    for known in stage.inputs:
        given = fields.get(known.also) if known.also else None
        if known.also is None or given is None:
            continue
        choices = typing.get_args(plain_type(stage.params.model_fields[known.also]))
        if given not in choices:
            path = inputs[known.name] = str(given)
            fields[known.also] = None
            if not Path(path).is_file():
                raise ConfigError(
                    f"{flag(known.also)} takes {', '.join(choices[:-1])} or the path of a file, but '{path}' is none of"
                    " them."
                )
    return replace(line, inputs=inputs, fields=fields)


def _run(stage: Stage, given: CommandLine, progress: Any) -> None:
    line = _paths_as_inputs(stage, given)
    if line.task is not None and not line.task.is_file():
        raise ConfigError(
            f"{line.task} does not exist, so this is not the launcher's volume; check `claim`, `claim_path` and"
            " `--volume`."
        )
    params, options = validate(stage.params, line.fields), validate(stage.options, line.fields)
    paths = {known.name: _input_path(stage, known, line.inputs[known.name]) for known in stage.inputs}
    inputs = {name: path for name, path in paths.items() if path is not None}
    if stage.interact and (getattr(options, "interactive", False) or getattr(options, "auto_select_device", False)):
        import importlib

        module, _, function = stage.interact.partition(":")
        params, options = getattr(importlib.import_module(module), function)(params, options, inputs)
    folder = line.output
    if line.task is not None:
        from vasevqa.runtime.task import run_task

        run_task(stage, params, options, inputs, folder, line.task, progress)
        return
    if folder is None and stage.needs_output(params):
        raise ConfigError(f"{stage.name} needs {stage.output_flag}; give the folder for the results.")
    output = None
    if folder is not None:
        from vasevqa.artifacts.output import StageOutput

        output = StageOutput(folder.absolute())
    stage.run(StageCall(params, options, inputs, output, progress))


def main(stage: Stage, args: Sequence[str] | None = None) -> None:
    """Run the stage's command with the arguments `args`, by default those of this process."""
    command(stage).main(args=list(args) if args is not None else None, prog_name=stage.name)
