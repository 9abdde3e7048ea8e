"""What people said about the photographs of a folder, and what follows from it on the disk."""

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
MOST_FAILURES = 3  # copies that may fail before the others wait for the next label
Settle = Callable[[Path, Photograph, str, bool | None], None]


class Record:
    """The labels of `photographs` in the folder `into`.

    Labels of quality also place the photographs in 0/ and 1/; `settle` does this for one photograph. Raise ConfigError
    if `into` holds labels of another question or photographs of somebody else, and DataError for a damaged file of
    labels.
    """

    def __init__(
        self, into: Path, question: Question, photographs: Sequence[Photograph], settle: Settle = placing.settle
    ) -> None:
        placing.refuse_foreign(into)
        self._settle = settle
        self.into, self.question, self.photographs = into, question, photographs
        self.file = LabelFile(into / FILE, question)
        self._by_name = {photograph.name: photograph for photograph in photographs}
        self._digests: dict[tuple[str, str], str] = {}  # by name and stamp
        self._first: dict[str, Photograph] = {}  # the photograph that stands for all copies of a file
        self._here: set[tuple[str, str]] = set()  # name and digest of the photographs that have lines
        self._followed = 0
        self._unread: dict[Line, str] = {}  # lines whose photograph can't be read now, and why
        self._unplaced: dict[str, str] = {}  # digests of photographs that aren't in 0/ or 1/ yet, and why
        self._standing: dict[tuple[str, str, str], Line] = {}
        self._given: dict[str, dict[str, Line]] = {}  # the standing labels by digest and reviewer
        self.follow()

    def prepare(self) -> None:
        """Make the file of labels, so that a folder that can't be written to is found before the first label."""
        try:
            self.file.append([])
        except NotSaved as failed:
            error = failed.error
            why = f"{self.into} can't be written ({error.strerror}); give another folder as --into."
            raise storage_error(error, "write", self.into) or ConfigError(why) from None

    def follow(self) -> None:
        """Place the photographs of all lines that are new, whoever wrote them.

        A photograph that can't be read or copied now keeps no other from its place. `problems` tells of it, and the
        next call tries it again.
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
        """Return what didn't work with labelled photographs so far, in sentences."""
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
        """Append a label of a photograph, or take the reviewer's latest label of it back (`label` is None)."""
        self._append([self._line(photograph, label, who, shown, milliseconds, self.file.moment())])

    def take_back(self, line: Line) -> None:
        """Append that a label is taken back. The photograph isn't read, so that it may be gone."""
        self._append([line.model_copy(update={"label": None, "when": self.file.moment(), "milliseconds": None})])

    def mine(self, who: str) -> dict[str, Line]:
        """Return the labels of a reviewer that stand, by the photograph's name, in the order in which they were given.

        Labels of files that have changed since, or that aren't here, are left out.
        """
        found = {line.name: line for line in self._standing.values() if line.who == who and self._is_here(line)}
        return dict(sorted(found.items(), key=lambda item: item[1].when))

    def reviewers(self) -> list[str]:
        """Return the reviewers who have labels that stand."""
        return sorted({who for who, _, _ in self._standing})

    def given(self) -> Mapping[str, Mapping[str, Line]]:
        """Return the labels that stand by the photograph's digest and the reviewer."""
        return self._given

    def elsewhere(self) -> int:
        """Return the number of labels that are of other photographs than those of the folder."""
        return sum(not self._is_here(line) for line in self._standing.values())

    def agreements(self) -> list[Agreement]:
        """Return how far reviewers agree, for each two of them."""
        return agreements(self._given)

    def counts(self) -> dict[str, int]:
        """Return the number of photographs by what all reviewers say: yes, no, unsure, and disputed."""
        counts = dict.fromkeys((self.question.yes, self.question.no, "unsure", "disputed"), 0)
        for given in self._given.values():
            said = answer(given, self.question)
            unsure = "disputed" if disputed(given, self.question) else "unsure"
            counts[unsure if said is None else self.question.yes if said else self.question.no] += 1
        return counts

    def answered(self) -> dict[bool, set[str]]:
        """Return the vases of the photographs with a clear answer, by the answer."""
        vases: dict[bool, set[str]] = {True: set(), False: set()}
        for given in self._given.values():
            said = answer(given, self.question)
            if said is not None:
                vases[said].add(next(iter(given.values())).vase)
        return vases

    def merge(self, path: Path) -> int:
        """Take in the labels of another labels.jsonl, and return how many were new."""
        known = set(self.file.lines)
        return self._append(line for line in LabelFile(path, self.question).lines if line not in known)

    def take_in(self, tasks: Sequence[label_studio.Task]) -> tuple[int, int]:
        """Take in the labels of Label Studio.

        Return how many were new, and how many annotated tasks have no photograph here.
        """
        given, missing = label_studio.labels_in(tasks, self.photographs, self.question)
        known: set[tuple[str, str, str | None, datetime | None]] = set()
        for line in self.file.lines:  # a label without a time is known if the same words were taken in before
            known |= {(line.name, line.who, line.label, when) for when in (line.when, None)}
        lines = [
            self._line(one.photograph, one.label, one.who, WHY, one.milliseconds, one.when or self.file.moment())
            for one in given
            if (one.photograph.name, one.who, one.label, one.when) not in known
        ]
        return self._append(lines), missing

    def give_out(self, path: Path, tasks: Sequence[label_studio.Task]) -> None:
        """Write Label Studio's JSON with all labels that stand."""
        lines = [line for line in self._standing.values() if self._is_here(line)]
        label_studio.write_tasks(path, tasks, lines, self.photographs, self.question)

    def _found(self, lines: Iterable[Line]) -> set[str]:
        """Look for the photographs of lines, and return the digests of those that are here."""
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
        """Place the photographs that aren't in their place yet. Those that fail are tried last the next time."""
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
        """Look for a line's photograph, and return whether it has the content that was labelled."""
        photograph = self._by_name.get(line.name)
        if photograph is None:
            return False
        try:
            stamp = photograph.stamp
        except (FileNotFoundError, NotADirectoryError):
            return (line.name, line.digest) in self._here  # a label that is taken back, of a photograph that is gone
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
