"""What one reviewer sees and does. The page asks for the state, and sends labels and undo."""

from __future__ import annotations

import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from pydantic import BaseModel

from vasevqa.curation.images import Unreadable
from vasevqa.errors import VaseError
from vasevqa.review.choosing import Pool, Scores, draw, number_of
from vasevqa.review.gain import gains
from vasevqa.review.labels import Line
from vasevqa.review.pictures import Pictures, PictureSource
from vasevqa.review.record import Record, Shown

MOST_VIEWS = 60  # of one vase that stand beside the picture


class NotShown(VaseError):
    """A label of a photograph that was not shown, or a word that is no label."""

    exit_code = 2


class View(BaseModel):
    """A photograph of the vase that is shown: its number, its name, and the reviewer's label."""

    picture: int
    name: str
    label: str | None


class State(BaseModel):
    """All that the page shows. `picture` is the photograph to label, and None at the end. `after` probably follows."""

    session: str
    question: str
    yes: str
    no: str
    who: str
    picture: int | None = None
    name: str = ""
    vase: str = ""
    views: list[View] = []
    after: int | None = None
    done: int
    total: int
    counts: dict[str, int]
    undo: str | None  # the name of the photograph whose label would be taken back
    gains: list[str]
    unreadable: int


class Session:
    """The session of the reviewer `who`. Threads may use it at the same time.

    The order of the photographs follows from `seed`, the question and the labels so far, so that it is the same after a
    restart, and for each reviewer with the same seed.
    """

    pictures: PictureSource

    def __init__(self, record: Record, who: str, scores: Scores | None = None, seed: int = 0) -> None:
        self.record, self.who, self.scores, self.seed = record, who, scores, seed
        self.pictures = Pictures(record.photographs)
        self.unreadable: dict[int, str] = {}
        self._name = secrets.token_hex(4)
        self._lock = threading.RLock()
        self._shown: dict[int, Shown] = {}
        self._current: int | None = None
        self._numbers = {photograph.name: index for index, photograph in enumerate(record.photographs)}
        self._views: dict[str, list[int]] = defaultdict(list)
        for index, photograph in enumerate(record.photographs):
            self._views[photograph.vase].append(index)

    def state(self) -> State:
        """Return what the page shows now."""
        with self._lock:
            self.record.follow()
            mine = self.record.mine(self.who)
            if self._current is None:
                self._current = self._next(mine)
            state = State(
                session=self._name,
                question=self.record.question.asks,
                yes=self.record.question.yes,
                no=self.record.question.no,
                who=self.who,
                done=len(mine),
                total=len(self.record.photographs) - len(self.unreadable),
                counts=dict(Counter(line.label or "" for line in mine.values())),
                undo=next(reversed(mine), None),
                gains=[*gains(self.record), *(one.said() for one in self.record.agreements())],
                unreadable=len(self.unreadable),
            )
            return state if self._current is None else self._with_picture(state, self._current, mine)

    def label(self, index: int, label: str, milliseconds: int | None) -> State:
        """Label a photograph that was shown. Another tab may have labelled it too; the later label counts."""
        with self._lock:
            if index not in self._shown or label not in self.record.question.labels:
                raise NotShown("The photograph was not shown, or the word is no label; load the page again.")
            try:
                self.record.say(self.record.photographs[index], label, self.who, self._shown[index], milliseconds)
            except FileNotFoundError:  # removed after it was shown
                self.unreadable[index] = "the file vanished"
            if index == self._current:
                self._current = None
            return self.state()

    def undo(self) -> State:
        """Take the reviewer's latest label back, and show the photograph again."""
        with self._lock:
            name, line = next(reversed(self.record.mine(self.who).items()), (None, None))
            if name is not None and line is not None:
                index, shown = self._numbers[name], Shown(line.why, line.probability)
                self.record.say(self.record.photographs[index], None, self.who, shown, None)
                self._current, self._shown[index] = index, shown
            return self.state()

    def _next(self, mine: Mapping[str, Line]) -> int | None:
        """Draw a photograph that can be decoded. Those that can't be decoded are set aside."""
        while (index := self._drawn(mine, keep=True)) is not None:
            try:
                self.pictures.large(index)
            except Unreadable as error:
                self.unreadable[index] = error.reason
            else:
                return index
        return None

    def _drawn(self, mine: Collection[str], keep: bool) -> int | None:
        """Draw one of the photographs that are left after the labels `mine`. `keep` says that it will be shown."""
        photographs = self.record.photographs
        left = [
            index
            for index, photograph in enumerate(photographs)
            if photograph.name not in mine and index not in self.unreadable
        ]
        if not left:
            return None
        pool = Pool(
            [photographs[index].name for index in left],
            [photographs[index].vase for index in left],
            Counter(photographs[self._numbers[name]].vase for name in mine),
        )
        drawn = draw(pool, self.scores, number_of(self.seed, self.record.question.name, len(mine)))
        if keep:
            self._shown[left[drawn.place]] = Shown(drawn.why, drawn.probability)
        return left[drawn.place]

    def _with_picture(self, state: State, index: int, mine: Mapping[str, Line]) -> State:
        photographs = self.record.photographs
        photograph = photographs[index]
        views = [
            View(
                picture=one,
                name=photographs[one].name,
                label=line.label if (line := mine.get(photographs[one].name)) else None,
            )
            for one in self._views[photograph.vase]
            if one not in self.unreadable
        ]
        beside = {"views": views[:MOST_VIEWS], "after": self._drawn({*mine, photograph.name}, keep=False)}
        return state.model_copy(update={"picture": index, "name": photograph.name, "vase": photograph.vase, **beside})
