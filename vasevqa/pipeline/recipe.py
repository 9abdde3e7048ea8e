"""Loads a user's recipe: YAML with line numbers, fully checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vasevqa.errors import ConfigError, invalid_yaml
from vasevqa.models import HUB_ID
from vasevqa.spec import Options, Params, Pipeline, Resources, Step
from vasevqa.text import nearest

TOP = ("name", "inputs", "steps", "skip", "to")
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class StepSettings:
    """A recipe's validated settings of one step."""

    params: Params
    options: Options
    resources: Resources


@dataclass(frozen=True)
class Recipe:
    """A recipe ready to plan. `inputs` are absolute paths, or hub ids for models; `text` loads to the same recipe."""

    name: str
    inputs: dict[str, str]
    steps: dict[str, StepSettings]
    skip: tuple[str, ...] = ()
    to: str | None = None
    text: str = field(default="", compare=False)


class _Lines:
    """The line of each key in the file, by its path (('steps', 'clip-filter', 'threshold') -> 7)."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[tuple[str, ...], int] = {}
        self.options: dict[tuple[str, ...], str] = {}  # values that come from the command line

    def at(self, *path: str) -> str:
        """Return 'recipe.yaml, line 7' for the key at `path`, or for the nearest key around it.

        For a value from the command line, return '--set x.y=z'.
        """
        for length in range(len(path), 0, -1):
            if path[:length] in self.options:
                return self.options[path[:length]]
            if path[:length] in self.lines:
                return f"{self.where}, line {self.lines[path[:length]]}"
        return self.where


def load_recipe(
    path: Path,
    pipeline: Pipeline,
    overrides: Sequence[str] = (),
    inputs: Sequence[str] = (),
    base: Path | None = None,
    here: bool = True,
) -> Recipe:
    """Load the recipe in `path` and apply `--set step.param=value` and `--input name=path`.

    Input paths are relative to `base`, or to the recipe's own folder. With `here=False` the inputs are on another
    machine: they need not exist, and their paths stay as written. Raises ConfigError that names the wrong line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES >> 20} MiB, so it is not a recipe.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"There is no recipe {path}; `vasevqa/recipes/demo.yaml` is an example.") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not a YAML file; give a recipe file.") from None
    lines = _Lines(str(path))
    tree = _parse(text, lines)
    for override in overrides:
        _set(tree, override, lines)
    for given in inputs:
        name, equals, value = given.partition("=")
        if not equals or not value:
            raise ConfigError(f"--input {given}: write it as name=path.")
        tree.setdefault("inputs", {})[name] = str(Path(value).absolute()) if here and Path(value).exists() else value
        lines.options["inputs", name] = f"--input {given}"
    return _check(tree, path.stem, pipeline, lines, (base or path.parent) if here else None)


def _parse(text: str, lines: _Lines) -> dict[str, Any]:
    try:
        for token in yaml.scan(text):
            if isinstance(
                token, (yaml.AnchorToken, yaml.AliasToken)
            ):  # nested aliases can expand a small file without bound
                raise ConfigError(
                    f"{lines.where}, line {token.start_mark.line + 1}: anchors and aliases are not used in recipes;"
                    " write the value out."
                )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise invalid_yaml(lines.where, error) from None
    if node is None:
        raise ConfigError(f"{lines.where} is empty; a recipe needs at least `inputs`.")
    tree = _value(node, (), lines)
    if not isinstance(tree, dict):
        raise ConfigError(f"{lines.where}, line 1: a recipe is a mapping with the keys {', '.join(TOP)}.")
    return tree


def _value(node: yaml.Node, path: tuple[str, ...], lines: _Lines) -> Any:
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in found:
                raise ConfigError(
                    f"{lines.where}, line {line}: '{key}' appears here a second time; keep one of the two."
                )
            where = (*path, key)
            lines.lines[where] = line
            found[key] = _value(value_node, where, lines)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, path, lines) for item in node.value]
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)  # type: ignore[no-untyped-call]
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{lines.at(*path)}: '{getattr(node, 'value', '')}' is not a plain value.") from None
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


def _set(tree: dict[str, Any], override: str, lines: _Lines) -> None:
    where, equals, value = override.partition("=")
    words = where.split(".")
    if not equals or len(words) < 2:
        raise ConfigError(f"--set {override}: write it as step.parameter=value, such as clip-filter.threshold=0.15.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: '{value}' is not a YAML value.") from None
    words = ["steps", *words]
    at = tree
    for word in words[:-1]:
        at = at.setdefault(word, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--set {override}: '{word}' is not a mapping.")
    at[words[-1]] = parsed
    lines.options[tuple(words)] = f"--set {override}"


def _check(tree: dict[str, Any], stem: str, pipeline: Pipeline, lines: _Lines, base: Path | None) -> Recipe:
    _known(tree, TOP, (), lines)
    name = tree.get("name", stem)
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{lines.at('name')}: the name is a word, not {name!r}.")
    skip = tree.get("skip") or []
    if not isinstance(skip, list) or not all(isinstance(item, str) for item in skip):
        raise ConfigError(f"{lines.at('skip')}: skip is a list of steps, such as [classify].")
    for item in [*skip, *([tree["to"]] if tree.get("to") is not None else [])]:
        if item not in pipeline.names:
            raise ConfigError(
                f"{lines.at('skip' if item in skip else 'to')}: there is no step"
                f" '{item}'.{nearest(str(item), pipeline.names)}"
            )
    for item in skip:
        if pipeline.step(item).passthrough_input is None:
            raise ConfigError(
                f"{lines.at('skip')}: {item} can't be skipped, since no input can replace its result; give it as"
                f" `inputs: {{{item}: PATH}}`."
            )
    inputs = _inputs(tree.get("inputs") or {}, base, pipeline, lines)
    steps = tree.get("steps") or {}
    if not isinstance(steps, dict):
        raise ConfigError(f"{lines.at('steps')}: steps is a mapping from step to settings.")
    _known(steps, pipeline.names, ("steps",), lines)
    settings = {step.name: _settings(steps.get(step.name) or {}, step, lines) for step in pipeline.steps}
    saved = {**tree, "name": name, "inputs": inputs}
    return Recipe(
        name, inputs, settings, tuple(skip), tree.get("to"), yaml.safe_dump(saved, sort_keys=False, allow_unicode=True)
    )


def _known(found: dict[str, Any], known: Sequence[str], path: tuple[str, ...], lines: _Lines) -> None:
    for key in found:
        if key not in known:
            what = "step" if path == ("steps",) else "key"
            raise ConfigError(f"{lines.at(*path, key)}: there is no {what} '{key}'.{nearest(key, list(known))}")


def _inputs(given: Any, base: Path | None, pipeline: Pipeline, lines: _Lines) -> dict[str, str]:
    if not isinstance(given, dict):
        raise ConfigError(f"{lines.at('inputs')}: inputs is a mapping from name to path.")
    declared = {
        source.name: (step, name) for step in pipeline.steps for name, source in step.sources().items() if source.recipe
    }
    replaceable = {source.name for step in pipeline.steps for source in step.sources().values() if not source.recipe}
    _known(given, [*declared, *sorted(replaceable)], ("inputs",), lines)
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(value, str):
            raise ConfigError(f"{lines.at('inputs', name)}: an input is a path, not {value!r}.")
        if base is None:
            found[name] = value
            continue
        path = base / Path(value).expanduser()
        hub = name in declared and declared[name][0].stage.input(declared[name][1]).hub
        if path.exists():
            found[name] = _plain(path)
        elif hub and HUB_ID.fullmatch(value) and not value.startswith((".", "/")):
            found[name] = value
        else:
            raise ConfigError(
                f"{lines.at('inputs', name)}: the input '{name}' does not exist at {path.absolute()}; correct the path"
                f" (it is relative to {base.absolute()})."
            )
    return found


def _plain(path: Path) -> str:
    """Return the absolute path without `..`, so that a container can use it as well.

    In a container, a folder that `..` passes through may be missing.
    """
    plain = Path(os.path.normpath(path.absolute()))
    return str(plain if plain.exists() and plain.samefile(path) else path.resolve())


def _settings(given: Any, step: Step, lines: _Lines) -> StepSettings:
    path = ("steps", step.name)
    if not isinstance(given, dict):
        raise ConfigError(f"{lines.at(*path)}: the settings of {step.name} are a mapping from parameter to value.")
    stage = step.stage
    known = [*stage.params.model_fields, *stage.options.model_fields, "resources"]
    _known(given, known, path, lines)
    params = {**step.preset, **{key: value for key, value in given.items() if key in stage.params.model_fields}}
    options = {key: value for key, value in given.items() if key in stage.options.model_fields}
    resources = given.get("resources") or {}
    if not isinstance(resources, dict):
        raise ConfigError(f"{lines.at(*path, 'resources')}: resources is a mapping, such as {{gpus: 1, memory: 8Gi}}.")
    _known(resources, list(Resources.model_fields), (*path, "resources"), lines)
    merged = {**stage.resources.model_dump(), **resources}
    return StepSettings(
        _model(stage.params, params, path, lines),
        _model(stage.options, options, path, lines),
        _model(Resources, merged, (*path, "resources"), lines),
    )


def _model(model: type[BaseModel], values: dict[str, Any], path: tuple[str, ...], lines: _Lines) -> Any:
    try:
        return model.model_validate(values, strict=None)
    except ValidationError as error:
        first = error.errors()[0]
        key = [str(part) for part in first["loc"]][:1]
        raise ConfigError(
            f"{lines.at(*path, *key)}: {'.'.join([*path[1:], *key])}: {first['msg']} (got {first['input']!r})."
        ) from None


def recipe_schema(pipeline: Pipeline) -> dict[str, Any]:
    """Return the JSON schema of a recipe (draft 2020-12), for editors."""
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
                else f"replaces the step {source.name}: its result, made elsewhere"
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
            "steps": {"type": "object", "properties": steps, "additionalProperties": False},
            "skip": {
                "type": "array",
                "items": {"enum": [step.name for step in pipeline.steps if step.passthrough_input]},
                "description": "steps that pass their input through",
            },
            "to": {"enum": list(pipeline.names), "description": "the last step to run"},
        },
        "$defs": definitions,
    }
