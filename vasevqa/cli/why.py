"""`vasevqa why`: explain why a run kept or lost a photograph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.cli.options import volume_option
from vasevqa.pipeline.runs import find_run

if TYPE_CHECKING:
    from vasevqa.report.decisions import Filtered, Near
    from vasevqa.report.why import Why

WIDTH = 13  # width of the column with the steps' names


@click.command()
@click.argument("name", metavar="RUN")
@click.argument("photograph")
@volume_option
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def why(name: str, photograph: str, volume: Path, as_json: bool) -> None:
    """Show what each step of RUN decided about PHOTOGRAPH, and its nearest photographs.

    PHOTOGRAPH is the name relative to the folder of the photographs, or a part of the name that is unique. The
    nearest accepted and rejected photographs are those with the most similar CLIP embeddings. The search needs numpy.

    \b
    Example:
      vasevqa why 20260101-120000 F2159_front
    """
    from vasevqa.report.why import why as explain

    found = explain(find_run(Volume(volume.absolute()), name), photograph)
    click.echo(found.model_dump_json() if as_json else "\n".join(_lines(found)))


def _lines(found: Why) -> Iterator[str]:
    yield f"{found.photograph} in {found.run}: {found.state}"
    for one in found.set_aside:
        yield _line(one.step, one.reason)
    if found.classify is not None:
        yield _line("classify", found.classify.said())
    if found.clip_filter is not None:
        yield _line("clip-filter", found.clip_filter.said())
        yield from _prompts(found.clip_filter)
    if found.select_views is not None:
        yield _line("select-views", found.select_views.said())
    for title, near in (("accepted", found.nearest_accepted), ("rejected", found.nearest_rejected)):
        if near:
            yield f"nearest {title} photographs (similarity, score, name):"
            yield from map(_near, near)
    if found.note:
        yield found.note


def _line(step: str, text: str) -> str:
    return f"{step:<{WIDTH}} {text}"


def _prompts(filtered: Filtered) -> Iterator[str]:
    """Yield lines with the descriptions to which clip-filter compared the photograph.

    An asterisk marks the description that decided whether the photograph was accepted.
    """
    if filtered.prompts is None:
        if filtered.decided_by:
            yield _line("", f"most similar description: {filtered.decided_by}")
        return
    sides = (
        ("wanted", filtered.high_similarity, filtered.prompts.high, filtered.accepted),
        ("unwanted", filtered.low_similarity, filtered.prompts.low, not filtered.accepted),
    )
    for side, similarity, prompts, deciding in sides:
        yield _line("", f"similarity {similarity:.4f} to the descriptions of {side} photographs:")
        for prompt in prompts:
            mark = "* " if deciding and prompt == filtered.decided_by else "  "
            yield _line("", f"{mark}{prompt}")
    yield _line("", "* the most similar description on the deciding side")


def _near(one: Near) -> str:
    return f"  {one.similarity:.4f}  {one.score:+.4f}  {one.name}"
