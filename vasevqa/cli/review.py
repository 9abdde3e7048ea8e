"""`vasevqa review`: label photographs on a web page that this machine serves."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import sys
import webbrowser
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vasevqa.artifacts.volume import Volume
from vasevqa.backends.cluster import cluster_of
from vasevqa.cli import options
from vasevqa.cli.context import Context, pass_context
from vasevqa.errors import ClusterError, ConfigError, DataError, VaseError
from vasevqa.pipeline.calibrated import Calibration
from vasevqa.pipeline.runs import find_run
from vasevqa.review.begin import decides, open_review, source_of, with_options
from vasevqa.review.calibration import AIM, calibration_of, lines, scored_of
from vasevqa.review.choosing import Scores
from vasevqa.review.distant import POD, DistantReview, DistantSession, open_distant
from vasevqa.review.gain import gains
from vasevqa.review.label_studio import read_tasks
from vasevqa.review.messages import Asked
from vasevqa.review.questions import QUALITY, QUESTIONS, Question
from vasevqa.review.record import Record
from vasevqa.review.server import Server
from vasevqa.review.session import Session
from vasevqa.review.store import Store, default_folder
from vasevqa.review.weights import sample_of
from vasevqa.text import first_line
from vasevqa.transfer.connection import Far, PodFar

FILE = click.Path(path_type=Path, dir_okay=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # in a container, the user may have no name
        return "reviewer"


@dataclass(frozen=True)
class Request:
    """The values of the command's argument and options."""

    source: str
    volume: Path
    cluster: Path | None
    namespace: str | None
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
    sync: bool
    pictures: Path | None

    @property
    def is_remote(self) -> bool:
        """True if SOURCE is a run in a cluster."""
        here = self.namespace is None and Path(self.source).exists()
        return not here and options.is_remote(self.volume, self.cluster, self.namespace)

    def asked(self, question: Question) -> Asked:
        """Return the request that is sent to the review's pod."""
        more = {
            "name_pattern": list(self.name_pattern),
            "vase_column": self.vase_column,
            "annotations": None if self.annotations is None else str(self.annotations),
        }
        return Asked.of(self.source, question.name, self.into or Path(question.name), **more)

    def command(self) -> str:
        """Return the command that sends the labels to the volume."""
        given = (
            ("-n", self.namespace),
            ("--cluster", self.cluster),
            ("--question", self.question),
            ("--into", self.into or Path(self.question)),
        )
        words = [str(word) for option, value in given if value is not None for word in (option, value)]
        return shlex.join(["vasevqa", "review", self.source, *words, "--sync"])


@click.command()
@click.argument("source", metavar="FOLDER|RUN")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="folder for labels.jsonl and, for quality, the labelled photographs; unset: the question's name",
)
@click.option(
    "--question",
    type=click.Choice(list(QUESTIONS)),
    default=QUALITY.name,
    show_default=True,
    help="quality: is the photograph good? intact: is the vase complete and undamaged?",
)
@click.option("--who", default=_user, help="name of the reviewer; unset: the user of this machine")
@options.volume_option
@options.cluster_options
@click.option(
    "--name-pattern",
    multiple=True,
    help="pattern that finds the vase in a file name, as in select-views (may be repeated)",
)
@click.option("--annotations", type=FILE, help="table that names the vase of each photograph whose file name doesn't")
@click.option("--vase-column", help="heading of the table's column that names the vase")
@click.option("--merge", type=FILE, multiple=True, help="add the labels of another labels.jsonl (may be repeated)")
@click.option(
    "--label-studio",
    type=FILE,
    help="Label Studio's JSON file: labels are read from it if it exists, and all labels are written to it at the end",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="seed of the order; with the same seed, reviewers begin with the same photographs",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="port of the page, for a tunnel such as ssh -L 8000:127.0.0.1:8000; unset: any free port",
)
@click.option("--no-browser", is_flag=True, help="only print the link")
@click.option(
    "--calibrate",
    is_flag=True,
    help="open no page: print which threshold of RUN reaches --precision according to the labels",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=AIM,
    show_default=True,
    help="required precision: share of the accepted photographs that should be good",
)
@click.option("--json", "as_json", is_flag=True, help="with --calibrate: print JSON")
@click.option("--sync", is_flag=True, help="with -n: open no page; only copy new labels from and to the volume")
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    help="with -n: folder that keeps the pictures for the next review; unset: ~/.cache/vasevqa/review",
)
@pass_context
def review(context: Context, **given: Any) -> None:
    """Label the photographs of FOLDER or RUN with keys, on a web page that only this machine can open.

    Each label is saved at once. Ctrl-C ends the review, and the same command resumes it. With RUN, typical
    photographs are shown first. Then come photographs of which the run's model is least sure, and photographs similar
    to those whose label contradicts the model. The step train-classifier learns from labels of quality. --calibrate
    prints which threshold reaches --precision: for labels of quality, the threshold of the step classify; for labels
    of intact, the threshold of the step clip-filter.

    With -n, RUN is a run in the cluster. While you label, a pod sends the photographs as pictures of at most 1,600
    pixels. At the end, the labels are copied to the folder labels/NAME on the volume, where NAME is the name of the
    folder in --into. Other reviewers' labels are in labels/NAME as well.

    \b
    Examples:
      vasevqa review photos --into quality
      vasevqa review RUN --question intact --calibrate --precision 0.9
      vasevqa review RUN -n my-namespace --into quality
    """
    request = Request(**given)
    question = QUESTIONS[request.question]
    if not request.who.strip():
        raise ConfigError("--who is empty; give the name of the reviewer.")
    if request.as_json and not request.calibrate:
        raise ConfigError("--json works only with --calibrate; add --calibrate, or leave out --json.")
    if request.calibrate and not request.is_remote and Path(request.source).exists():
        raise ConfigError(f"{request.source} is a folder without scores; give --calibrate the name of a run.")
    if request.sync and not request.is_remote:
        raise ConfigError("--sync works only with a run in a cluster; add -n NAMESPACE.")
    if request.is_remote:
        _review_in_cluster(request, question)
        return
    source = source_of(request.source, request.volume, question, context.pipeline)
    source = with_options(source, request.name_pattern, request.vase_column, request.annotations)
    opened = open_review(source, question, request.into or Path(question.name))
    record = opened.record
    for line in [*opened.said, *_taken_in(record, request)]:
        click.echo(line, err=request.calibrate)
    if request.calibrate:
        _calibrate(record, opened.scores, request)
        return
    record.prepare()
    _serve(Session(record, request.who.strip(), opened.scores, request.seed, opened.groups, request.precision), request)
    _give_out(record, request)
    click.echo("\n".join([*ended(record, request.who.strip()), *_next_step(record)]))


def _review_in_cluster(request: Request, question: Question) -> None:
    """Review the photographs of a run in a cluster. With --calibrate, only print what the labels show."""
    asked, who, quiet = request.asked(question), request.who.strip(), request.calibrate
    far, volume = _reach(request)
    with contextlib.closing(far):
        opened = open_distant(far, asked)
        store = Store(request.pictures or default_folder(), f"{volume}/{opened.head.folder}")
        distant = DistantReview(far, asked, question, request.into or Path(question.name), store, opened)
        record = distant.record
        distant.take()
        there = f"{len(distant.new)} new labels from {asked.folder} on the volume"
        for line in [opened.head.run, *opened.head.said, there, *_taken_in(record, request)]:
            click.echo(line, err=quiet)
        if request.calibrate:
            _calibrate(record, opened.scores, request)
            return
        record.prepare()
        if not request.sync:
            session = DistantSession(record, who, opened.scores, request.seed, opened.groups, request.precision)
            with contextlib.closing(distant.pictures(lambda said: click.echo(said, err=True))) as session.pictures:
                _serve(session, request)
            click.echo(store.said())
        _give_out(record, request)
        click.echo("\n".join(ended(record, who)))
        click.echo("\n".join(_taken_there(distant, request)))


def _reach(request: Request) -> tuple[Far, str]:
    """Return the connection to the pod, and a name of the volume that no other volume has.

    The name consists of the cluster's context, the namespace and the claim.
    """
    from vasevqa.backends.kubernetes.session import Session as Access

    access = Access(cluster_of(request.cluster, request.namespace))
    click.echo(f"Starting a pod in namespace {access.namespace}, and listing the photographs.", err=True)
    return PodFar(access, POD), f"{access.cluster.context or ''}/{access.namespace}/{access.cluster.claim}"


def _taken_there(distant: DistantReview, request: Request) -> list[str]:
    """Send the labels to the volume, and return lines about the result. Raise ClusterError if this fails."""
    record, folder = distant.record, distant.asked.folder
    try:
        given = distant.give()
    except VaseError as error:
        raise ClusterError(
            f"The labels are safe in {record.file.path}, but were not copied to the volume ({first_line(error)}); copy"
            f" them with `{request.command()}`."
        ) from None
    lines = [f"{given.new} labels were new in {folder} on the volume; all are in {record.file.path} too"]
    if record.question is QUALITY:
        lines.append(f"{folder}/0 has {given.low} photographs, {folder}/1 has {given.high}")
        if given.low and given.high:
            lines.append(f"Next: write `quality_data: {folder}` under `inputs` of the recipe, and submit it.")
    return [*lines, *(f"on the volume: {problem}" for problem in given.problems)]


def _give_out(record: Record, request: Request) -> None:
    """Write Label Studio's JSON if --label-studio was given."""
    if request.label_studio is not None:
        tasks = read_tasks(request.label_studio) if request.label_studio.exists() else []
        record.give_out(request.label_studio, tasks)
        click.echo(f"Wrote {request.label_studio}.")


def _calibrate(record: Record, scores: Scores | None, request: Request) -> None:
    """Print what the labels show about thresholds."""
    if scores is None:
        raise DataError(f"The run {request.source} has no scores of {decides(record.question)}; run this step first.")
    scored = scored_of(record.photographs, scores)
    found = calibration_of(sample_of(record), record.question.name, scored, request.precision)
    click.echo(found.model_dump_json() if request.as_json else "\n".join(lines(found)))
    if not request.is_remote:
        _keep(found, request)


def _keep(found: Calibration, request: Request) -> None:
    """Write the calibration into the run's folder, where the report finds it."""
    run = find_run(Volume(request.volume.absolute()), request.source)
    try:
        found.write(run.calibration(found.step))
    except OSError as error:  # the volume may be read-only for a reviewer
        click.echo(f"The report can't show these figures, because {error.filename} can't be written.", err=True)
        return
    click.echo(f"`vasevqa report {run.name}` shows these figures in the report.", err=True)


def ended(record: Record, who: str) -> list[str]:
    """Return the lines of the summary that is printed at the end of a review."""
    counts = ", ".join(f"{count} {label}" for label, count in record.counts().items() if count)
    mine = len(record.mine(who))
    lines = [f"{mine} label{'s' if mine != 1 else ''} of {who}; photographs of all reviewers: {counts or 'none'}"]
    lines += [agreement.said() for agreement in record.agreements()]
    return [*lines, *gains(record), *record.problems()]


def _next_step(record: Record) -> list[str]:
    """Return a line with the command that trains on the labels, or no line if there are too few labels."""
    if record.question is not QUALITY or not all(record.answered().values()):
        return []
    return [f"Next: python -m jobs.train_classifier --data-dir {shlex.quote(str(record.into))} --output-dir models"]


def _taken_in(record: Record, request: Request) -> Iterable[str]:
    for path in request.merge:
        if not path.exists():
            raise ConfigError(f"There is no file {path}; check --merge.")
        yield f"{record.merge(path)} new labels from {path}"
    if request.label_studio is not None and request.label_studio.exists():
        new, missing = record.take_in(read_tasks(request.label_studio))
        more = f"; {missing} annotated tasks fit no photograph here, or more than one"
        yield f"{new} new labels from {request.label_studio}{more if missing else ''}"


def _serve(session: Session, request: Request) -> None:
    """Serve the page until Ctrl-C or SIGTERM. Both are the normal end of a review."""
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
    """Return True if a browser can open a window. A browser inside the terminal would block the server."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
