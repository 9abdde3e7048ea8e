"""What a pod says in a review is checked before it is used or kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vasevqa.errors import ClusterError
from vasevqa.review import fetching
from vasevqa.review.messages import Given, Head, Known, Listed, Photographs, Picture, Values, parsed
from vasevqa.review.pictures import LARGE
from vasevqa.review.store import Store

GOOD = {"name": "a.jpg", "vase": "v", "place": "a.jpg", "stamp": "1:2"}


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (Listed, GOOD | {"name": "../a.jpg"}),
        (Listed, GOOD | {"name": "/a.jpg"}),
        (Listed, GOOD | {"place": "a/../../b"}),
        (Listed, GOOD | {"stamp": "1:2\n"}),
        (Listed, GOOD | {"name": "x" * 5000}),
        (Listed, None),
        (Known, {"name": "a.jpg", "stamp": "1:2", "digest": "../" + "0" * 61}),
        (Picture, {"name": "a.jpg", "stamp": "1:2", "digest": "0" * 64 + "\n", "check": "0" * 64}),
        (Picture, {"name": "a.jpg", "stamp": "1:2", "digest": "A" * 64, "check": "0" * 64}),
        (Photographs, {"photographs": 3}),
        (Values, {"scores": {"a.jpg": "nan"}}),
        (Values, {"scores": {"a.jpg": [1]}}),
        (Given, {"new": -1, "low": 0, "high": 0}),
    ],
)
def test_wrong_words_of_a_pod_are_refused(model: type[Listed], answer: object) -> None:
    with pytest.raises(ClusterError, match=f"an invalid message of the type {model.__name__} "):
        parsed(model, answer)


def test_words_of_a_pod_do_not_control_the_terminal() -> None:
    head = {"run": "r", "folder": "inputs", "said": ["12 \x1b]0;photos\x07\r\n"], "threshold": None, "photographs": 1}
    assert parsed(Head, head).said == ["12  ]0;photos   "]


@pytest.mark.parametrize("content", [b"<svg>", b"\xff\xd8\xff damaged"])
def test_only_whole_jpegs_are_kept(content: bytes) -> None:
    good = Picture(name="a.jpg", stamp="1:2", digest="0" * 64, check=hashlib.sha256(b"\xff\xd8\xff").hexdigest())
    assert fetching.is_jpeg(b"\xff\xd8\xff", good)
    assert not fetching.is_jpeg(content, good)
    assert not fetching.is_jpeg(b"<svg>", good.model_copy(update={"check": hashlib.sha256(b"<svg>").hexdigest()}))


def test_a_store_forgets_nothing_after_a_cut_line(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", "volume")
    store.learn("a.jpg", "1:2", "a" * 64)
    [index] = (tmp_path / "store/digests").iterdir()
    with index.open("ab") as stream:
        stream.write(b'{"name": "cut')
    store.learn("b.jpg", "1:2", "b" * 64)
    again = Store(tmp_path / "store", "volume")
    assert [again.digest(name, "1:2") for name in ("a.jpg", "b.jpg", "c.jpg")] == ["a" * 64, "b" * 64, None]
    assert Store(tmp_path / "store", "another volume").digest("a.jpg", "1:2") is None
    again.put("a" * 64, LARGE, b"1234")
    assert "(1 files, 4 bytes)" in again.said()
