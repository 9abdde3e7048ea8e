"""The part of a review that runs in a pod: it lists the photographs of a run, scales them, and saves the labels.

The labels are in the folder labels/NAME on the volume. The folder has the same content as the folder of a local review:
labels.jsonl and, for the question `quality`, 0/ and 1/. The folders 0/ and 1/ hold full-size copies of the photographs
for train-classifier.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from pydantic import ValidationError

from vasevqa import files
from vasevqa.artifacts.volume import Volume
from vasevqa.curation.images import Unreadable, find_images
from vasevqa.errors import ConfigError, DataError
from vasevqa.folders import is_photograph
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.runs import find_run
from vasevqa.review.begin import Review, open_review, source_of, with_options
from vasevqa.review.labels import FILE
from vasevqa.review.messages import Asked, Given, Head, Known, Listed, Picture, Threshold
from vasevqa.review.photographs import Photograph, stamp_of
from vasevqa.review.pictures import QUALITY, encoded
from vasevqa.review.placing import SIDES
from vasevqa.review.questions import QUESTIONS
from vasevqa.text import first_line
from vasevqa.transfer.connection import MOST
from vasevqa.transfer.far_end import FarEnd, alive
from vasevqa.transfer.paths import inside

T = TypeVar("T")

AT_ONCE = 500  # photographs, scores or labels per answer
BEAT = 20.0  # seconds between messages that the pod still works
TURNS = Path("/tmp/vasevqa-turns")  # noqa: S108 - a file in the pod, locked by the process that decodes
BROKEN_OFF = "the file is being written"


class ReviewEnd(FarEnd):
    """Answers the requests of a review, and the requests of a file transfer."""

    def __init__(self, root: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
        super().__init__(root, requests, answers)
        self._saying = threading.Lock()

    def say(self, payload: bytes = b"", **answer: Any) -> None:
        """Send one answer. The lock is needed because the thread of `_busy` also sends answers."""
        with self._saying:
            super().say(payload, **answer)

    def do_open(self, asked: object) -> None:
        """Send the photographs, the scores, the groups of look-alikes and the labels."""
        with self._busy():
            wanted = _asked(asked)
            opened, folder = self._opened(wanted)
            listed = _listed(opened.record.photographs)
        scores = opened.scores
        head = Head(
            run=find_run(Volume(self.root.absolute()), wanted.run).name,
            folder=folder,
            said=list(opened.said),
            threshold=scores and Threshold(step=scores.step, threshold=scores.threshold, uniform=scores.uniform),
            photographs=len(listed),
        )
        self.say(head=head.model_dump())
        for some in _batches(listed):
            self.say(photographs=[one.model_dump() for one in some])
        for values in _batches(list(scores.values.items()) if scores else []):
            self.say(scores=dict(values))
        for groups in _batches(list(opened.groups.items())):
            self.say(groups=dict(groups))
        for lines in _batches(opened.record.file.lines):
            text = "".join(line.model_dump_json() + "\n" for line in lines).encode()
            self.say(text, lines=len(lines), data=len(text))
        self.say(end=True)

    def do_picture(self, folder: str, name: str, side: int) -> None:
        """Send a photograph as JPEG of at most `side` pixels, and the digest of the photograph's file."""
        path = self._photograph(folder, name)
        if side not in QUALITY:
            raise ConfigError(f"Pictures with a longer side of {side} pixels are not available.")
        try:
            with self._busy(), _turn():
                picture, content = _picture(path, name, side)
        except Unreadable as error:
            self.say(name=name, unreadable=error.reason)
        else:
            self.say(content, picture=picture.model_dump(), data=len(content))

    def do_digests(self, folder: str, names: Sequence[str]) -> None:
        """Send the digest of each photograph in `names`."""
        for name in names:
            path = self._photograph(folder, name)
            with self._busy():
                try:
                    known = Known(name=name, stamp=stamp_of(path), digest=files.digest_file(path))
                except FileNotFoundError:
                    known = Known(name=name, stamp=None, digest=None)
            self.say(known=known.model_dump())
        self.say(end=True)

    def do_give(self, asked: object, length: int) -> None:
        """Read `length` bytes of labels, and save the new labels. For quality, copy the photographs to 0/ and 1/."""
        if not 0 <= length <= MOST:
            raise ConfigError(f"{length} bytes of labels are too many; send at most {MOST}.")
        text = self.requests.read(length)
        if len(text) < length:
            raise EOFError
        with self._busy(), tempfile.TemporaryDirectory() as folder:
            given = Path(folder) / FILE
            given.write_bytes(text)
            record = self._opened(_asked(asked))[0].record
            new = record.merge(given)
            low, high = (_count(record.into / side) for side in SIDES)
        self.say(given=Given(new=new, low=low, high=high, problems=record.problems()).model_dump())

    def _opened(self, asked: Asked) -> tuple[Review, str]:
        """Open the review. Return the review, and the folder of its photographs relative to the volume's root.

        Raise DataError if the run's photographs are not on the volume.
        """
        question = QUESTIONS[asked.question]
        volume = Volume(self.root.absolute())
        run = find_run(volume, asked.run)
        images = load_recipe(run.recipe, PIPELINE, here=False).inputs.get("images")
        folder, top = None if images is None else Path(images).resolve(), self.root.resolve()
        if folder is None or not folder.is_dir() or not folder.is_relative_to(top):
            raise DataError(
                f"The photographs of {run.name} are not on the volume ({images}); copy them there with"
                " `vasevqa upload`, and run the recipe on the copy."
            )
        source = source_of(run.name, volume.root, question, PIPELINE)
        table = None if asked.annotations is None else inside(self.root, asked.annotations)
        source = with_options(source, asked.name_pattern, asked.vase_column, table)
        review = open_review(source, question, inside(self.root, asked.folder))
        return review, folder.relative_to(top).as_posix()

    def _photograph(self, folder: str, name: str) -> Path:
        if not is_photograph(name):
            raise ConfigError(f"'{name}' doesn't end with the suffix of a photograph.")
        if PurePosixPath(name).is_absolute():
            raise ConfigError(f"'{name}' leads outside the volume; give a path inside it.")
        return inside(self.root, f"{folder}/{name}")

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        """Send a message every BEAT seconds, because a large folder may take minutes and a silent pod looks dead."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                alive()
                self.say(busy=True)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _asked(given: object) -> Asked:
    try:
        asked = Asked.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"The review can't be opened: {'.'.join(map(str, first['loc']))}: {first_line(first['msg'])}."
        ) from None
    if asked.question not in QUESTIONS:
        raise ConfigError(
            f"The image doesn't know the question '{asked.question}'; use an image of your version of vasevqa."
        )
    return asked


def _listed(photographs: Iterable[Photograph]) -> list[Listed]:
    """Return the photographs with their stamps, without photographs that vanished since the folder was read."""
    found = []
    for one in photographs:
        with contextlib.suppress(FileNotFoundError):
            found.append(Listed(name=one.name, vase=one.vase, place=one.place, stamp=one.stamp))
    return found


def _picture(path: Path, name: str, side: int) -> tuple[Picture, bytes]:
    """Return a header and the bytes of a scaled picture.

    The digest in the header is the digest of the photograph's file, not of the scaled picture.

    Raise Unreadable if the file can't be decoded, if it vanished, or if it changed during each of three attempts.
    """
    for _ in range(3):
        try:
            stamp = stamp_of(path)
            content = encoded(path, side)
            digest = files.digest_file(path)
            if stamp_of(path) == stamp:
                check = hashlib.sha256(content).hexdigest()
                return Picture(name=name, stamp=stamp, digest=digest, check=check), content
        except FileNotFoundError:
            raise Unreadable("the file vanished") from None
    raise Unreadable(BROKEN_OFF)


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other process of the pod decodes a photograph, because a large scan takes gigabytes of memory."""
    with TURNS.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _batches(items: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, AT_ONCE)):
        yield some


def _count(folder: Path) -> int:
    return sum(1 for _ in find_images(folder)) if folder.is_dir() else 0
