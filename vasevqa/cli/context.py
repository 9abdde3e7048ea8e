"""The pipeline and the backends that the commands use. Another program may pass its own Context."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from vasevqa.pipeline.backend import MakeBackend, make_backend
from vasevqa.spec import Pipeline


@dataclass(frozen=True)
class Context:
    """The pipeline, and a function `make_backend(name, volume, cluster)` that returns the backend of a run."""

    pipeline: Pipeline
    make_backend: MakeBackend


def pass_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the Context in click's `obj` to the command as its first argument.

    Without a Context in `obj`, pass the catalog's pipeline and the built-in backends.
    """

    @functools.wraps(function)
    def with_context(*arguments: Any, **options: Any) -> Any:
        given = click.get_current_context().obj
        return function(given if isinstance(given, Context) else _default(), *arguments, **options)

    return with_context


def _default() -> Context:
    from vasevqa.pipeline.catalog import PIPELINE

    return Context(PIPELINE, make_backend)
