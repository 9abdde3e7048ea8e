"""Both ends of a transfer over pipes. The far end is the process that also runs in a pod."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.far import Pipe
from vasevqa import files
from vasevqa.errors import ClusterError, ConfigError, ConnectionLost, DataError
from vasevqa.transfer import far_end, paths, sending, walking
from vasevqa.transfer.connection import Connection
from vasevqa.transfer.fetching import _Download
from vasevqa.transfer.sending import _Upload


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "far"
    root.mkdir()
    yield root
    for pipe in _started:
        pipe.close()
    _started.clear()


_started: list[Pipe] = []


def ignored(name: str, reason: str) -> None:
    """Forget what a walk skips."""


def connect(root: Path, limit: int = 1 << 40) -> Connection:
    pipe = Pipe(root, limit)
    _started.append(pipe)
    return Connection(pipe)  # type: ignore[arg-type]


def source(folder: Path) -> dict[str, Path]:
    (folder / "a").mkdir(parents=True)
    (folder / "a/é.jpg").write_bytes(b"one")
    (folder / "empty").touch()
    (folder / "large").write_bytes(os.urandom(5 << 20))
    (folder / ".left.part").write_bytes(b"of an earlier transfer")
    (folder / "link").symlink_to("large")
    return {f"in/{name}": path for name, path in walking.walk(folder, ignored)}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".part"
    }


def test_files_arrive_completely_and_once(far: Path, tmp_path: Path) -> None:
    upload = _Upload(source(tmp_path / "here"))
    upload.go(connect(far))
    assert contents(far / "in") == contents(tmp_path / "here")
    assert upload.sent == 4
    again = _Upload({f"in/{name}": path for name, path in walking.walk(tmp_path / "here", ignored)})
    again.go(connect(far))
    assert (again.sent, again.bytes) == (0, 0)
    download = _Download("in", tmp_path / "back")
    download.go(connect(far))
    assert contents(tmp_path / "back") == contents(tmp_path / "here")
    assert (download.total, download.got) == (4, 4)


def test_data_that_arrived_before_a_lost_connection_is_not_sent_again(far: Path, tmp_path: Path) -> None:
    upload = _Upload(source(tmp_path / "here"))
    with pytest.raises(ConnectionLost) as broken:
        upload.go(connect(far, 3 << 20))
    assert broken.value.moved
    [part] = (far / "in").glob(".large*.part")
    have = part.stat().st_size
    assert 0 < have < 5 << 20
    before = upload.bytes
    upload.go(connect(far))
    assert contents(far / "in") == contents(tmp_path / "here")
    # `link` has the size of `large`; the three bytes may have arrived before the loss
    assert upload.bytes - before <= (10 << 20) + 3 - have
    assert not list((far / "in").glob(".*.part"))


def test_an_interrupted_download_resumes_and_leaves_no_partial_file(far: Path, tmp_path: Path) -> None:
    source(far / "in")
    download = _Download("in", tmp_path / "back")
    with pytest.raises(ConnectionLost):
        download.go(connect(far, 3 << 20))
    assert not (tmp_path / "back/large").exists()
    download.go(connect(far))
    assert contents(tmp_path / "back") == contents(far / "in")


def test_a_damaged_part_is_deleted_and_sent_again(far: Path, tmp_path: Path) -> None:
    source(tmp_path / "here")
    large = tmp_path / "here/large"
    part = paths.part_of(far / "in/large", files.digest_file(large))
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    upload = _Upload({"in/large": large})
    upload.go(connect(far))
    assert (far / "in/large").read_bytes() == large.read_bytes()


def test_a_file_that_changes_all_the_time_is_an_error(
    far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "busy"
    path.write_bytes(b"xyz")
    monkeypatch.setattr(files, "digest_file", lambda path: "0" * 64)
    with pytest.raises(DataError, match="may still be writing it"):
        _Upload({"busy": path}).go(connect(far))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "out/x", "artifacts/x", "runs/x", ".cache/x"])
def test_paths_outside_the_volume_are_refused(far: Path, tmp_path: Path, name: str) -> None:
    (far / "out").symlink_to(tmp_path)
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with pytest.raises(ConfigError):
        _Upload({name: path}).go(connect(far))
    assert path.read_bytes() == b"x"


def test_the_far_end_can_not_write_outside_the_target(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        _Download("in", tmp_path / "back")._here("../../x")


def test_links_out_of_the_volume_are_not_fetched(far: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (far / "in").mkdir()
    (far / "in/secret").symlink_to(tmp_path / "secret")
    (far / "in/plain").write_text("p")
    download = _Download("in", tmp_path / "back")
    download.go(connect(far))
    assert contents(tmp_path / "back") == {"plain": b"p"}
    with pytest.raises(ConfigError, match="leads out"):
        _Download("in/secret", tmp_path / "back").go(connect(far))


def test_a_folder_with_the_name_of_a_file_is_reported(far: Path, tmp_path: Path) -> None:
    (far / "x").mkdir()
    (tmp_path / "x").write_text("x")
    with pytest.raises(ConfigError, match="is a folder"):
        _Upload({"x": tmp_path / "x"}).go(connect(far))


def test_an_idle_pod_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(far_end, "ALIVE", tmp_path / "alive")
    assert far_end.main(["--wait", "0.2"]) == 0


def test_inputs_with_other_content_get_another_folder(
    far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inputs of two recipes are never mixed, and an upload never changes inputs that a run reads."""
    monkeypatch.setattr(sending, "persistently", lambda access, work: work(connect(far)))
    photos = tmp_path / "photos"
    source(photos)
    (tmp_path / "list.json").write_text("[]")

    def submit() -> str:
        inputs = {"images": "photos", "model": "hub/name", "annotations": "list.json"}
        [images, model, annotations] = sending.upload_inputs(None, inputs, tmp_path)  # type: ignore[arg-type]
        assert model == "model=hub/name"
        assert re.fullmatch(r"annotations=inputs/annotations-[0-9a-f]{10}/list\.json", annotations)
        assert (far / annotations.removeprefix("annotations=")).read_text() == "[]"
        return images.removeprefix("images=")

    first = submit()
    assert submit() == first
    assert "0 sent (0 bytes)" in capsys.readouterr().out
    before = {path.name for path in (far / first).rglob("*")}
    (photos / "empty").unlink()
    (photos / "new.jpg").write_bytes(b"new")
    second = submit()
    assert second != first
    assert {path.name for path in (far / first).rglob("*")} == before
    assert {path.name for path in (far / second).rglob("*")} == (before | {"new.jpg"}) - {"empty"}


def test_unreadable_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "photos")

    def closed(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", closed)  # root reads every folder
    with pytest.raises(PermissionError, match="photos"):
        dict(walking.walk(tmp_path / "photos", ignored))


def test_an_answer_can_not_fill_this_machine_s_memory(tmp_path: Path) -> None:
    """Whatever runs in the pod, its answers have a limit."""

    class Said:
        pod = "pod"
        over = False

        def __init__(self, block: bytes) -> None:
            self.block = block

        def read(self, seconds: float) -> None:
            pass

        def taken(self) -> bytes:
            return self.block

    for block in (b'{"data": 99999999999}\n', b'{"data": -1}\n', b"no answer\n", b"[1]\n", b"x" * (1 << 24)):
        with pytest.raises(ClusterError, match="image has this version of vasevqa"):
            next(Connection(Said(block)).answers(True))  # type: ignore[arg-type]


def test_a_far_end_that_fails_tells_why(far: Path) -> None:
    pipe = Pipe(far, module="vasevqa.no_such_module")
    _started.append(pipe)
    with pytest.raises(ConnectionLost, match=r"No module named vasevqa\.no_such_module"):
        next(Connection(pipe).answers(True))  # type: ignore[arg-type]


def test_answers_that_have_arrived_are_not_waited_for() -> None:
    """A long list arrives in one block. Then there are no further bytes to wait for."""

    class Arrived:
        pod = "p"
        over = False
        block = b"".join(json.dumps({"name": f"{number}.jpg"}).encode() + b"\n" for number in range(500))
        waits = 0

        def read(self, seconds: float) -> None:
            self.waits += seconds > 0

        def taken(self) -> bytes:
            block, self.block = self.block, b""
            return block

    process = Arrived()
    connection = Connection(process)  # type: ignore[arg-type]
    assert [connection.one()["name"] for _ in range(500)] == [f"{number}.jpg" for number in range(500)]
    assert process.waits == 1
