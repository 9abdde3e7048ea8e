"""What the commands work with: the pipeline and the backends. Another program may hand in its own."""

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
    """The steps that recipes are made of, and where they run: `make_backend(name, volume, cluster)`."""

    pipeline: Pipeline
    make_backend: MakeBackend


def pass_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the Context in click's `obj`; where there is none, the catalog's pipeline and the known
    backends.
    """

    @functools.wraps(function)
    def with_context(*arguments: Any, **options: Any) -> Any:
        given = click.get_current_context().obj
        return function(given if isinstance(given, Context) else _default(), *arguments, **options)

    return with_context


def _default() -> Context:
    from vasevqa.pipeline.catalog import PIPELINE

    return Context(PIPELINE, make_backend)
