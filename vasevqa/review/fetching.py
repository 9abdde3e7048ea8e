"""Fetch pictures from the volume: first the requested ones, then those that will probably be requested next."""

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

WORKERS = 2  # connections: the pod decodes a picture for one of them while the other transfers a picture
LONGEST_WAIT = 180.0  # seconds that the page waits for a picture; the start of a pod takes most of this time
TRIES = 3  # lost connections in a row after which a request fails
PAUSE = 1.0  # seconds before the second try; the pause doubles before each further try
KEPT = 64  # maximum number of pictures in memory

Want = tuple[int, int]  # the number of the photograph, and the longer side of the picture in pixels


@dataclass(frozen=True)
class Distant(Photograph):
    """A photograph on the volume of a cluster. `path` is a path on the volume; this machine never opens it."""

    seen: str = ""  # the photograph's stamp when it was listed
    ask: Callable[[str], str] = str  # returns the digest of a photograph by name

    @property
    def stamp(self) -> str:
        """The photograph's stamp (size and time of modification) when it was listed."""
        return self.seen

    def digest(self) -> str:
        """Return the SHA-256 of the photograph's file on the volume."""
        return self.ask(self.name)


class DistantPictures:
    """The pictures of `photographs` in `folder` of a volume; `far` makes connections to the volume.

    Fetched pictures are saved in `store`. Several threads may use the object at the same time. `tell` is called with
    sentences for the user.
    """

    def __init__(
        self, photographs: Sequence[Distant], folder: str, far: Far, store: Store, tell: Callable[[str], None]
    ) -> None:
        self._photographs, self._folder, self._far, self._store, self._tell = photographs, folder, far, store, tell
        self._changed = threading.Condition()
        self._urgent: deque[Want] = deque()
        self._ahead: Iterator[Want] = iter(())
        self._drawing = threading.Lock()  # held by the thread that takes the next item of `_ahead`
        self._pending: dict[Want, Future[bytes]] = {}
        self._memory: OrderedDict[Want, bytes] = OrderedDict()
        self._over = self._full = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def large(self, index: int, /) -> bytes:
        """Wait for the large picture of a photograph, and return it. The reviewer labels the large picture."""
        return self._get((index, LARGE))

    def small(self, index: int, /) -> bytes:
        """Wait for the small picture of a photograph, and return it. The page shows it as a further view."""
        return self._get((index, SMALL))

    def expect(self, ahead: Iterator[Want]) -> None:
        """Choose `ahead` as the pictures to fetch in advance, in this order, while there are no requests.

        The pictures that an earlier call chose are no longer fetched in advance.
        """
        with self._changed:
            self._ahead = ahead
            self._changed.notify_all()

    def close(self) -> None:
        """Stop fetching. Requests that still wait fail with a ClusterError."""
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
        except (OSError, Unreadable):  # the store can't be read: fetch the picture
            return None

    def _work(self) -> None:
        """Fetch pictures until the review ends. Each thread has at most one open connection."""
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
                self.expect(iter(()))  # fetch nothing in advance until the page sends a request
            except Exception as failure:
                error = failure
            self._done(want, content, error)
        line.close()

    def _next(self) -> Want | None:
        """Wait for a picture to fetch, and return it; None if the review has ended."""
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
        """Return the next picture of `ahead` that is not in the store; None if there is none."""
        with self._drawing:
            for want in ahead:
                photograph = self._photographs[want[0]]
                digest = self._store.digest(photograph.name, photograph.stamp)
                if digest is None or not self._store.has(digest, want[1]):
                    return want
        return None

    def _again(self, want: Want, losses: int) -> bool:
        """Queue a picture again after a lost connection, and pause. Return False if the review has ended."""
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
                self._tell(f"Pictures can't be kept in {self._store.root} ({error.strerror}); the review goes on.")

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
    """The connection of one thread. It is opened when it is needed."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._connection: Connection | None = None

    def picture(self, folder: str, name: str, side: int) -> tuple[Picture, bytes]:
        """Return a picture. Raise Unreadable if the photograph can't be decoded.

        After any other error, the connection is closed, and the next call opens a new connection.
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
        """Close the connection."""
        if self._connection is not None:
            self._connection.process.close()
            self._connection = None


def _later(error: VaseError) -> ClusterError:
    """Return the error without its advice to run the command again, because the review goes on and tries again."""
    return ClusterError(f"{first_line(error).partition('; run the same command')[0]}.")


def is_jpeg(content: bytes, picture: Picture) -> bool:
    """Return whether a picture is complete, and is a JPEG of at most MOST_PICTURE bytes."""
    return (
        len(content) <= MOST_PICTURE
        and content[:3] == b"\xff\xd8\xff"
        and hashlib.sha256(content).hexdigest() == picture.check
    )
