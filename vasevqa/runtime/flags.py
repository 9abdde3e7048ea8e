"""Convert a stage's parameters to command-line flags and arguments, and back."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vasevqa.errors import ConfigError
from vasevqa.spec import Options, Params, Stage


def flag(field: str) -> str:
    """Return the command-line flag of a field, such as `--confidence-threshold` for `confidence_threshold`."""
    return "--" + field.replace("_", "-")


def in_recipe(stage: Stage, message: str) -> str:
    """Return a stage's message, with the keys of a recipe in place of the stage's own flags.

    For example, `--name-pattern` becomes `name_pattern`, `--device cpu` becomes `device: cpu`, and `--input-dir`
    becomes the input `images`.
    """
    inputs = {word: known.name for known in stage.inputs for word in (known.flag, *known.aliases)}
    fields = {flag(name): name for model in (stage.params, stage.options) for name in model.model_fields}
    kinds = {**stage.params.model_fields, **stage.options.model_fields}

    def key(match: re.Match[str]) -> str:
        word, value = match[1], match[2]
        if word in inputs:
            return f"the input `{inputs[word]}`" + match[0].removeprefix(word)
        if word not in fields:
            return match[0]
        name = fields[word]
        choices = ("cpu", *map(str, typing.get_args(plain_type(kinds[name]))))
        return f"`{name}: {value}`" if value in choices else f"`{name}`" + match[0].removeprefix(word)

    return re.sub(r"(?<![\w-])(--[a-z][a-z-]*[a-z])(?:[ =]([a-z-]+))?(?![\w-])", key, message)


def plain_type(info: FieldInfo) -> Any:
    """Return the field's type without `| None` and Annotated.

    For a union such as `str | list[str]`, return the list type.
    """
    annotation = info.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        several = [kind for kind in kinds if typing.get_origin(kind) in (list, tuple)]  # such as `str | list[str]`
        annotation = kinds[0] if len(kinds) == 1 else several[0] if several else str
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _help(info: FieldInfo, kind: Any) -> str:
    text = info.description or ""
    default = info.get_default(call_default_factory=True)
    if default is not None and default not in ("", [], (), {}) and kind is not bool:
        text += f"  [default: {default}]"
    return text


def option(name: str, info: FieldInfo, or_path: bool = False) -> click.Option:
    """Return the click option for the field `name`.

    If `or_path` is True, the option accepts any text, so that the user can give a path instead of one of the choices.
    """
    kind = str if or_path else plain_type(info)
    origin = typing.get_origin(kind)
    if kind is bool:
        default = info.get_default()
        return click.Option(
            [f"{flag(name)}/--no-{name.replace('_', '-')}"],
            default=None,
            help=_help(info, kind) + f"  [default: {'on' if default else 'off'}]",
        )
    if origin is Literal:
        return click.Option(
            [flag(name)], type=click.Choice([str(choice) for choice in typing.get_args(kind)]), help=_help(info, kind)
        )
    if origin in (list, tuple):
        return click.Option([flag(name)], multiple=True, help=_help(info, kind) + "  (may be repeated)")
    if kind == dict[str, str]:
        return click.Option(
            [flag(name)], multiple=True, metavar="NAME=VALUE,...", help=_help(info, kind) + "  (may be repeated)"
        )
    simple = {int: click.INT, float: click.FLOAT, str: click.STRING}.get(kind)
    metavar = None if simple else "JSON"
    return click.Option([flag(name)], type=simple or click.STRING, metavar=metavar, help=_help(info, kind))


def argv(stage: Stage, params: Params, options: Options, inputs: Mapping[str, str], output: str) -> list[str]:
    """Return the command-line arguments that run `stage` with the given values.

    Values that equal the stage's defaults are left out.
    """
    words: list[str] = []
    for known in stage.inputs:
        if known.name in inputs:
            words += [known.flag, inputs[known.name]]
    words += [stage.output_flag, output]
    for model in (params, options):
        defaults = type(model)()
        for name, info in type(model).model_fields.items():
            value = getattr(model, name)
            if value == getattr(defaults, name) or value is None:
                continue
            plain = model.model_dump(mode="json")[name]
            if isinstance(value, bool):
                words.append(flag(name) if value else f"--no-{name.replace('_', '-')}")
            elif typing.get_origin(plain_type(info)) in (list, tuple):
                for item in [plain] if isinstance(plain, str) else plain:
                    words.append(f"{flag(name)}={item if isinstance(item, str) else json.dumps(item)}")
            else:
                words.append(f"{flag(name)}={plain if isinstance(plain, str) else json.dumps(plain)}")
    return words


def _given(model: type[BaseModel], values: Mapping[str, object]) -> dict[str, object]:
    given: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = values.get(name)
        if value is None or value == ():
            continue
        kind = plain_type(info)
        if isinstance(value, str) and kind not in (str, int, float) and typing.get_origin(kind) is not Literal:
            try:
                value = json.loads(value)
            except ValueError:
                raise ConfigError(
                    f"{flag(name)} takes JSON, but {value!r} is not valid JSON; correct the value."
                ) from None
        given[name] = list(value) if isinstance(value, tuple) else value
    return given


def validate(model: type[BaseModel], values: Mapping[str, object]) -> Any:
    """Return an instance of `model` with the values from the command line.

    Raise ConfigError if a value is invalid. The message names the flag.
    """
    try:
        return model(**_given(model, values))
    except ValidationError as error:
        first = error.errors()[0]
        where = flag(str(first["loc"][0])) if first["loc"] else "the parameters"
        raise ConfigError(f"{where}: {first['msg']} (got {first['input']!r}).") from None
