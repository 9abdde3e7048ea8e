"""Committed files are read-only, a damaged record is no artifact, and a digest is always of the bytes beside it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faulting.drill import Fault, compiled, failing
from tests.pipeline.kit import ROOT
from vasevqa import files
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.errors import DataError
from vasevqa.training.swift.environment import keep_copies_writable
from vasevqa.transfer.paths import standing, write

OTHER = 12345  # a user without files


def made(volume: Path, step: str = "touch", key: str = "k1") -> Artifact:
    artifact = Volume(volume).artifact(step, key)
    output = StageOutput(artifact.partial)
    output.write_text("a/one.txt", "one")
    output.write_json("two.json", {"two": 2})
    output.seal({"step": step, "key": key})
    artifact.commit("launcher")
    return artifact


def as_other_user(act: Callable[[], object]) -> str:
    """Call `act` in a process of a user who owns none of the files. Return the result as text, or the error."""
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(OTHER)
        os.setuid(OTHER)
        try:
            said = str(act())
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    return said


def opened(path: Path) -> None:
    """Let other users reach a folder of pytest."""
    for folder in (path, *path.parents[:-1]):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o755)


def test_committed_files_are_read_only_and_the_artifact_can_be_removed(volume_root: Path) -> None:
    artifact = made(volume_root)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in artifact.path.rglob("*") if path.is_file()}
    assert modes == dict.fromkeys(("one.txt", "two.json", "artifact.json"), 0o444)
    assert all(path.stat().st_mode & 0o200 for path in (artifact.path, artifact.path / "a"))
    shutil.copytree(artifact.path, volume_root / "copied")
    for folder in (artifact.path, volume_root / "copied"):
        opened(folder)
        for path in (folder.parent, folder, *folder.rglob("*")):
            os.chown(path, OTHER, OTHER)
        assert as_other_user(lambda folder=folder: subprocess.call(["rm", "-rf", folder])) == "0"  # type: ignore[misc]
        assert not folder.exists()


def test_copies_and_transfers_of_read_only_files_can_be_written(volume_root: Path, tmp_path: Path) -> None:
    artifact = made(volume_root)
    files.copy(artifact.path / "two.json", tmp_path / "copy.json")
    assert (tmp_path / "copy.json").stat().st_mode & 0o200
    # A download replaces a read-only file of the same name.
    target, block = tmp_path / "two.json", b"new"
    shutil.copy(artifact.path / "two.json", target)
    digest = files.hashlib.sha256(block).hexdigest()
    assert standing(target, len(block), digest) == 0
    assert write(target, 0, block, digest, True)
    assert target.read_bytes() == block


def test_another_user_gets_a_copy_where_the_system_forbids_a_hard_link(volume_root: Path, tmp_path: Path) -> None:
    artifact, theirs = made(volume_root), tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)
    opened(artifact.path)
    opened(theirs)
    how = as_other_user(lambda: files.place(artifact.path / "two.json", theirs / "two.json"))
    protected = Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"
    assert how in (("copy", "reflink") if protected else ("link",))
    assert (theirs / "two.json").read_text() == (artifact.path / "two.json").read_text()


def test_copies_of_a_models_files_can_be_replaced_by_a_later_checkpoint(
    volume_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = made(volume_root)
    for name in ("copymode", "copystat"):
        monkeypatch.setattr(shutil, name, getattr(shutil, name))
    keep_copies_writable()
    shutil.copy(artifact.path / "two.json", tmp_path / "by-copy.json")
    shutil.copy2(artifact.path / "two.json", tmp_path / "by-copy2.json")
    shutil.copytree(artifact.path, tmp_path / "tree")
    for path in (*tmp_path.glob("by-*.json"), tmp_path / "tree/a/one.txt"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE((artifact.path / "two.json").stat().st_mode) == 0o444


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": []}', "\0" * 100])
def test_an_artifact_with_an_empty_or_damaged_record_does_not_count(volume_root: Path, text: str) -> None:
    artifact = made(volume_root)
    assert artifact.complete
    files.write_text(artifact.path / "artifact.json", text)
    assert not artifact.complete
    assert Volume(volume_root).complete("touch") == []
    with pytest.raises(DataError, match=r"artifact\.json is damaged"):
        artifact.record()
    assert made(volume_root).complete  # the step is made anew
    assert len(list(artifact.path.parent.glob("*.aside"))) == 1


def test_a_damaged_record_of_a_sealed_folder_is_not_committed(volume_root: Path) -> None:
    artifact = Volume(volume_root).artifact("touch", "k")
    output = StageOutput(artifact.partial)
    output.write_text("one.txt", "one")
    output.seal({})
    (artifact.partial / "artifact.json").write_bytes(b"")
    assert not artifact.sealed
    with pytest.raises(DataError, match=r"artifact\.json is missing or damaged"):
        artifact.commit("launcher")


def test_a_record_holds_the_digest_of_a_file_that_replaced_a_link(volume_root: Path) -> None:
    first, second = made(volume_root), Volume(volume_root).artifact("next", "k2")
    output = StageOutput(second.partial)
    output.place(first.path / "two.json", "two.json")
    output.write_text("two.json", "mine")
    output.seal({})
    second.commit("launcher")
    record = second.record()["files"]
    assert record["two.json"]["sha256"] == files.digest_file(second.path / "two.json")  # type: ignore[index]


def test_a_changed_file_of_an_artifact_does_not_get_into_the_next_artifact(volume_root: Path) -> None:
    first, second = made(volume_root), Volume(volume_root).artifact("next", "k2")
    changed = first.path / "a/one.txt"
    before = changed.stat()
    changed.chmod(0o644)
    changed.write_text("eno")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    output = StageOutput(second.partial)
    assert output.place(changed, "one.txt") == "link"
    with pytest.raises(DataError, match=r"one.txt differs from what its step wrote; .*vasevqa verify --repair"):
        output.seal({})
    assert not second.sealed


def with_failing(call: str, nth: int, under: Path, program: str, *words: Path) -> tuple[bool, str]:
    """Run a Python program whose `nth` call below `under` fails with EIO. Return if it failed, and the errors."""
    mark = under.parent / "mark"
    ended = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": str(compiled(under.parent)),
            **failing(Fault("", call, errno.EIO, nth), under, mark),
        },
        capture_output=True,
        text=True,
    )
    return mark.exists(), ended.stderr


@pytest.mark.skipif(shutil.which("gcc") is None, reason="LD_PRELOAD needs gcc, which isn't here")
def test_an_error_while_the_volume_is_synced_is_no_complete_artifact(volume_root: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vasevqa.artifacts.output import StageOutput\n"
        "output = StageOutput(Path(sys.argv[1])); output.write_text('one.txt', 'one'); output.seal({})"
    )
    partial = volume_root / "artifacts/touch/k.partial"
    failed, errors = with_failing("syncfs", 1, volume_root, program, partial)
    assert failed
    assert "Input/output error" in errors
    assert (partial / "one.txt").exists()
    assert not (partial / "artifact.json").exists()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="LD_PRELOAD needs gcc, which isn't here")
@pytest.mark.parametrize(("nth", "named"), [(1, "one.txt"), (2, "folder")])
def test_a_file_and_then_its_folder_are_synced(tmp_path: Path, nth: int, named: str) -> None:
    program = (
        "import sys; from pathlib import Path; from vasevqa import files\n"
        "files.write_text(Path(sys.argv[1]) / 'one.txt', 'one')"
    )
    failed, errors = with_failing("fsync", nth, tmp_path / "folder", program, tmp_path / "folder")
    assert failed
    assert errors.rstrip().endswith(f"{named}'")
