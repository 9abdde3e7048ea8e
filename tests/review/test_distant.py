"""A review of photographs on the volume of a cluster. The far end is the process that also runs in a pod."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.far import LocalFar, Pipe
from tests.pipeline.kit import wait_for
from tests.review import kit
from vasevqa import files
from vasevqa.curation.images import Unreadable
from vasevqa.errors import ConfigError, ConnectionLost, DataError
from vasevqa.review import fetching
from vasevqa.review.distant import AHEAD, DistantReview, DistantSession, open_distant
from vasevqa.review.labels import FILE
from vasevqa.review.messages import Asked, Given
from vasevqa.review.pictures import LARGE
from vasevqa.review.questions import INTACT, QUALITY, Question
from vasevqa.review.store import Store
from vasevqa.transfer import connection
from vasevqa.transfer.connection import Connection


@dataclass
class Place:
    """A volume with photographs of four vases and a run, and a folder of this machine."""

    volume: Path
    here: Path
    run: str
    far: LocalFar

    @property
    def photos(self) -> Path:
        return self.volume / "inputs/photos"

    def review(self, into: str = "quality", question: Question = QUALITY, **more: object) -> DistantReview:
        asked = Asked.of(self.run, question.name, self.here / into, **more)
        opened = open_distant(self.far, asked)
        store = Store(self.here / "store", "cluster/claim/inputs/photos")
        return DistantReview(self.far, asked, question, self.here / into, store, opened)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    volume = tmp_path / "far"
    kit.per_vase(volume / "inputs/photos")
    made = kit.filtered_run(volume, volume / "inputs/photos", {"V1/IMG_0000.png": 0.11, "V2/IMG_0000.png": 0.9})
    far = LocalFar(volume)
    yield Place(volume, tmp_path / "here", made.name, far)
    far.close()


def session(review: DistantReview, who: str = "anna") -> DistantSession:
    made = DistantSession(review.record, who, review.opened.scores)
    made.pictures = review.pictures(lambda said: None)
    return made


def labelled(now: DistantSession, count: int, label: str = "high") -> list[str]:
    names = []
    for _ in range(count):
        state = now.state()
        assert state.picture is not None
        names.append(state.name)
        now.label(state.picture, label, 100)
    return names


def test_photographs_scores_and_vases_are_those_of_the_volume(place: Place) -> None:
    review = place.review(question=INTACT, into="intact")
    assert [(one.name, one.vase, one.place) for one in review.record.photographs] == [
        (one.name, one.vase, one.place) for one in kit.listed(place.photos)
    ]
    scores = review.opened.scores
    assert scores is not None
    assert (dict(scores.values), scores.threshold) == ({"V1/IMG_0000.png": 0.11, "V2/IMG_0000.png": 0.9}, 0.1)
    assert (scores.step, scores.uniform) == ("clip-filter", 0.5)
    assert review.opened.head.run == place.run
    assert "12 photographs, 4 vases, 3 views each" in review.opened.head.said


def test_the_far_end_is_a_process(place: Place) -> None:
    pipe = Pipe(place.volume, module="vasevqa.review")
    place.far.lines.append(pipe)
    line = Connection(pipe)  # type: ignore[arg-type]
    line.ask(do="open", asked=Asked.of(place.run, "quality", place.here / "quality").model_dump())
    answers = list(line.listed())
    assert answers[0]["head"]["folder"] == "inputs/photos"
    assert sum(len(answer.get("photographs", ())) for answer in answers) == 12
    line.ask(do="picture", folder="inputs/photos", name="V1/IMG_0000.png", side=1600)
    assert line.one()["bytes"].startswith(b"\xff\xd8\xff")


def test_labels_are_of_the_files_on_the_volume_and_place_them_there(place: Place) -> None:
    review = place.review()
    now = session(review)
    high, low = labelled(now, 2), labelled(now, 1, "low")
    now.pictures.close()
    lines = review.record.file.lines
    assert [line.digest for line in lines] == [files.digest_file(place.photos / name) for name in high + low]
    assert kit.placed(place.here / "quality") == []
    assert review.give() == Given(new=3, low=1, high=2)
    there = place.volume / "labels/quality"
    assert kit.placed(there) == sorted([f"0/{low[0]}", *(f"1/{name}" for name in high)])
    assert files.digest_file(there / f"0/{low[0]}") == files.digest_file(place.photos / low[0])
    assert (there / FILE).read_bytes() == (place.here / "quality" / FILE).read_bytes()
    assert review.give() == Given(new=0, low=1, high=2)


def test_another_reviewer_gets_the_labels_and_adds_to_them(place: Place) -> None:
    first = place.review()
    one = session(first)
    names = labelled(one, 3)
    one.pictures.close()
    first.give()
    place.here = place.here.parent / "ben"
    second = place.review()
    assert len(second.new) == 3
    second.take()
    two = session(second, "ben")
    assert labelled(two, 4, "low")[:3] == names
    two.pictures.close()
    assert second.give() == Given(new=4, low=1, high=0)  # about three photographs they disagree
    assert [said.said()[:40] for said in second.record.agreements()] == ["anna and ben gave the same label to 0 of"]
    place.here = place.here.parent / "here"
    again = place.review()
    assert len(again.new) == 4
    again.take()
    assert again.record.mine("anna").keys() == set(names)


def test_a_large_photograph_comes_upright_with_1600_pixels_and_is_kept(place: Place) -> None:
    picture = Image.effect_noise((3000, 2000), 40).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(place.photos / "V1/IMG_0009.jpg", exif=exif)
    review = place.review()
    [index] = [number for number, one in enumerate(review.photographs) if one.name == "V1/IMG_0009.jpg"]
    pictures = review.pictures(lambda said: None)
    content = pictures.large(index)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("JPEG", (1067, 1600))
        assert not image.getexif()
    pictures.close()
    connections = len(place.far.lines)
    kept = place.review().pictures(lambda said: None)
    assert kept.large(index) == content
    with Image.open(io.BytesIO(kept.small(index))) as image:  # made of the large one
        assert image.height == 320
    kept.close()
    assert len(place.far.lines) == connections + 1  # only the list was asked for
    digest = files.digest_file(place.photos / "V1/IMG_0009.jpg")
    assert (place.here / f"store/pictures/{digest[:2]}/{digest}-1600.jpg").read_bytes() == content
    assert (place.here / "store").stat().st_mode & 0o077 == 0


def test_what_will_be_drawn_is_fetched_ahead(place: Place) -> None:
    review = place.review()
    now = session(review)
    state = now.state()
    assert state.picture is not None
    wants = list(now._coming([], {state.name: None}))
    assert wants[0] == (state.after, LARGE)
    order = [index for index, side in wants if side == LARGE]
    assert len(order) == len(set(order)) == AHEAD
    ahead = {review.photographs[index].name for index in order}
    assert set(labelled(now, AHEAD + 1)) == {state.name, *ahead}
    digests = [files.digest_file(one.path) for one in kit.listed(place.photos)]
    wait_for(lambda: all(review.store.has(digest, LARGE) for digest in digests), "all pictures")
    now.pictures.close()


def test_the_order_ahead_is_drawn_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among many photographs, a draw takes long."""
    review = place.review()
    now = DistantSession(review.record, "anna")
    now.pictures = review.pictures(lambda said: None)
    expected: list[Iterator[tuple[int, int]]] = []
    monkeypatch.setattr(now.pictures, "expect", expected.append)
    state = now.state()
    first = list(expected[-1])
    draws = []
    drawn = now._drawn

    def counted(mine: dict[str, str | None], keep: bool) -> int | None:
        draws.append(mine)
        return drawn(mine, keep)

    monkeypatch.setattr(now, "_drawn", counted)
    assert state.picture is not None
    assert now.label(state.picture, "high", 100).picture == first[0][0]
    draws.clear()
    second = list(expected[-1])
    assert len(draws) == 1
    order = [[index for index, side in wants if side == LARGE] for wants in (first, second)]
    assert order[1][:-1] == order[0][1:]
    now.pictures.close()


def test_a_lost_connection_is_made_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    review = place.review()
    place.far.limits = [10, 300]
    now = session(review)
    assert len(set(labelled(now, 12))) == 12
    now.pictures.close()
    assert not place.far.limits


def test_without_a_connection_labels_stay_and_the_page_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setattr(connection, "TRIES", 1)
    review = place.review()
    now = session(review)
    [name] = labelled(now, 1)
    now.pictures.close()
    place.far.limits = [0] * 1000
    later = DistantSession(review.record, "anna")
    review.store = Store(place.here / "other", "elsewhere")
    later.pictures = review.pictures(lambda said: None)
    state = later.state()
    assert state.picture is None
    assert state.problems == ["No photograph can be read now: cut. Load the page again later; no label is lost."]
    with pytest.raises(ConnectionLost):
        review.give()
    place.far.limits = []
    assert later.state().picture is not None
    later.pictures.close()
    again = place.review()
    assert list(again.record.mine("anna")) == [name]
    assert again.give().new == 1


def test_a_photograph_that_can_not_be_decoded_is_set_aside(place: Place) -> None:
    (place.photos / "V1/IMG_0001.png").write_bytes(b"no picture")
    review = place.review()
    now = session(review)
    assert len(labelled(now, 11)) == 11
    state = now.state()
    assert (state.picture, state.unreadable, state.total) == (None, 1, 11)
    now.pictures.close()


def test_a_photograph_that_changed_since_it_was_listed_is_not_labelled(place: Place) -> None:
    review = place.review()
    kit.photo(place.photos / "V1/IMG_0001.png", 999)
    [index] = [number for number, one in enumerate(review.photographs) if one.name == "V1/IMG_0001.png"]
    pictures = review.pictures(lambda said: None)
    with pytest.raises(Unreadable, match="changed on the volume"):
        pictures.large(index)
    pictures.close()


def test_labels_of_a_copy_on_this_machine_count_for_the_files_on_the_volume(place: Place) -> None:
    """The copy has other times, so the digests are asked for."""
    shutil.copytree(place.photos, place.here / "photos", copy_function=shutil.copyfile)
    local = kit.record(place.here / "photos", place.here / "quality")
    for name in ("V1/IMG_0000.png", "V2/IMG_0001.png"):
        kit.say(local, name, "high")
    shutil.rmtree(place.here / "quality/1")
    kit.photo(place.photos / "V2/IMG_0001.png", 777)
    review = place.review()
    assert list(review.record.mine("anna")) == ["V1/IMG_0000.png"]
    assert review.record.elsewhere() == 1
    assert review.give() == Given(new=2, low=0, high=1)


def test_a_photograph_that_can_not_be_placed_on_the_volume_is_told(place: Place) -> None:
    review = place.review()
    now = session(review)
    [name] = labelled(now, 1)
    now.pictures.close()
    for target in (f"1/{name}", f"1/{files.digest_file(place.photos / name)[:8]}/{name}"):
        kit.photo(place.volume / "labels/quality" / target, 500)
    (place.volume / "labels/quality" / FILE).touch()
    given = review.give()
    assert (given.new, len(given.problems)) == (1, 1)
    assert "1 labelled photograph is not in 0/ or 1/ of" in given.problems[0]


def test_a_store_that_can_not_be_written_is_said_once(place: Place) -> None:
    review = place.review()
    place.here.mkdir()
    (place.here / "store").write_text("a file")
    said: list[str] = []
    now = DistantSession(review.record, "anna")
    now.pictures = review.pictures(said.append)
    assert len(set(labelled(now, 12))) == 12
    now.pictures.close()
    assert [line[:25] for line in said] == ["Pictures can't be kept in"]


@pytest.mark.parametrize("run", ["../x", "a/b", ""])
def test_only_names_of_runs_are_asked_for(place: Place, run: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a run"):
        Asked.of(run, "quality", place.here / "quality")


def test_the_folder_on_the_volume_has_a_plain_name(place: Place) -> None:
    assert Asked.of("r", "quality", place.here / "x" / ".." / "quality").folder == "labels/quality"
    with pytest.raises(ConfigError, match="whose name doesn't begin with a dot"):
        Asked.of("r", "quality", place.here / ".hidden")
    with pytest.raises(ConfigError, match="the table is a file on the volume"):
        Asked.of("r", "quality", place.here / "quality", annotations="/etc/passwd")


def test_what_the_volume_lacks_is_one_sentence(place: Place) -> None:
    with pytest.raises(ConfigError, match="There is no table"):
        place.review(annotations="t.csv")
    with pytest.raises(ConfigError, match="no table is given; add --annotations"):
        place.review(vase_column="Fund")
    place.review(into="intact", question=INTACT).give()
    now = session(place.review(into="intact", question=INTACT))
    labelled(now, 1, "intact")
    now.pictures.close()
    place.photos.rename(place.photos.with_name("moved"))
    with pytest.raises(DataError, match=r"The photographs of .* are not on the volume"):
        place.review()
    place.run = "nowhere"
    with pytest.raises(ConfigError, match="There is no run 'nowhere'"):
        place.review()


def test_photographs_outside_the_volume_are_not_listed(place: Place, tmp_path: Path) -> None:
    kit.per_vase(tmp_path / "elsewhere")
    place.run = kit.filtered_run(place.volume, tmp_path / "elsewhere", {}).name
    with pytest.raises(DataError, match="are not on the volume"):
        place.review()


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/secret.png", "out/secret.png", "V1/../../../secret.png"])
def test_the_pod_sends_no_picture_from_outside_the_volume(place: Place, tmp_path: Path, name: str) -> None:
    kit.photo(tmp_path / "secret.png", 1)
    (place.photos / "out").symlink_to(tmp_path)
    line = place.far.connect()
    line.ask(do="picture", folder="inputs/photos", name=name, side=1600)
    with pytest.raises(ConfigError, match="leads outside the volume"):
        list(line.answers(True))


def test_only_photographs_are_opened_in_the_pod(place: Place) -> None:
    (place.volume / "secret.txt").write_text("s")
    line = place.far.connect()
    line.ask(do="picture", folder=".", name="secret.txt", side=1600)
    with pytest.raises(ConfigError, match="the suffix of a photograph"):
        list(line.answers(True))
