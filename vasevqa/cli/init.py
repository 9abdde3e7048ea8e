"""`vasevqa init`: look at a folder of photographs and write a recipe that runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from vasevqa.cli import options
from vasevqa.cli.context import Context, pass_context
from vasevqa.errors import ConfigError, VaseError, storage_error
from vasevqa.pipeline.forecast import first_forecast, measure_clip
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.selection import Selection, select_steps
from vasevqa.spec import Pipeline
from vasevqa.starting.begin import Beginning, begin, examples
from vasevqa.starting.choices import first_choice
from vasevqa.starting.recipe_text import LABELS, recipe_text, template_text

TEMPLATE = "annotations.csv"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, exists=True),
    help="table of the vases; unset: a table beside the photographs",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="recipe.yaml",
    show_default=True,
    help="the recipe",
)
@options.cluster_option
@click.option("--yes", is_flag=True, help="accept all guesses without questions")
@pass_context
def init(context: Context, folder: Path, annotations: Path | None, out: Path, cluster: Path | None, yes: bool) -> None:
    """Look at FOLDER and write a recipe for its photographs.

    Reports how many photographs there are, how their names identify vases, and which columns of the table of vases
    are recognised. Runs CLIP for five seconds to estimate how long the recipe will take. Without a table, also writes a
    template of one. On a terminal, asks you to confirm guesses. Never overwrites a file.

    \b
    Example:
      vasevqa init photos --annotations catalogue.csv
    """
    if os.path.lexists(out):
        raise ConfigError(f"{out} exists already; give another file as --out.")
    if not folder.exists():
        raise ConfigError(f"There is no folder {folder}; give the folder of the photographs.")

    def confirm(question: str, sure: bool) -> bool:
        if yes:
            return True
        return click.confirm(question, default=sure) if sys.stdin.isatty() else sure

    found = begin(folder, annotations, out, cluster is not None, confirm)
    lines = told(found)
    _write(out, recipe_text(found, out))
    lines.append(_time(found, out, context.pipeline))
    template = out.parent / TEMPLATE
    if found.table is None and not found.others:
        if os.path.lexists(template):
            lines.append(f"{template} exists already and is left as it is.")
        else:
            _write(template, template_text(found))
            lines.append(f"Wrote {template}: fill in what you know of the vases.")
    click.echo("\n".join([*lines, f"Wrote {out}. Next: vasevqa plan {shlex.quote(str(out))}"]))


def told(found: Beginning) -> list[str]:
    """Return the lines about the photographs, models and tables that were found."""
    collection = found.collection
    lines = [collection.said()]
    if collection.vases:
        matched = len(collection.files) - len(collection.unmatched)
        lines.append(f"vases told apart by {collection.naming}: {matched} of {len(collection.files)} names fit")
        lines += [f"  {name} shows {vase}" for name, vase in examples(collection)]
    if found.vases_by_table:
        lines.append("the table gives the vases of the remaining photographs")
    lines += _table(found)
    for name in ("clip_model", "model"):
        model = found.model(name)
        fetch = (
            f"no model beside the photographs or in HF_HOME; fetch a model: {first_choice(name).fetch()[0][1]}"
            " (`vasevqa models` lists others)"
        )
        lines.append(f"{name}: {model.path if model is not None else fetch}")
    lines += [f"not usable: {model.problem}" for model in found.models if model.problem]
    lines.append(f"labels: {found.labels or LABELS}")
    lines.append(found.machine.said())
    last, why = found.end()
    return lines + ([f"the recipe ends with {last}: {why}"] if last is not None else [])


def _time(found: Beginning, out: Path, pipeline: Pipeline) -> str:
    """Return the line that says how long the recipe's steps will take on this machine."""
    if found.cluster:
        return "time: unknown, since the steps run in the cluster"
    clip, photographs = found.model("clip_model"), found.collection.files
    recipe = load_recipe(out, pipeline)
    paces = {}
    if clip is not None:
        settings = recipe.steps["clip-filter"]
        try:
            seconds = measure_clip(clip.path, photographs, settings.params, settings.options)
        except VaseError as error:
            return f"time: unknown, since CLIP can't be used: {error}"
        paces = {} if seconds is None else {"clip-filter": seconds}
    return first_forecast(select_steps(recipe, pipeline, Selection()).names, len(photographs), paces).said()


def _table(found: Beginning) -> list[str]:
    if found.table is not None:
        lines = [f"{found.table.path}: {found.table.annotated.said()}"]
        lines += [f"  the column {mapped}" for mapped in found.table.mapped]
        return lines + [f"  perhaps {name}: {', '.join(some)}" for name, some in found.table.unsure.items()]
    if found.others:
        names = ", ".join(str(table.path) for table in found.others)
        return [
            (
                f"{len(found.others)} tables fit ({names}); give one of them as --annotations, or choose a table in the"
                " recipe"
            )
        ]
    return ["no table of the vases; give a table as --annotations, or fill in the template"]


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; give another file as --out.") from None
    except OSError as error:
        known = storage_error(error, "write", path)
        raise known or ConfigError(f"{path} can't be written ({error.strerror}); give another file as --out.") from None
