"""A reviewer's session: order, undo, restarts, photographs that can't be read, what the labels are good for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.review import kit
from vasevqa import files
from vasevqa.review import pictures
from vasevqa.review.choosing import Scores
from vasevqa.review.labels import FILE, LabelFile
from vasevqa.review.questions import INTACT, QUALITY
from vasevqa.review.session import NotShown, Session, State


def session(tmp_path: Path, who: str = "anna", scores: Scores | None = None, seed: int = 0) -> Session:
    folder = tmp_path / "photos"
    if not folder.exists():
        kit.per_vase(folder, 9, 2)
    return Session(kit.record(folder, tmp_path / "quality"), who, scores, seed)


def labelled(session: Session, count: int, label: str = "high") -> list[str]:
    """The names of the photographs that are shown and labelled."""
    names = []
    for _ in range(count):
        state = session.state()
        assert state.picture is not None
        names.append(state.name)
        session.label(state.picture, label, 100)
    return names


def test_all_photographs_are_shown_once(tmp_path: Path) -> None:
    now = session(tmp_path)
    names = labelled(now, 18)
    assert sorted(names) == sorted(one.name for one in now.record.photographs)
    state = now.state()
    assert (state.picture, state.after, state.done, state.total) == (None, None, 18, 18)


def test_the_order_goes_on_after_a_restart_and_is_the_same_for_two_reviewers(tmp_path: Path) -> None:
    whole = labelled(session(tmp_path), 10)
    assert labelled(session(tmp_path, "ben"), 4) == whole[:4]
    assert labelled(session(tmp_path, "ben"), 6) == whole[4:]
    assert labelled(session(tmp_path, "eva", seed=7), 10) != whole


def test_the_next_one_is_announced_so_that_it_can_be_loaded(tmp_path: Path) -> None:
    now = session(tmp_path)
    for _ in range(6):
        state = now.state()
        assert state.picture is not None
        assert now.label(state.picture, "low", None).picture == state.after


def test_all_views_of_the_vase_stand_beside_with_their_labels(tmp_path: Path) -> None:
    now = session(tmp_path)
    labelled(now, 12, "low")
    state = now.state()
    assert state.picture in [view.picture for view in state.views]
    assert {view.name.split("/")[0].lower() for view in state.views} == {state.vase}
    assert {view.label for view in state.views if view.picture != state.picture} <= {"low", None}


def test_undo_shows_the_photograph_again_with_its_first_probability(tmp_path: Path) -> None:
    now = session(tmp_path)
    [first, second] = labelled(now, 2)
    state = now.undo()
    assert (state.name, state.done, state.undo) == (second, 1, first)
    assert state.picture is not None
    now.label(state.picture, "low", 5)
    lines = LabelFile(tmp_path / "quality" / FILE, QUALITY).lines
    assert [line.label for line in lines] == ["high", "high", None, "low"]
    assert len({(line.why, line.probability) for line in lines[1:]}) == 1
    assert kit.placed(tmp_path / "quality") == [f"0/{second}", f"1/{first}"]
    again = session(tmp_path)
    assert again.undo().name == second
    assert again.undo().name == first
    assert again.undo().name == first  # nothing is left
    assert again.state().done == 0


def test_a_late_label_of_another_tab_replaces_the_first(tmp_path: Path) -> None:
    now = session(tmp_path)
    state = now.state()
    assert state.picture is not None
    after = now.label(state.picture, "high", 1)
    same = now.label(state.picture, "low", 1)
    assert (same.picture, same.done, same.counts) == (after.picture, 1, {"low": 1})


def test_only_photographs_that_were_shown_can_be_labelled(tmp_path: Path) -> None:
    now = session(tmp_path)
    state = now.state()
    hidden = next(index for index in range(18) if index != state.picture)
    for index, label in ((hidden, "high"), (10_000, "high"), (state.picture, "intact")):
        assert index is not None
        with pytest.raises(NotShown):
            now.label(index, label, None)
    assert not (tmp_path / "quality").exists()


def test_a_photograph_that_can_t_be_read_is_set_aside(tmp_path: Path) -> None:
    folder = kit.per_vase(tmp_path / "photos", 3, 2)
    for name in ("V1/IMG_0000.png", "V2/IMG_0001.png"):
        (folder / name).write_bytes(b"no picture")
    now = session(tmp_path)
    names = labelled(now, 4)
    assert not {"V1/IMG_0000.png", "V2/IMG_0001.png"} & set(names)
    state = now.state()
    assert (state.picture, state.unreadable, state.total) == (None, 2, 4)


def test_a_photograph_that_was_removed_while_it_was_shown_is_set_aside(tmp_path: Path) -> None:
    now = session(tmp_path)
    state = now.state()
    assert state.picture is not None
    (tmp_path / "photos" / state.name).unlink()
    after = now.label(state.picture, "high", 1)
    assert (after.done, after.unreadable, after.total) == (0, 1, 17)
    assert after.picture != state.picture


class Storage:
    """A storage that refuses the photographs in `ill`, whatever reads them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ill: set[str] = set()
        self.number = errno.EACCES
        decode, digest = pictures.open_image, files.digest_file

        def decoded(path: Path, cover: int | None = None) -> Image.Image:
            self.read(path)
            return decode(path, cover)

        def digested(path: Path) -> str:
            self.read(path)
            return digest(path)

        monkeypatch.setattr(pictures, "open_image", decoded)
        monkeypatch.setattr(files, "digest_file", digested)

    def read(self, path: Path) -> None:
        if "/".join(path.parts[-2:]) in self.ill:
            raise OSError(self.number, os.strerror(self.number), str(path))


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    return Storage(monkeypatch)


def test_a_photograph_that_the_storage_refuses_comes_after_all_others(tmp_path: Path, storage: Storage) -> None:
    storage.ill = {"V1/IMG_0000.png", "V2/IMG_0001.png"}
    now = session(tmp_path)
    names = labelled(now, 16)
    assert not storage.ill & set(names)
    state = now.state()
    assert (state.picture, state.waiting, state.unreadable, state.total) == (None, 2, 0, 18)
    assert "No photograph can be read now: could not read" in state.problems[0]
    assert "permission is missing" in state.problems[0]
    storage.ill = {"V1/IMG_0000.png"}
    assert labelled(now, 1) == ["V2/IMG_0001.png"]
    storage.ill = set()
    assert labelled(now, 1) == ["V1/IMG_0000.png"]
    state = now.state()
    assert (state.picture, state.waiting, state.problems) == (None, 0, [])


def test_a_storage_that_gives_nothing_keeps_no_request_for_long(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = session(tmp_path)
    storage.ill = {one.name for one in now.record.photographs}
    tried: list[int] = []
    large = now.pictures.large
    monkeypatch.setattr(now.pictures, "large", lambda index: (tried.append(index), large(index))[1])
    for _ in range(8):
        assert now.state().picture is None
    assert len(tried) == 8 * 3
    assert set(tried) == set(range(18))
    storage.ill = set()
    assert now.state().picture is not None


def test_a_label_of_a_photograph_that_can_t_be_read_any_more_is_asked_again(tmp_path: Path, storage: Storage) -> None:
    now = session(tmp_path)
    first = now.state()
    assert first.picture is not None
    storage.ill = {first.name}
    after = now.label(first.picture, "high", 1)
    assert after.picture not in (first.picture, None)
    assert (after.done, after.waiting) == (0, 1)
    assert after.problems[0].startswith("The label was not saved, and the photograph comes again later: could not read")
    assert now.state().problems == []
    storage.ill = set()
    assert first.name in labelled(now, 18)


def test_a_picture_that_the_page_can_t_get_is_replaced_by_another(tmp_path: Path, storage: Storage) -> None:
    now = session(tmp_path)
    first = now.state()
    assert first.picture is not None
    now.pictures.large.cache_clear()
    storage.ill = {first.name}
    with pytest.raises(OSError, match="Permission denied"):
        now.picture("large", first.picture)
    assert now.state().picture not in (first.picture, None)


def test_undo_works_without_the_photograph(tmp_path: Path, storage: Storage) -> None:
    now = session(tmp_path)
    first, second, third = labelled(now, 3)
    now.pictures.large.cache_clear()
    storage.ill = {third}
    (tmp_path / "photos" / second).unlink()
    state = now.undo()
    assert (state.done, state.undo, state.waiting) == (2, second, 1)
    state = now.undo()
    assert (state.done, state.undo, state.unreadable) == (1, first, 1)
    assert state.name not in (second, third)
    assert kit.placed(tmp_path / "quality") == [f"1/{first}"]


def test_photographs_near_the_threshold_come_first(tmp_path: Path) -> None:
    values = {f"V{vase}/IMG_{view:04}.png": 0.5 if vase in (3, 8) else 40.0 for vase in range(1, 10) for view in (0, 1)}
    names = labelled(session(tmp_path, scores=Scores(values, 0.5, "classify")), 4)
    assert sum(name.startswith(("V3", "V8")) for name in names) >= 3
    reasons = {line.why for line in LabelFile(tmp_path / "quality" / FILE, QUALITY).lines}
    assert "near the threshold of classify" in reasons


def test_it_says_what_the_labels_are_good_for(tmp_path: Path) -> None:
    now = session(tmp_path)
    assert now.state().gains == [
        "train-classifier needs photographs of 3 vases with each label: high has 0 and low has 0",
        "labels of 0 vases: an interval of a share, such as an accuracy, needs labels of 8 vases",
    ]

    def word(state: State) -> str:
        return "high" if state.vase in ("v1", "v2", "v3") else "low"

    while (state := now.state()).picture is not None:
        now.label(state.picture, word(state), 1)
    assert state.gains == [
        "train-classifier can run with these labels",
        "labels of 9 vases measure a share, such as an accuracy, to ±27 points; labels of 18 vases would measure it to"
        " ±21 points",
    ]


def test_the_other_question_speaks_of_no_classifier(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "intact", INTACT)
    now = Session(record, "anna")
    state = now.state()
    assert (state.yes, state.no, state.question) == (
        "intact",
        "damaged",
        "Does the photograph show a complete, undamaged vase?",
    )
    assert len(state.gains) == 1


def test_with_scores_the_page_says_what_the_labels_show_of_the_threshold(tmp_path: Path) -> None:
    values = {f"V{vase}/IMG_{view:04}.png": vase / 10 for vase in range(1, 10) for view in (0, 1)}
    now = session(tmp_path, scores=Scores(values, 0.5, "classify"))
    assert not any("precision" in line for line in now.state().gains)
    labelled(now, 2)
    assert any(line.startswith("There are too few labels to show a precision of 0.95") for line in now.state().gains)
    labelled(now, 16)
    assert any("a precision of 0.95" in line and "2 of 2" not in line for line in now.state().gains)


def test_a_typical_photograph_of_each_group_is_shown_first(tmp_path: Path) -> None:
    groups = {f"V{vase}/IMG_{view:04}.png": (vase % 3, vase) for vase in range(1, 10) for view in (0, 1)}
    record = session(tmp_path).record
    now = Session(record, "anna", groups=groups)
    names = labelled(now, 4)
    whys = [line.why for line in LabelFile(tmp_path / "quality" / FILE, QUALITY).lines]
    typical = [name for name, why in zip(names, whys, strict=True) if why.startswith("typical")]
    assert len({groups[name][0] for name in typical}) == len(typical) >= 2
