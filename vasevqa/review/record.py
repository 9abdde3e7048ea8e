"""Keep the labels of the photographs in a folder, and the copies of labelled photographs in 0/ and 1/."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vasevqa.errors import ConfigError, storage_error
from vasevqa.review import label_studio, placing
from vasevqa.review.agreement import Agreement, agreements, answer, disputed
from vasevqa.review.labels import FILE, LabelFile, Line, NotSaved, by_picture, reason, standing
from vasevqa.review.photographs import Photograph
from vasevqa.review.questions import QUALITY, Question


@dataclass(frozen=True)
class Shown:
    """Why a photograph was shown, and the probability with which it was drawn (None if no draw chose it)."""

    why: str
    probability: float | None = None


WHY = Shown("Label Studio")
MOST_FAILURES = 3  # failed copies after which the remaining copies wait for the next label
Settle = Callable[[Path, Photograph, str, bool | None], None]


class Record:
    """The labels of `photographs`, saved in the folder `into`.

    For the question `quality`, labelled photographs are also copied to 0/ and 1/. `settle` is the function that copies
    one photograph. Raise ConfigError if `into` holds labels of a different question, or photographs that no review
    copied there. Raise DataError if the file of labels is damaged.
    """

    def __init__(
        self, into: Path, question: Question, photographs: Sequence[Photograph], settle: Settle = placing.settle
    ) -> None:
        placing.refuse_foreign(into)
        self._settle = settle
        self.into, self.question, self.photographs = into, question, photographs
        self.file = LabelFile(into / FILE, question)
        self._by_name = {photograph.name: photograph for photograph in photographs}
        self._digests: dict[tuple[str, str], str] = {}  # (name, stamp) -> digest
        self._first: dict[str, Photograph] = {}  # digest -> the first photograph with this content
        self._here: set[tuple[str, str]] = set()  # name and digest of the labelled photographs that were found
        self._followed = 0
        self._unread: dict[Line, str] = {}  # lines whose photograph can't be read now -> reason
        self._unplaced: dict[str, str] = {}  # digests of photographs that are not copied yet -> reason
        self._standing: dict[tuple[str, str, str], Line] = {}
        self._given: dict[str, dict[str, Line]] = {}  # digest -> reviewer -> current label
        self.follow()

    def prepare(self) -> None:
        """Create the file of labels, so that a folder without write access is found before the first label."""
        try:
            self.file.append([])
        except NotSaved as failed:
            error = failed.error
            why = f"{self.into} can't be written ({error.strerror}); give another folder as --into."
            raise storage_error(error, "write", self.into) or ConfigError(why) from None

    def follow(self) -> None:
        """Read the new lines of the file, including those of other processes. For quality, copy labelled photographs.

        If a photograph can't be read or copied now, the remaining photographs are still tried. After MOST_FAILURES
        failed copies, nothing more is copied in this call. `problems` reports the failures, and the next call tries
        these photographs again.
        """
        if self.file.path.exists():
            self.file.refresh()
        new = self.file.lines[self._followed :]
        self._followed += len(new)
        found = self._found([*self._unread, *new])
        if new or found:
            self._standing = standing(self.file.lines)
            self._given = by_picture(self._standing)
        if self.question is QUALITY:
            self._unplaced = {**dict.fromkeys(sorted(found), ""), **self._unplaced}
            self._place()

    def problems(self) -> list[str]:
        """Return sentences about labelled photographs that could not be read or copied so far."""
        told = []
        if self._unplaced:
            why = next(filter(None, self._unplaced.values()), "")
            told.append(
                f"{_count(self._unplaced, 'labelled photograph')} not in 0/ or 1/ of {self.into} yet: {why}. The"
                " labels are saved, and each further label tries again."
            )
        if self._unread:
            why = next(iter(self._unread.values()))
            told.append(f"{_count(self._unread, 'saved label')} left out for now: {why}.")
        return told

    def say(self, photograph: Photograph, label: str | None, who: str, shown: Shown, milliseconds: int | None) -> None:
        """Append a label of a photograph. If `label` is None, withdraw the reviewer's latest label of it."""
        self._append([self._line(photograph, label, who, shown, milliseconds, self.file.moment())])

    def take_back(self, line: Line) -> None:
        """Append the withdrawal of a label. The photograph isn't read, so it may be gone."""
        self._append([line.model_copy(update={"label": None, "when": self.file.moment(), "milliseconds": None})])

    def mine(self, who: str) -> dict[str, Line]:
        """Return a reviewer's current labels by photograph name, in the order in which they were given.

        A label is left out if the photograph is not in the folder, or if its file has changed since.
        """
        found = {line.name: line for line in self._standing.values() if line.who == who and self._is_here(line)}
        return dict(sorted(found.items(), key=lambda item: item[1].when))

    def reviewers(self) -> list[str]:
        """Return the names of the reviewers with current labels."""
        return sorted({who for who, _, _ in self._standing})

    def given(self) -> Mapping[str, Mapping[str, Line]]:
        """Return the current labels by the photograph's digest and the reviewer."""
        return self._given

    def elsewhere(self) -> int:
        """Return the number of current labels whose photograph is not in the folder or has changed."""
        return sum(not self._is_here(line) for line in self._standing.values())

    def agreements(self) -> list[Agreement]:
        """Return the agreement of each pair of reviewers."""
        return agreements(self._given)

    def counts(self) -> dict[str, int]:
        """Return the number of photographs by the joint answer of all reviewers: yes, no, unsure, and disputed."""
        counts = dict.fromkeys((self.question.yes, self.question.no, "unsure", "disputed"), 0)
        for given in self._given.values():
            said = answer(given, self.question)
            unsure = "disputed" if disputed(given, self.question) else "unsure"
            counts[unsure if said is None else self.question.yes if said else self.question.no] += 1
        return counts

    def answered(self) -> dict[bool, set[str]]:
        """Return the vases that have photographs with a clear answer, by the answer (True for yes)."""
        vases: dict[bool, set[str]] = {True: set(), False: set()}
        for given in self._given.values():
            said = answer(given, self.question)
            if said is not None:
                vases[said].add(next(iter(given.values())).vase)
        return vases

    def merge(self, path: Path) -> int:
        """Add the labels that only the labels.jsonl at `path` has, and return their number."""
        known = set(self.file.lines)
        return self._append(line for line in LabelFile(path, self.question).lines if line not in known)

    def take_in(self, tasks: Sequence[label_studio.Task]) -> tuple[int, int]:
        """Add the labels of Label Studio's tasks.

        Return the number of new labels, and the number of annotated tasks whose photograph is not in the folder.
        """
        given, missing = label_studio.labels_in(tasks, self.photographs, self.question)
        known: set[tuple[str, str, str | None, datetime | None]] = set()
        for line in self.file.lines:  # a label without a time is known if the same label was added before
            known |= {(line.name, line.who, line.label, when) for when in (line.when, None)}
        lines = [
            self._line(one.photograph, one.label, one.who, WHY, one.milliseconds, one.when or self.file.moment())
            for one in given
            if (one.photograph.name, one.who, one.label, one.when) not in known
        ]
        return self._append(lines), missing

    def give_out(self, path: Path, tasks: Sequence[label_studio.Task]) -> None:
        """Write Label Studio's JSON with all current labels of the photographs in the folder."""
        lines = [line for line in self._standing.values() if self._is_here(line)]
        label_studio.write_tasks(path, tasks, lines, self.photographs, self.question)

    def _found(self, lines: Iterable[Line]) -> set[str]:
        """Look for the photograph of each line, and return the digests of the photographs that were found."""
        found = set()
        self._unread = {}
        for line in lines:
            try:
                if self._find(line):
                    found.add(line.digest)
            except OSError as error:
                self._unread[line] = reason(error, "read", self._by_name[line.name].path)
        return found

    def _place(self) -> None:
        """Copy the photographs that are not in 0/ or 1/ yet. If a copy fails, the next call tries it last."""
        failures = 0
        for digest in list(self._unplaced):
            said = answer(self._given.get(digest, {}), self.question)
            try:
                self._settle(self.into, self._first[digest], digest, said)
            except (OSError, ConfigError) as error:
                del self._unplaced[digest]
                self._unplaced[digest] = reason(error, "copy", f"{self._first[digest].path} to {self.into}")
                failures += 1
                if failures == MOST_FAILURES:
                    break
            else:
                del self._unplaced[digest]

    def _append(self, lines: Iterable[Line]) -> int:
        added = list(lines)
        if added:
            self.file.append(added)
            self.follow()
        return len(added)

    def _line(
        self, photograph: Photograph, label: str | None, who: str, shown: Shown, spent: int | None, when: datetime
    ) -> Line:
        stamp = photograph.stamp
        return Line(
            digest=self._digest(photograph, stamp),
            name=photograph.name,
            vase=photograph.vase,
            question=self.question.name,
            label=label,
            who=who,
            when=when,
            milliseconds=spent,
            why=shown.why,
            probability=shown.probability,
            stamp=stamp,
        )

    def _digest(self, photograph: Photograph, stamp: str) -> str:
        key = (photograph.name, stamp)
        if key not in self._digests:
            self._digests[key] = photograph.digest()
        return self._digests[key]

    def _find(self, line: Line) -> bool:
        """Return whether the folder has the photograph of a line, with the content that was labelled."""
        photograph = self._by_name.get(line.name)
        if photograph is None:
            return False
        try:
            stamp = photograph.stamp
        except (FileNotFoundError, NotADirectoryError):
            return (line.name, line.digest) in self._here  # the photograph is gone, and the line withdraws its label
        if line.stamp == stamp:  # an unchanged file isn't read again
            self._digests.setdefault((line.name, stamp), line.digest)
        if self._digest(photograph, stamp) != line.digest:
            return False
        self._here.add((line.name, line.digest))
        self._first.setdefault(line.digest, photograph)
        return True

    def _is_here(self, line: Line) -> bool:
        return (line.name, line.digest) in self._here


def _count(things: Sized, what: str) -> str:
    return f"{len(things)} {what}{'s are' if len(things) != 1 else ' is'}"
