"""Check a user's file of rewards without running the file, so that mistakes are found before a model is loaded."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError
from vasevqa.text import first_line, nearest
from vasevqa.training.signatures import bind

OURS = ("external_vase_acc", "external_vase_format", "external_vase_paper")


def check_file(path: Path, names: Sequence[str], columns: Collection[str] | None = None) -> None:
    """Check the rewards `names` of a user's file without running the file.

    Some rewards can't be checked without running the file, such as decorated functions. They are checked when ms-swift
    imports the file.

    Raise ConfigError if the file isn't Python, if it doesn't define a reward, or if a reward can't be called.
    """
    if path.is_dir() or path.suffix != ".py":
        raise ConfigError(f"{path} is not a Python file; give a .py file with reward functions.")
    try:
        source = _File(ast.parse(path.read_bytes()))
    except SyntaxError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: the file is not valid Python ({error.msg}); correct the line."
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"{path} is not a Python file ({first_line(error)}); give a .py file with reward functions."
        ) from None
    for name in names:
        found = source.definitions(name)
        if len(found) > 1:
            lines = " and ".join(str(node.lineno) for node in found)
            raise ConfigError(f"{path} defines the reward {name} more than once (lines {lines}); keep one of them.")
        if found:
            signature = _signature_of(found[0])
            if signature is not None:
                bind(name, signature, columns)
        elif name not in source.names and not source.dynamic:
            check_known(name, f"{path} defines no reward '{name}'", source.offered)


def defines(path: Path, name: str) -> bool:
    """Return True if the user's file defines or registers the reward `name`. The file is parsed, but not run."""
    source = _File(ast.parse(path.read_bytes()))
    return bool(source.definitions(name)) or name in source.names or name in source.registered


def check_known(name: str, complaint: str, others: Collection[str] = ()) -> None:
    """Raise ConfigError if neither this project nor ms-swift has a reward called `name`.

    The message begins with `complaint`. If `name` is misspelt, the message suggests a similar name. `others` holds
    further names to suggest.
    """
    known = _of_swift()
    if name not in OURS and known and name not in known:
        near = nearest(name, sorted({*others, *OURS, *known}))
        raise ConfigError(f"{complaint}, and neither vasevqa nor ms-swift has a reward of this name.{near}")


def _of_swift() -> list[str]:
    """Return the names of ms-swift's rewards. They are read from its source code, because importing it takes 10 s."""
    spec = importlib.util.find_spec("swift")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / "rewards/orm.py"
        for node in ast.parse(path.read_bytes()).body if path.is_file() else ():
            if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
                continue
            if [ast.unparse(target) for target in _targets(node)] == ["orms"]:
                return [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class _File:
    """The definitions and imports in a user's file, which is parsed but not run."""

    def __init__(self, tree: ast.Module) -> None:
        self._defined = [node for node in tree.body if isinstance(node, _Definition)]
        self.offered = [node.name for node in self._defined if not node.name.startswith("_")]
        self.names = {node.name for node in ast.walk(tree) if isinstance(node, _Definition)}
        self.registered: dict[str, str] = {}
        self.dynamic = False
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                self._alias(node)
            elif isinstance(node, ast.ImportFrom | ast.Import):
                self.names.update(alias.asname or alias.name for alias in node.names)
                self.dynamic |= any(alias.name == "*" for alias in node.names)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):  # every form of assignment
                self.names.add(node.id)
            elif isinstance(node, ast.Name):  # code that uses one of these names can define any reward
                self.dynamic |= node.id in ("globals", "exec", "setattr", "vars", "orms")

    def _alias(self, node: ast.Assign | ast.AnnAssign) -> None:
        for target in _targets(node):
            if (
                isinstance(target, ast.Subscript)
                and isinstance(target.slice, ast.Constant)
                and ast.unparse(target.value).split(".")[-1] == "orms"
                and isinstance(node.value, ast.Name)
            ):
                self.registered[str(target.slice.value)] = node.value.id

    def definitions(self, name: str) -> list[_Definition]:
        """Return the functions and classes, at the top level of the file, that define the reward `name`."""
        wanted = self.registered.get(name, name)
        return [node for node in self._defined if node.name == wanted]


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _signature_of(node: _Definition) -> inspect.Signature | None:
    """Return the signature of a reward's definition. Return None if the definition alone doesn't show the signature."""
    if node.decorator_list:
        return None
    if not isinstance(node, ast.ClassDef):
        return inspect.Signature(list(_parameters(node.args)))
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name == "__call__":
            return None if inner.decorator_list else inspect.Signature(list(_parameters(inner.args))[1:])
    return None


def _parameters(arguments: ast.arguments) -> Iterator[inspect.Parameter]:
    plain = [*arguments.posonlyargs, *arguments.args]
    required = len(plain) - len(arguments.defaults)
    for number, argument in enumerate(plain):
        only = number < len(arguments.posonlyargs)
        kind = inspect.Parameter.POSITIONAL_ONLY if only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = arguments.defaults[number - required] if number >= required else None
        yield _parameter(argument, kind, default)
    if arguments.vararg:
        yield _parameter(arguments.vararg, inspect.Parameter.VAR_POSITIONAL, None)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(argument, inspect.Parameter.KEYWORD_ONLY, default)
    if arguments.kwarg:
        yield _parameter(arguments.kwarg, inspect.Parameter.VAR_KEYWORD, None)


class _Text(str):
    """A piece of source code, such as a default value, that a printed signature shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _parameter(argument: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    return inspect.Parameter(
        argument.arg,
        kind,
        default=_Text(ast.unparse(default)) if default is not None else empty,
        annotation=_Text(ast.unparse(argument.annotation)) if argument.annotation else empty,
    )
