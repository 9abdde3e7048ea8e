"""Review photographs on the volume of a cluster. This module runs on the reviewer's machine.

The pictures come from the volume. Labels are first saved in labels.jsonl on this machine. `give` then sends the labels
to the volume.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.errors import ClusterError
from vasevqa.review.choosing import Scores
from vasevqa.review.fetching import Distant, DistantPictures, Want
from vasevqa.review.labels import FILE, LabelFile, Line
from vasevqa.review.messages import Asked, Given, Groups, Head, Known, Listed, Photographs, Values, parsed
from vasevqa.review.photographs import Photograph
from vasevqa.review.pictures import LARGE, SMALL
from vasevqa.review.questions import Question
from vasevqa.review.record import Record
from vasevqa.review.session import Session, State
from vasevqa.review.store import Store
from vasevqa.transfer.connection import Connection, Far, Kind, work_on

# The pod uses the image of a curation stage, because 16-bit scans need numpy and workbooks need openpyxl. The image of
# the launcher has neither. A node that ran the stage already has the image. A large scan takes gigabytes of memory, so
# the pod decodes one photograph at a time.
POD = Kind(
    purpose="review",
    image="select-views",
    resources={"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
    module="vasevqa.review",
    seconds=1800,
)
AHEAD = 8  # photographs whose pictures are fetched in advance
BESIDE = 12  # views of the same vase that are fetched with each of these photographs
AT_ONCE = 200  # names per request for digests


@dataclass
class Opened:
    """What the volume holds for a review: photographs, scores, groups, and the content of labels.jsonl (`labels`)."""

    head: Head
    photographs: list[Listed] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (group, rank), as in choosing.Pool
    labels: bytearray = field(default_factory=bytearray)

    @property
    def scores(self) -> Scores | None:
        """The scores of the step that decides the question; None without scores."""
        return self.head.threshold.scores(self.values) if self.head.threshold and self.values else None


def open_distant(far: Far, asked: Asked) -> Opened:
    """Ask the pod for the photographs, scores, groups and labels of a review.

    Raise ConfigError or DataError if the run or the table can't be used, and ClusterError if the pod can't answer.
    """
    found: list[Opened] = []
    work_on(far, lambda connection: found.append(_listed(connection, asked)))
    return found[-1]


def _listed(connection: Connection, asked: Asked) -> Opened:
    connection.ask(do="open", asked=asked.model_dump())
    opened: Opened | None = None
    for answer in connection.listed():
        if "head" in answer:
            opened = Opened(parsed(Head, answer["head"]))
        elif opened is None:
            break
        elif "photographs" in answer:
            opened.photographs += parsed(Photographs, answer).photographs
        elif "scores" in answer:
            opened.values |= parsed(Values, answer).scores
        elif "groups" in answer:
            opened.groups |= parsed(Groups, answer).groups
        elif "lines" in answer:
            opened.labels += answer["bytes"]
    if opened is None or len(opened.photographs) != opened.head.photographs:
        raise ClusterError("The pod did not list the photographs; check that the image has this version of vasevqa.")
    return opened


class DistantReview:
    """A review of a run's photographs on the volume. This machine saves the labels in the folder `into`.

    Raise ConfigError if `into` holds labels of a different question, or photographs that no review copied there.
    """

    def __init__(self, far: Far, asked: Asked, question: Question, into: Path, store: Store, opened: Opened) -> None:
        self.far, self.asked, self.store, self.opened = far, asked, store, opened
        self._stamps = {one.name: one.stamp for one in opened.photographs}
        self.photographs = [
            Distant(Path(opened.head.folder, one.name), one.name, one.vase, one.place, one.stamp, self._digest)
            for one in opened.photographs
        ]
        theirs = _lines(bytes(opened.labels), question)
        mine = LabelFile(into / FILE, question).lines
        self._learn(line.name for line in (*mine, *theirs) if line.stamp != self._stamps.get(line.name, line.stamp))
        self.record = Record(into, question, self.photographs, _placed_there)
        known = set(self.record.file.lines)
        self.new = [line for line in theirs if line not in known]

    def take(self) -> None:
        """Add the volume's labels that are missing on this machine."""
        if self.new:
            self.record.prepare()
            self.record.file.append(self.new)
            self.record.follow()

    def give(self) -> Given:
        """Send all labels to the volume, and return the pod's answer.

        No label on the volume is changed; only new labels are added. Raise ClusterError if the pod can't save them.
        """
        found: list[Given] = []
        text = "".join(line.model_dump_json() + "\n" for line in self.record.file.lines).encode()
        work_on(self.far, lambda connection: found.append(_given(connection, self.asked, text)))
        return found[-1]

    def pictures(self, tell: Callable[[str], None]) -> DistantPictures:
        """Return the source of the pictures. `tell` is called with sentences for the user."""
        return DistantPictures(self.photographs, self.opened.head.folder, self.far, self.store, tell)

    def _digest(self, name: str) -> str:
        """Return the digest of a photograph on the volume; '' if the photograph has changed or is gone."""
        self._learn([name])
        return self.store.digest(name, self._stamps[name]) or ""

    def _learn(self, names: Iterable[str]) -> None:
        """Ask the pod for the digests that the store doesn't know, and add them to the store."""
        unknown = [name for name in dict.fromkeys(names) if self.store.digest(name, self._stamps[name]) is None]
        if unknown:
            work_on(self.far, lambda connection: self._ask(connection, unknown))

    def _ask(self, connection: Connection, names: Sequence[str]) -> None:
        for begin in range(0, len(names), AT_ONCE):
            some = list(names[begin : begin + AT_ONCE])
            connection.ask(do="digests", folder=self.opened.head.folder, names=some)
            for answer in connection.listed():
                known = parsed(Known, answer.get("known"))
                if known.name in self._stamps and known.stamp is not None and known.digest is not None:
                    self.store.learn(known.name, known.stamp, known.digest)


class DistantSession(Session):
    """A session that fetches pictures before the page requests them."""

    pictures: DistantPictures
    _chain: Sequence[int] = ()  # numbers of the photographs that will probably be drawn next, in this order

    def state(self, problems: Sequence[str] = ()) -> State:
        """Return the state of the page, and start to fetch the pictures that will probably be shown next."""
        with self._lock:
            state = super().state(problems)
            if state.picture is not None:
                known = list(self._chain)
                known = known[known.index(state.picture) + 1 :] if state.picture in known else []
                if known[:1] != [state.after]:  # a label changed the order of the draws
                    known = [] if state.after is None else [state.after]
                self._chain = known
                given = {name: line.label for name, line in self.record.mine(self.who).items()}
                self.pictures.expect(self._coming(known, given | {state.name: None}))
            return state

    def _coming(self, known: list[int], given: dict[str, str | None]) -> Iterator[Want]:
        """Yield the pictures that will probably be needed next: drawn photographs and further views of their vases.

        `given` maps the names of labelled photographs to labels. The label None stands for a label that is still to
        come. The photographs in `known` aren't drawn again, because a draw among many photographs takes long. New draws
        are appended to `known`.
        """
        photographs = self.record.photographs
        for place in range(AHEAD):
            if place == len(known):
                index = self._drawn(given | {photographs[one].name: None for one in known}, keep=False)
                if index is None:
                    return
                known.append(index)
            yield known[place], LARGE
            for one in self._views[photographs[known[place]].vase][:BESIDE]:
                yield one, SMALL


def _lines(text: bytes, question: Question) -> list[Line]:
    """Return the labels in the content of a labels.jsonl."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_bytes(text)
        return LabelFile(path, question).lines


def _given(connection: Connection, asked: Asked, text: bytes) -> Given:
    connection.ask(text, do="give", asked=asked.model_dump(), length=len(text))
    return parsed(Given, connection.one().get("given"))


def _placed_there(into: Path, photograph: Photograph, digest: str, answer: bool | None) -> None:
    """Copy nothing on this machine: the pod copies labelled photographs to 0/ and 1/ on the volume."""
