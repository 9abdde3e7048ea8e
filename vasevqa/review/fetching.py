"""Fetch pictures of a volume's photographs: those that are asked for, and ahead those that will probably be drawn."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

from vasevqa.curation.images import Unreadable
from vasevqa.errors import ClusterError, ClusterUnreachable, ConnectionLost, VaseError
from vasevqa.review.messages import MOST_PICTURE, Picture, parsed
from vasevqa.review.photographs import Photograph
from vasevqa.review.pictures import LARGE, SMALL
from vasevqa.review.store import Store
from vasevqa.text import first_line, printable
from vasevqa.transfer.connection import Connection, Far

WORKERS = 2  # connections; the pod decodes one picture while another one is on the way
LONGEST_WAIT = 180.0  # seconds that the page waits for a picture; a pod that starts needs most of them
TRIES = 3  # lost connections in a row, after which a picture can't be had now
PAUSE = 1.0  # seconds before the next try; twice as long each time
KEPT = 64  # pictures in memory

Want = tuple[int, int]  # the photograph's number and the side of the picture


@dataclass(frozen=True)
class Distant(Photograph):
    """A photograph on the volume of a cluster. `path` is its path there; the file is never opened here."""

    seen: str = ""  # its stamp when it was listed
    ask: Callable[[str], str] = str  # its digest by its name

    @property
    def stamp(self) -> str:
        """The stamp that the photograph had when it was listed."""
        return self.seen

    def digest(self) -> str:
        """Return the SHA-256 of the photograph's file on the volume."""
        return self.ask(self.name)


class DistantPictures:
    """The pictures of `photographs` in `folder` of the volume behind `far`. They are kept in `store`.

    Threads may use it at the same time. `tell` gets sentences for the user.
    """

    def __init__(
        self, photographs: Sequence[Distant], folder: str, far: Far, store: Store, tell: Callable[[str], None]
    ) -> None:
        self._photographs, self._folder, self._far, self._store, self._tell = photographs, folder, far, store, tell
        self._changed = threading.Condition()
        self._urgent: deque[Want] = deque()
        self._ahead: Iterator[Want] = iter(())
        self._drawing = threading.Lock()  # of the thread that takes the next one of `_ahead`
        self._pending: dict[Want, Future[bytes]] = {}
        self._memory: OrderedDict[Want, bytes] = OrderedDict()
        self._over = self._full = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def large(self, index: int, /) -> bytes:
        """Return the picture that is judged. Wait until it is here."""
        return self._get((index, LARGE))

    def small(self, index: int, /) -> bytes:
        """Return the picture that stands beside it."""
        return self._get((index, SMALL))

    def expect(self, ahead: Iterator[Want]) -> None:
        """Fetch what will probably be asked for, in this order, whenever nothing is asked for. Replaces `ahead`."""
        with self._changed:
            self._ahead = ahead
            self._changed.notify_all()

    def close(self) -> None:
        """Fetch nothing any more."""
        with self._changed:
            self._over = True
            self._ahead = iter(())
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ClusterError("The review has ended."))
            self._changed.notify_all()

    def _get(self, want: Want) -> bytes:
        content = self._kept(want)
        if content is not None:
            return content
        with self._changed:
            future = self._pending.get(want)
            if future is None:
                future = self._pending[want] = Future()
                self._urgent.append(want)
                self._changed.notify()
        try:
            return future.result(LONGEST_WAIT)
        except NotYet:
            raise ConnectionLost(f"The picture did not come from the cluster within {LONGEST_WAIT:.0f} s.") from None

    def _kept(self, want: Want) -> bytes | None:
        with self._changed:
            if want in self._memory:
                self._memory.move_to_end(want)
                return self._memory[want]
        photograph = self._photographs[want[0]]
        digest = self._store.digest(photograph.name, photograph.stamp)
        try:
            return None if digest is None else self._store.get(digest, want[1])
        except (OSError, Unreadable):  # a store that can't be read: fetch the picture
            return None

    def _work(self) -> None:
        """Fetch pictures until the end, over one connection at a time."""
        line, losses = _Line(self._far), 0
        while (want := self._next()) is not None:
            error: BaseException | None = None
            content = b""
            try:
                content = self._fetch(line, want)
                losses = 0
            except (ConnectionLost, ClusterUnreachable) as lost:
                losses += 1
                if losses < TRIES and self._again(want, losses):
                    continue
                error, losses = _later(lost), 0
                self.expect(iter(()))  # wait until a picture is asked for
            except Exception as failure:
                error = failure
            self._done(want, content, error)
        line.close()

    def _next(self) -> Want | None:
        """Wait for something to fetch. None at the end."""
        while True:
            with self._changed:
                if self._over:
                    return None
                if self._urgent:
                    return self._urgent.popleft()
                ahead = self._ahead
            want = self._drawn(ahead)
            with self._changed:
                if want is not None and want not in self._pending and not self._over:
                    self._pending[want] = Future()
                    return want
                if want is None and not self._urgent and self._ahead is ahead and not self._over:
                    self._changed.wait()

    def _drawn(self, ahead: Iterator[Want]) -> Want | None:
        """Return the next picture of `ahead` that isn't here."""
        with self._drawing:
            for want in ahead:
                photograph = self._photographs[want[0]]
                digest = self._store.digest(photograph.name, photograph.stamp)
                if digest is None or not self._store.has(digest, want[1]):
                    return want
        return None

    def _again(self, want: Want, losses: int) -> bool:
        """Put a picture back after a lost connection, and wait. Return False at the end."""
        with self._changed:
            self._urgent.appendleft(want)
            self._changed.wait_for(lambda: self._over, PAUSE * 2 ** (losses - 1))
            return not self._over

    def _fetch(self, line: _Line, want: Want) -> bytes:
        photograph = self._photographs[want[0]]
        picture, content = line.picture(self._folder, photograph.name, want[1])
        if picture.stamp != photograph.stamp:
            raise Unreadable("the file changed on the volume during the review")
        self._keep(want, photograph, picture, content)
        return content

    def _keep(self, want: Want, photograph: Distant, picture: Picture, content: bytes) -> None:
        with self._changed:
            self._memory[want] = content
            while len(self._memory) > KEPT:
                self._memory.popitem(last=False)
        try:
            self._store.learn(photograph.name, photograph.stamp, picture.digest)
            self._store.put(picture.digest, want[1], content)
        except OSError as error:
            if not self._full:
                self._full = True
                self._tell(
                    f"Pictures can't be kept in {self._store.root} ({error.strerror}); the review goes on without."
                )

    def _done(self, want: Want, content: bytes, error: BaseException | None) -> None:
        with self._changed:
            future = self._pending.pop(want)
            if future.done():  # the review has ended
                return
            if error is None:
                future.set_result(content)
            else:
                future.set_exception(error)


class _Line:
    """A connection of one thread, opened when it is needed."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._connection: Connection | None = None

    def picture(self, folder: str, name: str, side: int) -> tuple[Picture, bytes]:
        """Return a picture. Raise Unreadable if the photograph can't be decoded.

        After another error, the next picture gets a new connection.
        """
        try:
            self._connection = self._connection or self._far.connect()
            self._connection.ask(do="picture", folder=folder, name=name, side=side)
            answer = self._connection.one()
            if "unreadable" in answer:
                raise Unreadable(printable(first_line(answer["unreadable"])))
            picture, content = parsed(Picture, answer.get("picture")), bytes(answer["bytes"])
            if picture.name != name or not is_jpeg(content, picture):
                raise ClusterError(f"The pod sent no picture of {name}.")
        except VaseError:
            self.close()
            raise
        return picture, content

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.process.close()
            self._connection = None


def _later(error: VaseError) -> ClusterError:
    """Return the error without its advice: the review goes on, and the picture is asked for again."""
    return ClusterError(f"{first_line(error).partition('; run the same command')[0]}.")


def is_jpeg(content: bytes, picture: Picture) -> bool:
    """Return whether a picture arrived whole, and is a JPEG of a possible size."""
    return (
        len(content) <= MOST_PICTURE
        and content[:3] == b"\xff\xd8\xff"
        and hashlib.sha256(content).hexdigest() == picture.check
    )
