"""`vasevqa review`: label photographs on a page of this machine."""

from __future__ import annotations

import getpass
import os
import shlex
import sys
import webbrowser
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from vasevqa.cli import options
from vasevqa.cli.context import Context, pass_context
from vasevqa.dataset.reading import Reading
from vasevqa.errors import ConfigError, DataError
from vasevqa.review.begin import Review, Source, decides, open_review, source_of
from vasevqa.review.calibration import AIM, calibration_of, lines, scored_of
from vasevqa.review.gain import gains
from vasevqa.review.label_studio import read_tasks
from vasevqa.review.questions import QUALITY, QUESTIONS
from vasevqa.review.record import Record
from vasevqa.review.server import Server
from vasevqa.review.session import Session
from vasevqa.review.weights import sample_of

FILE = click.Path(path_type=Path, dir_okay=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        return "reviewer"


@dataclass(frozen=True)
class Request:
    """The options of the command."""

    source: str
    volume: Path
    into: Path | None
    question: str
    who: str
    name_pattern: tuple[str, ...]
    annotations: Path | None
    vase_column: str | None
    merge: tuple[Path, ...]
    label_studio: Path | None
    seed: int
    port: int
    no_browser: bool
    calibrate: bool
    precision: float
    as_json: bool


@click.command()
@click.argument("source", metavar="FOLDER|RUN")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="folder of the labels: labels.jsonl, and for quality 0/ and 1/; unset: the question's name",
)
@click.option(
    "--question",
    type=click.Choice(list(QUESTIONS)),
    default=QUALITY.name,
    show_default=True,
    help="quality: a good photograph? intact: a complete, undamaged vase?",
)
@click.option("--who", default=_user, help="name of the reviewer; unset: the user of this machine")
@options.volume_option
@click.option("--name-pattern", multiple=True, help="how names tell vases, as in select-views (may be repeated)")
@click.option("--annotations", type=FILE, help="table that tells the vases of photographs whose names tell none")
@click.option("--vase-column", help="heading of the table's column that names the vase")
@click.option("--merge", type=FILE, multiple=True, help="take in the labels of another labels.jsonl (may be repeated)")
@click.option(
    "--label-studio",
    type=FILE,
    help="Label Studio's JSON: its labels are taken in if the file exists, and all labels are written to it at the end",
)
@click.option("--seed", type=int, default=0, show_default=True, help="order; the same for reviewers who shall overlap")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="port of the page, for a tunnel such as ssh -L 8000:127.0.0.1:8000; unset: a free one",
)
@click.option("--no-browser", is_flag=True, help="only print the link")
@click.option(
    "--calibrate", is_flag=True, help="open no page: say which threshold of RUN the labels show to reach --precision"
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=AIM,
    show_default=True,
    help="the aim of a threshold: share of the accepted photographs that should be good",
)
@click.option("--json", "as_json", is_flag=True, help="with --calibrate: print JSON")
@pass_context
def review(context: Context, **given: Any) -> None:
    """Label the photographs of FOLDER, or of RUN, by keys on a page that only this machine sees.

    Each label is saved at once; Ctrl-C ends the review, and the same command resumes it. With RUN, typical
    photographs are shown first, then those that the run's model is least sure of, and those where labels and model
    disagree. Labels of quality are what train-classifier learns from. With
    --calibrate, labels of quality choose the threshold of classify, and labels of intact that of clip-filter.

    \b
    Examples:
      vasevqa review photos --into quality
      vasevqa review RUN --question intact --calibrate --precision 0.9
    """
    request = Request(**given)
    question = QUESTIONS[request.question]
    if not request.who.strip():
        raise ConfigError("--who is empty; give the name of the reviewer.")
    if request.as_json and not request.calibrate:
        raise ConfigError("--json is for --calibrate; add --calibrate, or leave it out.")
    if request.calibrate and Path(request.source).exists():
        raise ConfigError(f"{request.source} is a folder without scores; give --calibrate the name of a run.")
    source = source_of(request.source, request.volume, question, context.pipeline)
    opened = open_review(_with_options(source, request), question, request.into or Path(question.name))
    record = opened.record
    for line in [*opened.said, *_taken_in(record, request)]:
        click.echo(line, err=request.calibrate)
    if request.calibrate:
        _calibrate(opened, request)
        return
    record.prepare()
    _serve(Session(record, request.who.strip(), opened.scores, request.seed, opened.groups, request.precision), request)
    if request.label_studio is not None:
        tasks = read_tasks(request.label_studio) if request.label_studio.exists() else []
        record.give_out(request.label_studio, tasks)
        click.echo(f"Wrote {request.label_studio}.")
    click.echo("\n".join(ended(record, request.who.strip())))


def _calibrate(opened: Review, request: Request) -> None:
    """Print what the labels say about thresholds."""
    record = opened.record
    if opened.scores is None:
        raise DataError(f"The run {request.source} has no scores of {decides(record.question)}; run this step first.")
    scored = scored_of(record.photographs, opened.scores)
    found = calibration_of(sample_of(record), record.question.name, scored, request.precision)
    click.echo(found.model_dump_json() if request.as_json else "\n".join(lines(found)))


def ended(record: Record, who: str) -> list[str]:
    """Return the lines that say what a review came to."""
    counts = ", ".join(f"{count} {label}" for label, count in record.counts().items() if count)
    mine = len(record.mine(who))
    lines = [f"{mine} label{'s' if mine != 1 else ''} of {who}; photographs of all reviewers: {counts or 'none'}"]
    lines += [agreement.said() for agreement in record.agreements()]
    lines += [*gains(record), *record.problems()]
    if record.question is QUALITY and all(record.answered().values()):
        lines.append(
            f"Next: python -m jobs.train_classifier --data-dir {shlex.quote(str(record.into))} --output-dir models"
        )
    return lines


def _with_options(source: Source, request: Request) -> Source:
    """Return the source with what the options say about vases."""
    columns = {"vase_id": request.vase_column} if request.vase_column else source.reading.columns
    reading = Reading(list(request.name_pattern) or source.reading.name_pattern, columns, source.reading.records)
    table = request.annotations or source.table
    if request.vase_column and table is None:
        raise ConfigError("--vase-column names a column, and no table is given; add --annotations.")
    if request.annotations is not None and not request.annotations.exists():
        raise ConfigError(f"There is no table {request.annotations}; check --annotations.")
    return replace(source, reading=reading, table=table)


def _taken_in(record: Record, request: Request) -> Iterable[str]:
    for path in request.merge:
        if not path.exists():
            raise ConfigError(f"There is no file {path}; check --merge.")
        yield f"{record.merge(path)} new labels from {path}"
    if request.label_studio is not None and request.label_studio.exists():
        new, missing = record.take_in(read_tasks(request.label_studio))
        more = f"; {missing} annotated tasks are of photographs that aren't here, or that it doesn't tell apart"
        yield f"{new} new labels from {request.label_studio}{more if missing else ''}"


def _serve(session: Session, request: Request) -> None:
    """Serve the page until Ctrl-C or SIGTERM, which are how a review ends."""
    try:
        with Server(session, request.port, lambda link: click.echo(f"Open {link}")) as server:
            link = server.new_link()
            click.echo("Every label is saved at once. Ctrl-C ends the review.")
            if not request.no_browser and _has_desktop():
                webbrowser.open(link)
            server.serve_forever()
    except KeyboardInterrupt:
        click.echo("")


def _has_desktop() -> bool:
    """Return whether a browser would open a window. One for terminals would wait for its user, and stop the server."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
