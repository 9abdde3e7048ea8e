"""Read labels.jsonl and append labels to it. Each line is one label as JSON. Lines are never changed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from vasevqa.errors import ConfigError, DataError, StorageError, VaseError, storage_error
from vasevqa.review.questions import Question
from vasevqa.text import first_line

FILE = "labels.jsonl"
_BEGIN = b'{"digest":"'  # the first bytes of each line; they identify a truncated line


class NotSaved(StorageError):
    """Labels could not be written to the disk. `error` is the error of the operating system."""

    def __init__(self, error: OSError, path: Path) -> None:
        super().__init__(f"The label was not saved: {reason(error, 'write', path)}.")
        self.error = error


class Line(BaseModel):
    """A label that a reviewer gave to a photograph, or the withdrawal of a label (`label` is None).

    `digest` is the SHA-256 of the photograph's file, and `name` is the photograph's path in the reviewed folder. `why`
    says why the photograph was shown. `probability` is the chance of the photograph among all photographs that were
    left at the draw; it is None if no draw chose the photograph. `stamp` holds size and time of modification of the
    file, so that an unchanged file isn't read again.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    digest: str = Field(pattern="^[0-9a-f]{64}$")
    name: str
    vase: str
    question: str
    label: str | None
    who: str
    when: AwareDatetime
    milliseconds: int | None = Field(None, ge=0)
    why: str = ""
    probability: float | None = Field(None, gt=0, le=1)
    stamp: str = ""


class LabelFile:
    """The file `path` with the labels of one question. Several processes may append to it at the same time.

    The lines are on the disk when `append` returns. `torn` counts truncated lines. Such a line comes from a process
    that was killed, and it holds no label. Raise ConfigError if the file holds labels of a different question, and
    DataError if it is not a file of labels.
    """

    def __init__(self, path: Path, question: Question) -> None:
        self.path, self.question = path, question
        self.lines: list[Line] = []
        self.torn = 0
        self._read = self._number = 0
        if path.exists():
            self.refresh()

    def refresh(self) -> None:
        """Read the lines that this process and other processes appended. An incomplete last line is left for later.

        If a line is invalid, an error is raised, and none of the new lines is added.
        """
        with self.path.open("rb") as stream:
            _lock(stream.fileno(), fcntl.LOCK_SH)  # don't read lines that a failed append is about to remove
            stream.seek(self._read)
            new = stream.read()
        whole, newline, last = new.rpartition(b"\n")
        if not _is_torn(last):
            whole, newline, last = new, b"", b""
        texts = whole.split(b"\n") if whole else []
        lines = [self._parsed(text, self._number + place) for place, text in enumerate(texts, 1) if text.strip()]
        self._read += len(whole) + len(newline)
        self._number += len(texts)
        self.torn += lines.count(None)
        self.lines += [line for line in lines if line is not None]

    def append(self, lines: Iterable[Line]) -> None:
        """Append lines, and sync the file. If this fails, remove the written part and raise NotSaved.

        Without a file lock, the written part is not removed.
        """
        try:
            self._append(lines)
        except OSError as error:
            raise NotSaved(error, self.path) from error

    def _append(self, lines: Iterable[Line]) -> None:
        text = "".join(line.model_dump_json() + "\n" for line in lines).encode()
        with self._locked() as (file, alone):
            size = os.fstat(file).st_size
            try:
                _write_all(file, _end_of_last_line(file, size) + text)
                os.fsync(file)
            except BaseException:
                if alone:  # without the lock, a different process may have appended lines meanwhile
                    with contextlib.suppress(OSError):
                        os.ftruncate(file, size)
                raise

    def moment(self) -> datetime:
        """Return the current time, or a time just after the latest line if the clock was set back."""
        latest = max((line.when for line in self.lines), default=datetime.min.replace(tzinfo=UTC))
        return max(datetime.now(UTC), latest + timedelta(milliseconds=1))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[tuple[int, bool]]:
        """Open the file for appending and lock it. Yield the file, and whether the lock was possible."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            yield file, _lock(file, fcntl.LOCK_EX)
            if new:
                _sync_folder(self.path.parent)
        finally:
            os.close(file)

    def _parsed(self, text: bytes, number: int) -> Line | None:
        """Return the label in a line, or None if the line is truncated.

        Raise DataError if the line is invalid, and ConfigError if it answers a different question.
        """
        where = f"{self.path}, line {number}"
        if _is_torn(text):
            return None
        try:
            line = Line.model_validate_json(text)
        except ValidationError as error:
            raise DataError(
                f"{where} is not a label ({first_line(error.errors()[0]['msg'])}); move the file away, or give another"
                " folder as --into."
            ) from None
        self._refuse_other(line, where)
        return line

    def _refuse_other(self, line: Line, where: str) -> None:
        if line.question != self.question.name:
            raise ConfigError(
                f"{where} answers the question '{line.question}', but you asked '{self.question.name}'; give another"
                f" folder as --into, or --question {line.question}."
            )
        if line.label is not None and line.label not in self.question.labels:
            raise DataError(f"{where}: there is no label '{line.label}'; use {', '.join(self.question.labels)}.")


def reason(error: OSError | VaseError, doing: str, what: object) -> str:
    """Return why an operation failed, in words that can end a sentence.

    `doing` is a verb such as "read", and `what` is its object.
    """
    if isinstance(error, VaseError):
        text = str(error)
    else:
        text = str(storage_error(error, doing, str(what)) or f"could not {doing} {what} ({error.strerror or error})")
    return text[:1].lower() + text[1:].rstrip(".")


def standing(lines: Iterable[Line]) -> dict[tuple[str, str, str], Line]:
    """Return (reviewer, digest, name) -> the reviewer's current label of the photograph.

    The current label is the latest one that the reviewer didn't withdraw. A line that occurs twice, because two files
    were concatenated, counts once.
    """
    given: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for line in sorted(dict.fromkeys(lines), key=lambda line: line.when):
        stack = given[line.who, line.digest, line.name]
        if line.label is not None:
            stack.append(line)
        elif stack:
            stack.pop()
    return {key: stack[-1] for key, stack in given.items() if stack}


def by_picture(stand: Mapping[tuple[str, str, str], Line]) -> dict[str, dict[str, Line]]:
    """Return digest -> reviewer -> the reviewer's latest label of the picture. Copies of a picture count once."""
    found: dict[str, dict[str, Line]] = defaultdict(dict)
    for (who, digest, _), line in sorted(stand.items(), key=lambda item: item[1].when):
        found[digest][who] = line
    return dict(found)


def _lock(file: int, how: int) -> bool:
    """Lock an open file, and wait if necessary. Return False if the file system has no locks (some network shares)."""
    try:
        fcntl.flock(file, how)
    except OSError:
        return False
    return True


def _end_of_last_line(file: int, size: int) -> bytes:
    """Return a newline if the last line is truncated, so that the next label begins a new line; else b''."""
    return b"\n" if size and os.pread(file, 1, size - 1) != b"\n" else b""


def _write_all(file: int, content: bytes) -> None:
    """Write the whole content. One call of os.write may write only a part of it."""
    while content:
        content = content[os.write(file, content) :]


def _is_torn(text: bytes) -> bool:
    """Return whether a text is a truncated line.

    Null bytes at both ends are ignored, because some file systems leave null bytes after a power loss.
    """
    bare = text.strip(b"\0")
    if not (bare.startswith(_BEGIN) or _BEGIN.startswith(bare)):
        return False
    try:
        json.loads(bare)
    except ValueError:
        return True
    return False


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems can't sync a folder
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
