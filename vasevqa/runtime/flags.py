"""A stage's parameters as command-line flags: made from the models, read back into them, and written out again."""

from __future__ import annotations

import json
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
    """The command-line flag of a field: confidence_threshold -> --confidence-threshold."""
    return "--" + field.replace("_", "-")


def plain_type(info: FieldInfo) -> Any:
    """The field's type without `| None` and Annotated."""
    annotation = info.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        annotation = kinds[0] if len(kinds) == 1 else str
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
    """The click option of a field; with `or_path` it takes any text, since a path may stand for one of its choices."""
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
    simple = {int: click.INT, float: click.FLOAT, str: click.STRING}.get(kind)
    metavar = None if simple else "JSON"
    return click.Option([flag(name)], type=simple or click.STRING, metavar=metavar, help=_help(info, kind))


def argv(stage: Stage, params: Params, options: Options, inputs: Mapping[str, str], output: str) -> list[str]:
    """The arguments that repeat this call of a stage: what differs from the stage's defaults, never a shell string."""
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
                for item in plain:
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
                raise ConfigError(f"{flag(name)} takes JSON, and {value!r} isn't.") from None
        given[name] = list(value) if isinstance(value, tuple) else value
    return given


def validate(model: type[BaseModel], values: Mapping[str, object]) -> Any:
    """`model` from what the command line gave; ConfigError names the flag that is wrong."""
    try:
        return model(**_given(model, values))
    except ValidationError as error:
        first = error.errors()[0]
        where = flag(str(first["loc"][0])) if first["loc"] else "the parameters"
        raise ConfigError(f"{where}: {first['msg']} (got {first['input']!r}).") from None
