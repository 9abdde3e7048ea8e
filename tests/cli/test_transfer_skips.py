"""What a transfer skips, links, and answers of a pod that lies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.far import Pipe
from vasevqa.backends.kubernetes import session
from vasevqa.cli import cli
from vasevqa.errors import ClusterError, ConfigError, DataError
from vasevqa.transfer import fetching, paths, sending
from vasevqa.transfer.connection import Connection
from vasevqa.transfer.fetching import _Download


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The root of a volume to which the commands connect."""
    root, started = tmp_path / "far", list[Pipe]()
    root.mkdir()

    def work_there(access: object, work: object) -> None:
        started.append(Pipe(root))
        work(Connection(started[-1]))  # type: ignore[operator, arg-type]

    for module in (sending, fetching):
        monkeypatch.setattr(module, "persistently", work_there)
    monkeypatch.setattr(session, "Session", lambda cluster: None)
    yield root
    for pipe in started:
        pipe.close()


def vasevqa(*words: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a photograph and with links of each kind."""
    folder, other = tmp_path / "photos", tmp_path / "other"
    (folder / "site").mkdir(parents=True)
    (folder / "site/1.jpg").write_bytes(b"one")
    other.mkdir()
    (other / "2.jpg").write_bytes(b"two")
    (folder / "same.jpg").symlink_to("site/1.jpg")
    (folder / "out.jpg").symlink_to(other / "2.jpg")
    (folder / "there").symlink_to(other)
    (folder / "site/up").symlink_to(folder)
    (folder / "nothing").symlink_to("removed.jpg")
    (folder / ".large.part").touch()
    os.mkfifo(folder / "pipe")
    return folder


def test_an_upload_says_what_it_skips_and_follows_no_link_out_of_the_folder(far: Path, photos: Path) -> None:
    told = vasevqa("upload", photos, "in")
    assert told.exit_code == 0
    assert names(far / "in") == {"site/1.jpg", "same.jpg"}
    skipped = {
        "out.jpg": "a link out of the folder",
        "there": "a link out of the folder",
        "site/up": "a link to a folder",
        "nothing": "a link to nothing",
        ".large.part": "not complete: another program may still be writing the file",
        "pipe": "no file or folder: a pipe, socket or device",
    }
    lines = [line for line in told.stderr.splitlines() if line.startswith("Skipped: ")]
    assert sorted(lines) == sorted(f"Skipped: {photos / name} ({reason})" for name, reason in skipped.items())
    assert "Add --follow-links to send what the links lead to." in told.stderr


def test_links_are_followed_on_demand_and_loops_end(far: Path, photos: Path) -> None:
    told = vasevqa("upload", photos, "in", "--follow-links")
    assert names(far / "in") == {"site/1.jpg", "same.jpg", "out.jpg", "there/2.jpg"}
    assert f"Skipped: {photos / 'site/up'} (a link to a folder that contains the link)" in told.stderr
    assert "Add --follow-links" not in told.stderr


def test_a_folder_with_links_out_of_it_alone_is_no_upload(far: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "weights").write_text("w")
    (tmp_path / "model/weights").symlink_to(tmp_path / "weights")
    with pytest.raises(DataError, match="There is no file to send"):
        vasevqa("upload", tmp_path / "model")
    uploaded = sending.upload_inputs(None, {"model": "model"}, tmp_path, follow=True)  # type: ignore[arg-type]
    assert (far / uploaded[0].removeprefix("model=") / "weights").read_text() == "w"


def test_many_skipped_files_of_one_reason_are_counted(far: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/plain").touch()
    for number in range(25):
        (tmp_path / f"in/{number:02}").symlink_to("/etc/passwd")
    told = vasevqa("upload", tmp_path / "in")
    assert told.stderr.count("(a link out of the folder)") == 21
    assert "Skipped: 5 more (a link out of the folder)" in told.stderr


def test_a_download_says_what_it_skips(far: Path, tmp_path: Path) -> None:
    (far / "in").mkdir()
    (far / "in/plain").write_text("p")
    (far / "in/secret").symlink_to("/etc/passwd")
    (far / "in/steps").symlink_to(far)
    told = vasevqa("download", "-", "in", tmp_path / "back")
    assert names(tmp_path / "back") == {"plain"}
    assert told.stderr.splitlines() == [
        "Skipped: secret (a link out of the volume)",
        "Skipped: steps (a link to a folder)",
    ]


def test_a_file_that_vanishes_during_an_upload_is_one_sentence(
    far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/gone").touch()
    walk = sending.walk

    def removing(*given: object, **named: object) -> Iterator[tuple[str, Path]]:
        for name, path in walk(*given, **named):  # type: ignore[arg-type]
            path.unlink()
            yield name, path

    monkeypatch.setattr(sending, "walk", removing)
    with pytest.raises(DataError, match=r"in/gone was removed during the upload"):
        vasevqa("upload", tmp_path / "in")


@pytest.mark.parametrize(
    "name", ["αγγείο" * 20 + "1234567.jpg", "器" * 85, "é" * 127, "a" * 255], ids=["greek", "chinese", "latin", "ascii"]
)
def test_names_of_255_bytes_arrive(far: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"x" * (3 << 20))
    assert vasevqa("upload", tmp_path / "in").exit_code == 0
    assert vasevqa("download", "-", "in", tmp_path / "back").exit_code == 0
    assert names(tmp_path / "back") == {name}


def test_names_that_are_not_utf_8_arrive(far: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    uploaded = sending.upload_inputs(None, {"images": "in"}, tmp_path)  # type: ignore[arg-type]
    there = far / uploaded[0].removeprefix("images=")
    assert [os.fsencode(path.name) for path in there.iterdir()] == [b"caf\xe9.jpg"]


class _Liar:
    """A far end that answers each request with the next of the given lines."""

    pod, over = "pod", False

    def __init__(self, *answers: object) -> None:
        self.answers, self.block = [*answers], b""

    def write(self, block: bytes) -> None:
        self.block += self.answers.pop(0)  # type: ignore[operator]

    def read(self, seconds: float) -> None:
        pass

    def taken(self) -> bytes:
        block, self.block = self.block, b""
        return block


def told(*answers: dict[str, object]) -> bytes:
    return b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)


GOOD = "0" * 64
END = {"listed": "in"}


@pytest.mark.parametrize(
    "digest",
    ["../../../x", "/../../x" + "0" * 56, "0" * 63, "0" * 65, "G" * 64, GOOD + "\n", "A" * 64, 7, None, [GOOD]],
)
def test_a_digest_from_the_far_end_is_64_hexadecimal_digits(tmp_path: Path, digest: object) -> None:
    """The digest becomes a part of a file name, so that another text could lead out of the target."""
    liar = _Liar(
        told({"name": "a", "size": 1, "sha256": digest}, END), told({"name": "a", "offset": 0, "data": 1}) + b"x"
    )
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ClusterError, match="is not 64 hexadecimal digits"):
        _Download("in", tmp_path / "a/b/c").go(Connection(liar))  # type: ignore[arg-type]
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("digest", ["../../../../x", "0" * 63, "Z" * 64])
def test_the_far_end_refuses_such_a_digest_too(far: Path, digest: str) -> None:
    pipe = Pipe(far)
    connection = Connection(pipe)  # type: ignore[arg-type]
    connection.ask(b"x", do="put", path="in/a", offset=0, length=1, sha256=digest, last=False)
    with pytest.raises(ClusterError, match="is not 64 hexadecimal digits"):
        connection.one()
    pipe.close()
    assert names(far) == set()


@pytest.mark.parametrize("size", [-1, "1", None])
def test_a_size_that_no_file_has_is_refused(tmp_path: Path, size: object) -> None:
    liar = _Liar(told({"name": "a", "size": size, "sha256": GOOD}, END))
    with pytest.raises(ClusterError, match="as the size of a file"):
        _Download("in", tmp_path / "back").go(Connection(liar))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"name": "b"}, {"offset": 1 << 40}, {"offset": None}, {"name": "../a"}])
def test_a_block_that_was_not_requested_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    liar = _Liar(
        told({"name": "a", "size": 1, "sha256": GOOD}, END),
        told({"name": "a", "offset": 0, "data": 1} | wrong) + b"x",
    )
    with pytest.raises(ClusterError, match="not requested"):
        _Download("in", tmp_path / "back").go(Connection(liar))  # type: ignore[arg-type]
    assert not (tmp_path / "back").exists()


def test_a_name_that_leads_out_of_the_target_is_refused(tmp_path: Path) -> None:
    liar = _Liar(told({"name": "../a", "size": 1, "sha256": GOOD}, END))
    with pytest.raises(ConfigError, match="leads outside"):
        _Download("in", tmp_path / "back").go(Connection(liar))  # type: ignore[arg-type]


def test_names_of_skipped_files_hold_no_control_characters(tmp_path: Path) -> None:
    liar = _Liar(told({"skipped": "a\x1b[2J\nb", "reason": "\x1b]0;x\x07"}, END))
    with pytest.raises(DataError) as error:
        _Download("in", tmp_path / "back").go(Connection(liar))  # type: ignore[arg-type]
    assert str(error.value).splitlines()[1] == r"Skipped: a\x1b[2J\nb (\x1b]0;x\x07)"


def test_a_part_of_a_file_has_a_name_that_fits_any_folder() -> None:
    for name in ("x" * 255, "器" * 85, "\U0001f3fa" * 63):
        assert len(os.fsencode(paths.part_of(Path(name), GOOD).name)) <= 255
