"""Read labels from Label Studio's JSON, and write labels as annotations of its tasks.

The format is described at https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vasevqa import files
from vasevqa.curation.labels import WORDS
from vasevqa.errors import DataError
from vasevqa.review.labels import Line
from vasevqa.review.photographs import Photograph
from vasevqa.review.questions import QUALITY, QUESTIONS, UNSURE, Question
from vasevqa.text import first_line

_LOCAL = "/data/local-files/?d="  # the beginning of Label Studio's address of a local file
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # the prefix that Label Studio adds to the name of an uploaded file


class _Kept(BaseModel):
    """A part of a task. Keys that vasevqa doesn't read are kept unchanged."""

    model_config = ConfigDict(extra="allow")


class Value(_Kept):
    """The value of a result. `choices` holds the chosen words."""

    choices: list[str] = Field(default_factory=list)


class Result(_Kept):
    """One answer of an annotation. `from_name` names a control tag, such as Choices, in the project's configuration."""

    from_name: str = ""
    to_name: str = ""
    type: str = ""
    value: Value = Field(default_factory=Value)
    meta: dict[str, object] = Field(default_factory=dict)


class Annotation(_Kept):
    """The answers of one user to one task."""

    result: list[Result] = Field(default_factory=list)
    completed_by: object = None
    created_at: AwareDatetime | None = None
    lead_time: float | None = None  # in seconds
    was_cancelled: bool = False

    @property
    def who(self) -> str:
        """The reviewer's name: the name that vasevqa wrote, or else the user's address or number in Label Studio."""
        written = [str(result.meta["who"]) for result in self.result if "who" in result.meta]
        user = self.completed_by.get("email") if isinstance(self.completed_by, dict) else self.completed_by
        return written[0] if written else str(user) if user is not None else "somebody in Label Studio"


class Task(_Kept):
    """A task of Label Studio: one photograph with its annotations."""

    data: dict[str, object]
    annotations: list[Annotation] = Field(default_factory=list)


_TASKS = TypeAdapter(list[Task])


@dataclass(frozen=True)
class Given:
    """A label from Label Studio."""

    photograph: Photograph
    label: str
    who: str
    when: datetime | None
    milliseconds: int | None


def read_tasks(path: Path) -> list[Task]:
    """Return the tasks in a file. Raise DataError if the file isn't Label Studio's JSON."""
    try:
        return _TASKS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{path} is not Label Studio's JSON ({first_line(error.errors()[0]['msg'])}); export the project as JSON."
        ) from None


def labels_in(tasks: Sequence[Task], photographs: Sequence[Photograph], question: Question) -> tuple[list[Given], int]:
    """Return the labels that answer the question, and the number of annotated tasks whose photograph is missing.

    A choice counts if the name of its control is the name of the question. If no control has the name of any question,
    all choices count. Raise DataError for a choice that is not a label.
    """
    index, named = _Index(photographs), _has_questions(tasks)
    found, missing = [], 0
    for task in tasks:
        told = [(given, choice) for given in task.annotations if (choice := _choice(given, question, named))]
        photograph = index.photograph(task) if told else None
        if photograph is None:
            missing += bool(told)
            continue
        for given, choice in told:
            spent = None if given.lead_time is None else max(0, round(1000 * given.lead_time))
            found.append(Given(photograph, _label(choice, question), given.who, given.created_at, spent))
    return found, missing


def write_tasks(
    path: Path,
    tasks: Sequence[Task],
    lines: Iterable[Line],
    photographs: Sequence[Photograph],
    question: Question,
) -> None:
    """Write the tasks with the labels in `lines` as annotations.

    An annotation that vasevqa wrote earlier is removed if `lines` no longer has its label. A labelled photograph
    without a task gets a new task. Labelled tasks get the photograph's vase and digest. Everything else in the tasks is
    kept unchanged.
    """
    index, named, control = _Index(photographs), _has_questions(tasks), _control(tasks, question)
    kept = [task.model_copy(deep=True) for task in tasks]
    by_name = {found.name: task for task in kept if (found := index.photograph(task)) is not None}
    standing: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        standing[line.name].append(line)
    for name in standing:
        if name not in by_name:
            by_name[name] = Task(data={"image": _LOCAL + quote(name)}, annotations=[])
            kept.append(by_name[name])
    for name, task in by_name.items():
        mine = standing.get(name, [])
        wanted = {(line.who, line.label) for line in mine}
        there, staying = set(), []
        for given in task.annotations:
            choice = _choice(given, question, named)
            said = (given.who, None if choice is None else _label(choice, question))
            # A choice that was made in Label Studio is kept, even if the reviewer's label differs.
            if choice is None or said in wanted or not _is_ours(given):
                staying.append(given)
                there.add(said)
        new = [_annotation(line, control) for line in mine if (line.who, line.label) not in there]
        task.annotations = [*staying, *new]
        task.data = {**task.data, **({"vase": mine[0].vase, "digest": mine[0].digest} if mine else {})}
    files.write_json(path, _TASKS.dump_python(kept, mode="json", exclude_unset=True))


def _control(tasks: Sequence[Task], question: Question) -> tuple[str, str]:
    """Return the name of the control that asks the question, and the name of the image that the control refers to."""
    results = [result for task in tasks for one in task.annotations for result in one.result if result.value.choices]
    fitting = [result for result in results if result.from_name == question.name]
    known = fitting or ([] if _has_questions(tasks) else results)
    return (known[0].from_name, known[0].to_name) if known else (question.name, "image")


def _has_questions(tasks: Sequence[Task]) -> bool:
    return any(result.from_name in QUESTIONS for task in tasks for one in task.annotations for result in one.result)


def _choice(given: Annotation, question: Question, named: bool) -> str | None:
    """Return the chosen word of an annotation, or None. `named` is true if controls have the names of questions."""
    for result in given.result:
        if result.value.choices and (result.from_name == question.name or not named) and not given.was_cancelled:
            return result.value.choices[0]
    return None


def _is_ours(given: Annotation) -> bool:
    return any("who" in result.meta for result in given.result)


def _annotation(line: Line, control: tuple[str, str]) -> Annotation:
    # Label Studio refuses unknown users, so the result holds the reviewer's name.
    result = Result(
        from_name=control[0],
        to_name=control[1],
        type="choices",
        value=Value(choices=[line.label or UNSURE]),
        meta={"who": line.who},
    )
    spent = None if line.milliseconds is None else line.milliseconds / 1000
    return Annotation(result=[result], created_at=line.when, lead_time=spent)


def _label(choice: str, question: Question) -> str:
    """Return the label that a choice means, whether in upper or lower case.

    Raise DataError if there is no such label. For quality, the names of label folders that train-classifier knows are
    also accepted.
    """
    word = choice.strip().casefold()
    if word in question.labels:
        return word
    if question is QUALITY and word in WORDS:
        return question.yes if WORDS[word] else question.no
    raise DataError(
        f"Label Studio's choice '{choice}' is not an answer to --question {question.name}; the labels are"
        f" {', '.join(question.labels)}."
    )


class _Index:
    """Finds photographs by the ends of their paths, because paths in Label Studio may begin differently."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self._ends: Mapping[str, list[Photograph]] = _ends(photographs)

    def photograph(self, task: Task) -> Photograph | None:
        """Return the photograph of a task; None if no photograph or more than one fits."""
        for text in (value for value in task.data.values() if isinstance(value, str)):
            longest = 0
            found: Sequence[Photograph] = ()
            for path in _paths(text):
                length, here = self._longest(path)
                if length > longest:
                    longest, found = length, here
            if found:
                return found[0] if len(found) == 1 else None
        return None

    def _longest(self, path: str) -> tuple[int, Sequence[Photograph]]:
        """Find the photographs whose paths end like `path`, with as many equal path components as possible.

        Return the number of equal components, and the photographs.
        """
        parts = PurePosixPath(path).parts
        for length in range(len(parts), 0, -1):
            end = "/".join(parts[-length:])
            found = self._ends.get(end) or (self._ends.get(_UPLOAD.sub("", end, count=1)) if length == 1 else None)
            if found:
                return length, found
        return 0, []


def _paths(text: str) -> list[str]:
    """Return the paths that a text in a task may mean, the likeliest first.

    An HTTP address, or a text that begins with /data/, is probably percent-encoded, so its decoded path comes first. A
    different path, or the address of a bucket such as s3://bucket/a#1.jpg, probably isn't encoded, so the text itself
    comes first.
    """
    try:
        url = urlsplit(text)
    except ValueError:
        return [text]
    _, asked, raw = text.partition("?d=")
    if asked:
        return [*parse_qs(url.query).get("d", []), unquote(raw), raw]
    if url.scheme in ("http", "https") or text.startswith("/data/"):
        return [unquote(url.path), text]
    return [text, unquote(url.path)]


def _ends(photographs: Sequence[Photograph]) -> dict[str, list[Photograph]]:
    ends: dict[str, list[Photograph]] = defaultdict(list)
    for photograph in photographs:
        parts = PurePosixPath(photograph.name).parts
        for length in range(1, len(parts) + 1):
            ends["/".join(parts[-length:])].append(photograph)
    return dict(ends)
