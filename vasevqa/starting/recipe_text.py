"""Write the recipe and the template of the annotations."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from vasevqa import files
from vasevqa.reward.vocabulary import ATTRIBUTES
from vasevqa.starting.begin import Beginning, examples
from vasevqa.starting.choices import first_choice
from vasevqa.starting.machine import GPU_BATCH
from vasevqa.starting.tables import Table

LABELS = (
    "no labels yet: the classifier is left out. To train it, label photographs with `vasevqa review FOLDER --into"
    " quality`, add `quality_data: quality`, and remove `skip`"
)
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")  # characters that end a comment line


def recipe_text(found: Beginning, out: Path) -> str:
    """Return the recipe with comments. Paths below the recipe's folder are relative to the recipe's folder."""
    lines = [
        f"# Written by `vasevqa init {shlex.quote(str(found.collection.folder))}`. `vasevqa plan {out.name}` says what"
        " would run.",
        f"name: {_name(found.collection.folder)}",
        f"# {found.collection.said()}",
        *_inputs(found, out.absolute().parent),
        *_shared(found),
        *_end(found),
        *_steps(found),
    ]
    return "\n".join(_NO_TEXT.sub(" ", line) for line in lines) + "\n"


def template_text(found: Beginning) -> str:
    """Return a CSV table for the user to fill in.

    The table has one row per vase if the vase of every photograph is known, otherwise one row per photograph.
    """
    empty = [""] * len(ATTRIBUTES)
    text = io.StringIO()
    if found.vases_told and found.collection.vases:
        vases = sorted(found.collection.vases)
        files.write_table(text, ("vase_id", *ATTRIBUTES), [(vase, *empty) for vase in vases])
    else:
        names = [item.name for item in found.collection.files]
        files.write_table(text, ("image", "vase_id", *ATTRIBUTES), [(name, "", *empty) for name in names])
    return text.getvalue()


def scalar(value: object) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, allow_unicode=True, width=10**6, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _name(folder: Path) -> str:
    words = re.findall(r"[^\W_]+", folder.absolute().name.lower())
    return scalar("-".join(words)[:40] or "photographs")


def _path(path: Path, base: Path) -> str:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are written
    return scalar(str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute))


def _inputs(found: Beginning, base: Path) -> list[str]:
    lines = ["inputs:", f"  images: {_path(found.collection.folder, base)}"]
    clip = found.model("clip_model")
    if clip is not None:
        lines.append(f"  clip_model: {_path(clip.path, base)}")
    else:
        choice = first_choice("clip_model")
        lines += [f"  # fetched from the hub at the first run; to fetch it now: {choice.fetch()[0][1]}"]
        lines.append(f"  clip_model: {scalar(choice.id)}")
    if found.labels is not None:
        lines.append(f"  quality_data: {_path(found.labels, base)}")
    lines += _annotations(found, base)
    model = found.model("model")
    name = _path(model.path, base) if model is not None else scalar(first_choice("model").id)
    last, _ = found.end()
    return [*lines, f"  {'' if last is None else '# '}model: {name}   # for training; `vasevqa models` lists others"]


def _annotations(found: Beginning, base: Path) -> list[str]:
    if found.table is not None:
        last, why = found.end()
        used = last in (None, "build-dataset")
        told = "" if used else f"   # {why}"
        return [f"  {'' if used else '# '}annotations: {_path(found.table.path, base)}{told}"]
    if found.others:
        fits = [f"  # annotations: {_path(table.path, base)}   # {table.annotated.said()}" for table in found.others]
        return ["  # several tables fit; remove the # before one of them:", *fits]
    return ["  # annotations: annotations.csv   # fill it in, remove the #, and set `to: build-dataset`"]


def _shared(found: Beginning) -> list[str]:
    lines = []
    if found.cluster:
        lines.append("# device: cpu   # remove the first # to run without GPUs")
    elif found.machine.gpus:
        lines.append(f"device: auto   # {found.machine.said()}")
    else:
        lines.append(f"device: cpu   # {found.machine.said()}")
    lines += _vases(found)
    return lines + (_columns(found.table) if found.table is not None else [])


def _vases(found: Beginning) -> list[str]:
    collection = found.collection
    if not found.trusted:
        return [
            "# Write a pattern for the file names, and remove the # (vase and view are named groups):",
            f"# name_pattern: {scalar('(?P<vase>.+)_(?P<view>.+)')}   # or folder/view, id_view, id (n)",
        ]
    if found.vases_by_table:
        return ["# The table names the vase of each photograph."]
    lines = []
    if collection.vases:
        matched = len(collection.files) - len(collection.unmatched)
        lines.append(f"# Vases are told apart by {collection.naming}: {matched} of {len(collection.files)} names fit.")
        lines += [f"#   {name} shows {vase}" for name, vase in examples(collection)]
        lines.append(
            f"# name_pattern: {scalar(collection.naming.names)}   # chosen automatically; remove the # to keep it"
        )
    if collection.unmatched:
        some = ", ".join(collection.unmatched[:3])
        lines.append(
            f"# {len(collection.unmatched)} names don't identify a vase, such as {some}: put the photographs of each"
            " vase"
        )
        lines.append("# into its own folder, or give name_pattern or a table with the columns image and vase_id.")
    return lines


def _columns(table: Table) -> list[str]:
    lines = [f"# {table.annotated.said()}"]
    lines += [f"#   the column {mapped}" for mapped in table.mapped]
    if table.vase_column:
        lines.append(f"vase_column: {scalar(table.vase_column)}   # its cells name the vases of the photographs")
    lines += _mapping(table.columns, table.unsure)
    return lines


def _mapping(columns: Mapping[str, str], unsure: Mapping[str, list[str]]) -> list[str]:
    lines = [f"  {name}: {scalar(heading)}" for name, heading in columns.items()]
    candidates = [f"#   {name}: {' | '.join(map(scalar, headings))}" for name, headings in unsure.items()]
    if candidates:
        candidates.insert(0, "# Columns that may fit; copy the right ones below `columns:`")
    return (["columns:", *lines] if lines else []) + candidates


def _end(found: Beginning) -> list[str]:
    last, why = found.end()
    lines = [f"# {LABELS}."] if found.labels is None else []
    skip = ["train-classifier", "classify"] if found.labels is None else []
    lines.append(f"skip: [{', '.join([*skip, 'to-megatron'])}]   # to-megatron needs CUDA and transformer-engine")
    return lines + ([f"to: {last}   # {why}; remove this line to run the later steps too"] if last is not None else [])


def _steps(found: Beginning) -> list[str]:
    batch = GPU_BATCH if found.gpus else found.machine.batch_size
    last, _ = found.end()
    lines = [
        "steps:",
        (f"  clip-filter: {{batch_size: {batch}}}   # threshold: 0.15; unset: recommended"),
    ]
    if found.vases_by_table and last != "clip-filter":
        lines.append("  select-views: {unmatched: own-vase}   # build-dataset takes the vases from the table")
    return lines
