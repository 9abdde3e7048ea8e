"""Load a user's recipe, and check the whole recipe before anything runs. Errors name the line in the YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vasevqa import files
from vasevqa.errors import ConfigError
from vasevqa.models import HUB_ID
from vasevqa.pipeline.shared import SHARED, Shared, shared_settings
from vasevqa.spec import Input, Options, Params, Pipeline, Resources, Step
from vasevqa.text import nearest
from vasevqa.yaml_files import FileKind, Lines, parse, read_text, shortened

TOP = ("name", "inputs", *SHARED, "steps", "skip", "to")
KIND = FileKind("recipe", "`vasevqa/recipes/demo.yaml` is an example")


@dataclass(frozen=True)
class StepSettings:
    """The validated settings of one step in a recipe."""

    params: Params
    options: Options
    resources: Resources


@dataclass(frozen=True)
class Recipe:
    """A loaded and checked recipe.

    `inputs` are absolute paths; the input of a model may be a hub id instead. `text` is the recipe as YAML, with all
    changes applied.
    """

    name: str
    inputs: dict[str, str]
    steps: dict[str, StepSettings]
    skip: tuple[str, ...] = ()
    to: str | None = None
    text: str = field(default="", compare=False)


def load_recipe(
    path: Path,
    pipeline: Pipeline,
    overrides: Sequence[str] = (),
    inputs: Sequence[str] = (),
    base: Path | None = None,
    here: bool = True,
    device: str | None = None,
) -> Recipe:
    """Load the recipe in `path` and apply `--device`, `--set step.param=value` and `--input name=path`.

    Input paths are relative to `base`; without `base`, to the folder of the recipe. `here=False` means that the inputs
    are on another machine. Then the inputs need not exist on this machine, and their paths are not changed.

    Raise ConfigError with the line that is wrong.
    """
    text = read_text(path, KIND)
    lines = Lines(str(path))
    tree = _tree(text, lines)
    if device is not None:
        _on_device(tree, device, lines)
    for override in overrides:
        _set(tree, override, lines)
    for given in inputs:
        name, equals, value = given.partition("=")
        if not equals or not value:
            raise ConfigError(f"--input {given}: write it as name=path.")
        _within(tree, "inputs", f"--input {shortened(given)}")[name] = (
            str(Path(value).absolute()) if here and files.exists(Path(value)) else value
        )
        lines.options["inputs", name] = f"--input {shortened(given)}"
    return _check(tree, path.stem, pipeline, lines, (base or path.parent) if here else None)


def _tree(text: str, lines: Lines) -> dict[str, Any]:
    tree = parse(text, lines)
    if tree is None:
        raise ConfigError(f"{lines.where} is empty; a recipe needs at least `inputs`.")
    if not isinstance(tree, dict):
        raise ConfigError(f"{lines.where}, line 1: a recipe must be a mapping with the keys {', '.join(TOP)}.")
    return tree


def _on_device(tree: dict[str, Any], device: str, lines: Lines) -> None:
    """Set the device of every step. `--device` overrides the devices of single steps in the recipe."""
    tree["device"] = device
    lines.options["device",] = f"--device {shortened(device)}"
    steps = tree.get("steps")
    for settings in steps.values() if isinstance(steps, dict) else ():
        if isinstance(settings, dict):
            settings.pop("device", None)


def _set(tree: dict[str, Any], override: str, lines: Lines) -> None:
    where, equals, value = override.partition("=")
    words = where.split(".")
    if not equals or len(words) < 2:
        raise ConfigError(f"--set {override}: write it as step.parameter=value, such as clip-filter.threshold=0.15.")
    option = f"--set {shortened(override)}"
    parsed = parse(value, Lines(option), hint="write a YAML value")
    words = ["steps", *words]
    at = tree
    for word in words[:-1]:
        at = _within(at, word, option)
    at[words[-1]] = parsed
    lines.options[tuple(words)] = option


def _within(tree: dict[str, Any], key: str, option: str) -> dict[str, Any]:
    """Return the mapping under `key`. Create the mapping if the key has no value.

    Raise ConfigError if the key has a value that is not a mapping. The message begins with `option`, such as
    `--input images=photos`.
    """
    if tree.get(key) is None:
        tree[key] = {}
    if not isinstance(tree[key], dict):
        raise ConfigError(f"{option}: `{key}` is not a mapping in the recipe; write it as `{key}: {{...}}` there.")
    inner: dict[str, Any] = tree[key]
    return inner


def _check(tree: dict[str, Any], stem: str, pipeline: Pipeline, lines: Lines, base: Path | None) -> Recipe:
    _known(tree, TOP, (), lines)
    name = tree.get("name", stem)
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{lines.at('name')}: `name` must be a word, not {name!r}.")
    skip = _given(tree, "skip", [])
    if not isinstance(skip, list) or not all(isinstance(item, str) for item in skip):
        raise ConfigError(f"{lines.at('skip')}: `skip` must be a list of steps, such as `[classify]`.")
    for item in [*skip, *([tree["to"]] if tree.get("to") is not None else [])]:
        if item not in pipeline.names:
            raise ConfigError(
                f"{lines.at('skip' if item in skip else 'to')}: there is no step"
                f" '{item}'.{nearest(str(item), pipeline.names)}"
            )
    inputs = _inputs(_given(tree, "inputs", {}), base, pipeline, lines)
    _refuse_needed(skip, inputs, pipeline, lines)
    steps = _given(tree, "steps", {})
    if not isinstance(steps, dict):
        raise ConfigError(f"{lines.at('steps')}: `steps` must be a mapping from step to settings.")
    _known(steps, pipeline.names, ("steps",), lines)
    shared = shared_settings(tree, lines)
    settings = {step.name: _settings(_given(steps, step.name, {}), step, shared, lines) for step in pipeline.steps}
    saved = {**tree, "name": name, "inputs": inputs}
    return Recipe(
        name, inputs, settings, tuple(skip), tree.get("to"), yaml.safe_dump(saved, sort_keys=False, allow_unicode=True)
    )


def _given(mapping: dict[str, Any], key: str, empty: Any) -> Any:
    """Return the value of a key, or `empty` if the key is missing or has no value."""
    value = mapping.get(key)
    return empty if value is None else value


def _known(mapping: dict[str, Any], known: Sequence[str], path: tuple[str, ...], lines: Lines) -> None:
    for key in mapping:
        if key not in known:
            what = "step" if path == ("steps",) else "key"
            raise ConfigError(f"{lines.at(*path, key)}: there is no {what} '{key}'.{nearest(key, list(known))}")


def _refuse_needed(skip: Sequence[str], inputs: Mapping[str, str], pipeline: Pipeline, lines: Lines) -> None:
    """Raise ConfigError if a step that runs would lack the result of a step in `skip`.

    A step with a passthrough input can always be skipped. Any other step can be skipped if a recipe input replaces it,
    or if all steps that read its result are skipped or replaced by recipe inputs.
    """
    for item in skip:
        if pipeline.step(item).passthrough_input is not None or item in inputs:
            continue
        readers = [
            step.name
            for step in pipeline.steps
            if any(source.name == item and not source.recipe for source in step.sources().values())
        ]
        needing = [name for name in readers if name not in skip and name not in inputs]
        if needing:
            named = " and ".join(needing)
            raise ConfigError(
                f"{lines.at('skip')}: {item} can't be skipped alone, because {named} would lack its result; skip"
                f" {named} too, or use an existing result with `inputs: {{{item}: PATH}}`."
            )


def _inputs(given: Any, base: Path | None, pipeline: Pipeline, lines: Lines) -> dict[str, str]:
    if not isinstance(given, dict):
        raise ConfigError(f"{lines.at('inputs')}: `inputs` must be a mapping from name to path.")
    declared = {
        source.name: (step, name) for step in pipeline.steps for name, source in step.sources().items() if source.recipe
    }
    replaceable = {source.name for step in pipeline.steps for source in step.sources().values() if not source.recipe}
    _known(given, [*declared, *sorted(replaceable)], ("inputs",), lines)
    inputs = {}
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(value, str):
            raise ConfigError(f"{lines.at('inputs', name)}: an input must be a path, not {value!r}.")
        if base is None:
            inputs[name] = value
            continue
        path = base / files.expanded(value)
        hub = name in declared and declared[name][0].stage.input(declared[name][1]).hub
        if files.exists(path):
            for known in _read_as(name, pipeline):
                known.refuse_other_kind(path, f"{lines.at('inputs', name)}: the input '{name}'")
            inputs[name] = _plain(path)
        elif hub and HUB_ID.fullmatch(value) and not value.startswith((".", "/")):
            inputs[name] = value
        else:
            raise ConfigError(
                f"{lines.at('inputs', name)}: the input '{name}' does not exist at"
                f" {shortened(str(path.absolute()))}; correct the path (it is relative to {base.absolute()})."
            )
    return inputs


def _read_as(name: str, pipeline: Pipeline) -> list[Input]:
    """Return the stage inputs that read the recipe input `name`.

    If `name` is the name of a step, the recipe input replaces the step's result. Then return the stage inputs that read
    this result.
    """
    return [
        step.stage.input(read)
        for step in pipeline.steps
        for read, source in step.sources().items()
        if source.name == name
    ]


def _plain(path: Path) -> str:
    """Return the absolute path without `..`.

    A container can use only such a path, because the folder before a `..` may not exist in the container.
    """
    plain = Path(os.path.normpath(path.absolute()))
    return str(plain if plain.exists() and plain.samefile(path) else path.resolve())


def _settings(given: Any, step: Step, shared: Shared, lines: Lines) -> StepSettings:
    path = ("steps", step.name)
    if not isinstance(given, dict):
        raise ConfigError(f"{lines.at(*path)}: the settings of {step.name} must be a mapping from parameter to value.")
    stage = step.stage
    known = [*stage.params.model_fields, *stage.options.model_fields, "resources"]
    _known(given, known, path, lines)
    taken = shared.of(stage, given, lines.at(*path, "columns"))
    values = {**step.preset, **given, **taken}
    places = {name: (shared.keys[name],) for name in taken if given.get(name) is None}
    resources = _given(given, "resources", {})
    if not isinstance(resources, dict):
        raise ConfigError(
            f"{lines.at(*path, 'resources')}: `resources` must be a mapping, such as `{{gpus: 1, memory: 8Gi}}`."
        )
    _known(resources, list(Resources.model_fields), (*path, "resources"), lines)
    merged = {**stage.resources.model_dump(), **resources}
    return StepSettings(
        _model(stage.params, values, path, lines, places),
        _model(stage.options, values, path, lines, places),
        _model(Resources, merged, (*path, "resources"), lines, {}),
    )


def _model(
    model: type[BaseModel],
    values: dict[str, Any],
    path: tuple[str, ...],
    lines: Lines,
    places: Mapping[str, tuple[str, ...]],
) -> Any:
    """Return an instance of `model` with the fields from `values`. Raise ConfigError for a wrong value.

    The message names the line and the key of the value. The key is below `path` in the recipe, unless `places` maps the
    field to another key.
    """
    try:
        return model.model_validate({name: value for name, value in values.items() if name in model.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        key = [str(part) for part in first["loc"]][:1]
        at = places.get(key[0] if key else "", (*path, *key))
        named = ".".join(at[1:] if at[0] == "steps" else at)
        given = first["input"]
        raise ConfigError(f"{lines.at(*at)}: {named}: {first['msg']} (got {given!r}){_point(given)}.") from None


def _point(given: object) -> str:
    """Return a hint for a number with a decimal comma, or ''."""
    if isinstance(given, str) and re.fullmatch(r"[+-]?\d+,\d+", given.strip()):
        return f"; write {given.strip().replace(',', '.')}, with a point"
    return ""


def recipe_schema(pipeline: Pipeline) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a recipe; editors can use the schema."""
    steps: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    resources = Resources.model_json_schema()
    for step in pipeline.steps:
        properties: dict[str, Any] = {}
        for model in (step.stage.params, step.stage.options):
            schema = model.model_json_schema()
            definitions.update(schema.get("$defs", {}))
            properties.update(schema["properties"])
        steps[step.name] = {
            "type": ["object", "null"],
            "description": step.stage.summary,
            "properties": {**properties, "resources": resources},
            "additionalProperties": False,
        }
    inputs: dict[str, Any] = {}
    for step in pipeline.steps:
        for name, source in step.sources().items():
            about = (
                step.stage.input(name).help
                if source.recipe
                else f"replaces the step {source.name} by a result that exists already"
            )
            inputs.setdefault(source.name, {"type": "string", "description": about})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vasevqa recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "description": "the name of runs of this recipe"},
            "inputs": {
                "type": "object",
                "description": "paths relative to the recipe; models may be hub ids",
                "properties": inputs,
                "additionalProperties": False,
            },
            **_shared_schema(pipeline),
            "steps": {"type": "object", "properties": steps, "additionalProperties": False},
            "skip": {
                "type": "array",
                "items": {"enum": list(pipeline.names)},
                "description": "steps that don't run: they pass their input through, or no step reads their result",
            },
            "to": {"enum": list(pipeline.names), "description": "the last step to run"},
        },
        "$defs": definitions,
    }


def _shared_schema(pipeline: Pipeline) -> dict[str, Any]:
    fields: dict[str, Any] = {"vase_column": {"type": "string"}}
    for step in pipeline.steps:
        for model in (step.stage.params, step.stage.options):
            fields = {**model.model_json_schema()["properties"], **fields}
    return {name: {**fields.get(name, {}), "description": about} for name, about in SHARED.items()}
