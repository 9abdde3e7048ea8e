"""The session of one reviewer. The page requests its state, and sends labels and undo requests."""

from __future__ import annotations

import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from vasevqa.curation.images import Unreadable
from vasevqa.errors import VaseError
from vasevqa.review.calibration import AIM, aim_of
from vasevqa.review.choosing import Pool, Scores, draw, number_of
from vasevqa.review.gain import gains
from vasevqa.review.labels import Line, reason
from vasevqa.review.pictures import Pictures, PictureSource
from vasevqa.review.record import Record, Shown

MOST_VIEWS = 60  # maximum number of views of the vase beside the picture
MOST_FAILURES = 3  # storage errors after which a request is answered without a photograph


class NotShown(VaseError):
    """The page sent a label for a photograph that was not shown, or a word that is not a label."""

    exit_code = 2


class View(BaseModel):
    """A view of the vase that is shown: the photograph's number and name, and the reviewer's label."""

    picture: int
    name: str
    label: str | None


class State(BaseModel):
    """All that the page shows.

    `picture` is the number of the photograph to label. It is None if no photograph is left, or if none can be read now.
    `after` is the number of the photograph that will probably come next. `unreadable` counts the photographs that can't
    be decoded. `waiting` counts the photographs that the storage didn't deliver; they are tried again after all other
    photographs.
    """

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
    undo: str | None  # the name of the photograph whose label would be withdrawn
    gains: list[str]
    unreadable: int
    waiting: int
    problems: list[str]


class Session:
    """The session of the reviewer `who`. Several threads may use it at the same time.

    The order of the photographs depends on `seed`, the question, the scores and the reviewer's labels so far. A restart
    therefore doesn't change the order. Reviewers with the same seed and the same labels get the same order.
    """

    pictures: PictureSource

    def __init__(
        self,
        record: Record,
        who: str,
        scores: Scores | None = None,
        seed: int = 0,
        groups: Mapping[str, tuple[int, int]] | None = None,
        aim: float = AIM,
    ) -> None:
        self.record, self.who, self.scores, self.seed = record, who, scores, seed
        self.groups, self.aim = groups or {}, aim
        self.pictures = Pictures(record.photographs)
        self.unreadable: dict[int, str] = {}
        self._clear = (record.question.yes, record.question.no)
        self.waiting: dict[int, str] = {}
        self._name = secrets.token_hex(4)
        self._lock = threading.RLock()
        self._shown: dict[int, Shown] = {}
        self._current: int | None = None
        self._numbers = {photograph.name: index for index, photograph in enumerate(record.photographs)}
        self._views: dict[str, list[int]] = defaultdict(list)
        for index, photograph in enumerate(record.photographs):
            self._views[photograph.vase].append(index)

    def state(self, problems: Sequence[str] = ()) -> State:
        """Return the state of the page. `problems` holds the problems of the current request."""
        with self._lock:
            self.record.follow()
            mine = self.record.mine(self.who)
            if self._current is None:
                self._current = self._next(mine)
            waiting = [why for index, why in self.waiting.items() if self.record.photographs[index].name not in mine]
            if self._current is None and waiting:
                none = f"No photograph can be read now: {waiting[-1]}. Load the page again later; no label is lost."
                problems = [*problems, none]
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
                gains=[*self._gains(), *(one.said() for one in self.record.agreements())],
                unreadable=len(self.unreadable),
                waiting=len(waiting),
                problems=[*problems, *self.record.problems()],
            )
            return state if self._current is None else self._with_picture(state, self._current, mine)

    def _gains(self) -> list[str]:
        """Return sentences about what the labels are enough for.

        With scores, a further sentence may say what the labels show about the step's threshold.
        """
        shown = aim_of(self.record, self.scores, self.aim) if self.scores is not None else None
        return [*gains(self.record), *([shown] if shown else [])]

    def picture(self, size: str, index: int) -> bytes:
        """Return a photograph as JPEG. `size` is `large` or `small`.

        Raise Unreadable, VaseError or OSError if the photograph can't be read. Such a photograph is set aside, and the
        next state shows a different one.
        """
        try:
            return self.pictures.large(index) if size == "large" else self.pictures.small(index)
        except (Unreadable, VaseError, OSError) as error:
            with self._lock:
                self._set_aside(index, error)
            raise

    def label(self, index: int, label: str, milliseconds: int | None) -> State:
        """Save a label of a photograph that was shown.

        If two tabs label the same photograph, the later label counts. Raise NotShown if the photograph was not shown,
        or if the word is not a label.
        """
        with self._lock:
            if index not in self._shown or label not in self.record.question.labels:
                raise NotShown("The photograph was not shown, or the word is not a label; load the page again.")
            problems = []
            try:
                self.record.say(self.record.photographs[index], label, self.who, self._shown[index], milliseconds)
            except FileNotFoundError:  # removed after it was shown
                self._set_aside(index, Unreadable("the file vanished"))
            except OSError as error:
                self._set_aside(index, error)
                why = self.waiting[index]
                problems.append(f"The label was not saved, and the photograph comes again later: {why}.")
            if index == self._current:
                self._current = None
            return self.state(problems)

    def undo(self) -> State:
        """Withdraw the reviewer's latest label, and show its photograph again if the photograph can be read."""
        with self._lock:
            name, line = next(reversed(self.record.mine(self.who).items()), (None, None))
            if name is not None and line is not None:
                index = self._numbers[name]
                self.record.take_back(line)
                self._shown[index] = Shown(line.why, line.probability)
                self._current = index if self._is_readable(index) else None
            return self.state()

    def _next(self, mine: Mapping[str, Line]) -> int | None:
        """Draw a photograph that can be read; None if there is none. Photographs that can't be read are set aside."""
        labels = {name: line.label for name, line in mine.items()}
        before = len(self.waiting)
        while len(self.waiting) < before + MOST_FAILURES:
            index = self._drawn(labels, keep=True)
            if index is None and self.waiting and len(self.waiting) == before:
                self.waiting.clear()  # only waiting photographs are left: try them again
                before = 0
            elif index is None or self._is_readable(index):
                return index
        return None

    def _is_readable(self, index: int) -> bool:
        try:
            self.pictures.large(index)
        except (Unreadable, VaseError, OSError) as error:
            self._set_aside(index, error)
            return False
        return True

    def _set_aside(self, index: int, error: Unreadable | VaseError | OSError) -> None:
        """Set a photograph aside: for the whole session if it can't be decoded, or for now if the storage failed."""
        if isinstance(error, Unreadable):
            self.unreadable[index] = error.reason
        else:
            self.waiting[index] = reason(error, "read", self.record.photographs[index].path)
        if index == self._current:
            self._current = None

    def _drawn(self, mine: Mapping[str, str | None], keep: bool) -> int | None:
        """Draw a photograph without a label in `mine`, and return its number; None if no photograph is left.

        If `keep` is true, the photograph will be shown, and its draw is recorded. In `mine`, the label None stands for
        a label that is still to come.
        """
        photographs = self.record.photographs
        left = [
            index
            for index, photograph in enumerate(photographs)
            if photograph.name not in mine and index not in self.unreadable and index not in self.waiting
        ]
        if not left:
            return None
        pool = Pool(
            [photographs[index].name for index in left],
            [photographs[index].vase for index in left],
            Counter(photographs[self._numbers[name]].vase for name in mine),
            {name: label == self.record.question.yes for name, label in mine.items() if label in self._clear},
            self.groups,
            frozenset(self.groups[name][0] for name in mine if name in self.groups),
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
        labels = {name: line.label for name, line in mine.items()} | {photograph.name: None}
        beside = {"views": views[:MOST_VIEWS], "after": self._drawn(labels, keep=False)}
        return state.model_copy(update={"picture": index, "name": photograph.name, "vase": photograph.vase, **beside})
