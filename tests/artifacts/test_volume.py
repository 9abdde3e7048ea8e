"""Sealing, verifying and committing: an incomplete or changed artifact is never used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vasevqa import files
from vasevqa.artifacts.contents import list_files
from vasevqa.artifacts.lease import Lease, LeaseHeld
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Artifact, Volume
from vasevqa.errors import ConfigError, DataError, VaseError


def sealed(volume: Path, key: str = "k1") -> Artifact:
    artifact = Volume(volume).artifact("touch", key)
    output = StageOutput(artifact.partial)
    output.write_text("a/one.txt", "one")
    output.write_json("two.json", {"two": 2})
    output.seal({"step": "touch", "key": key})
    return artifact


def test_a_sealed_and_committed_artifact_is_complete_and_recorded(volume_root: Path) -> None:
    artifact = sealed(volume_root)
    assert artifact.sealed
    assert not artifact.complete
    assert artifact.commit("launcher-1") is True
    assert artifact.complete
    assert not artifact.partial.exists()
    assert not artifact.lease.exists()
    record = artifact.record()
    assert set(record["files"]) == {"a/one.txt", "two.json"}
    assert record["files"]["a/one.txt"] == {"size": 3, "sha256": files.digest_file(artifact.path / "a/one.txt")}


def test_a_second_launcher_commits_nothing(volume_root: Path) -> None:
    artifact = sealed(volume_root)
    artifact.commit("launcher-1")
    assert artifact.commit("launcher-2") is False


def test_no_launcher_commits_while_a_writer_works(volume_root: Path) -> None:
    artifact = sealed(volume_root)
    writer = Lease.acquire(artifact.lease, "writer")
    with pytest.raises(LeaseHeld):
        artifact.commit("launcher")
    writer.release()
    assert artifact.commit("launcher")


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "truncated"])
def test_an_artifact_that_differs_from_its_record_is_not_committed(volume_root: Path, damage: str) -> None:
    artifact = sealed(volume_root)
    one = artifact.partial / "a/one.txt"
    if damage == "changed":
        one.write_text("eno")
    elif damage == "missing":
        one.unlink()
    elif damage == "truncated":
        one.write_text("o")
    else:
        (artifact.partial / "late.txt").write_text("late")
    with pytest.raises(DataError) as error:
        artifact.commit("launcher")
    assert str(artifact.partial) in str(error.value)
    assert not artifact.complete


def test_sealing_removes_the_files_that_a_killed_writer_left(volume_root: Path) -> None:
    artifact = Volume(volume_root).artifact("touch", "k")
    output = StageOutput(artifact.partial)
    (artifact.partial / ".one.txt.123.abcdef.tmp").write_text("half")
    output.write_text("one.txt", "one")
    output.seal({})
    assert sorted(path.name for path in artifact.partial.iterdir()) == ["artifact.json", "one.txt"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "report.json", "old")
    with pytest.raises(RuntimeError), files.writing(tmp_path / "report.json", "w") as stream:
        stream.write("new")
        raise RuntimeError
    assert (tmp_path / "report.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_users_file_is_copied_and_an_artifacts_file_is_linked(volume_root: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"photo")
    first = Volume(volume_root).artifact("classify", "k1")
    output = StageOutput(first.partial)
    assert output.place(photo, "1/photo.jpg") in ("copy", "reflink")
    output.seal({})
    first.commit("l")
    photo.write_bytes(b"edited later")
    assert (first.path / "1/photo.jpg").read_bytes() == b"photo"

    second = Volume(volume_root).artifact("clip-filter", "k2")
    output = StageOutput(second.partial)
    assert output.place(first.path / "1/photo.jpg", "accepted/photo.jpg") == "link"
    output.seal({})
    second.commit("l")
    assert (first.path / "1/photo.jpg").stat().st_ino == (second.path / "accepted/photo.jpg").stat().st_ino
    assert second.record()["files"]["accepted/photo.jpg"]["sha256"] == files.digest_file(
        photo.parent / "volume/artifacts/classify/k1/1/photo.jpg"
    )


def test_placing_a_file_again_replaces_it_and_leaves_no_temporary_file(volume_root: Path) -> None:
    artifact = sealed(volume_root)
    artifact.commit("l")
    target = volume_root / "out"
    for _ in range(2):
        assert files.place(artifact.path / "two.json", target / "two.json") == "link"
    assert [path.name for path in target.iterdir()] == ["two.json"]


def test_linking_falls_back_to_a_copy_where_links_are_refused(
    volume_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = sealed(volume_root)
    artifact.commit("l")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert files.place(artifact.path / "two.json", volume_root / "copy.json") in ("copy", "reflink")
    assert json.loads((volume_root / "copy.json").read_text()) == {"two": 2}


@pytest.mark.parametrize("name", ["../escape.txt", "/etc/escape.txt", "a/../../escape.txt"])
def test_a_path_outside_the_output_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(VaseError):
        StageOutput(tmp_path / "out").write_text(name, "x")


def test_the_error_about_a_damaged_record_names_the_remedy(volume_root: Path) -> None:
    artifact = sealed(volume_root)
    artifact.commit("l")
    files.write_text(artifact.path / "artifact.json", "{")
    with pytest.raises(DataError, match="vasevqa verify touch --repair"):
        artifact.record()


def test_paths_outside_the_volume_are_refused(volume_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="outside the volume"):
        Volume(volume_root).relative(tmp_path / "elsewhere")


def test_list_files_is_sorted_by_relative_name(volume_root: Path) -> None:
    artifact = sealed(volume_root)
    assert list(list_files(artifact.partial)) == ["a/one.txt", "two.json"]


def test_a_photograph_that_was_removed_before_it_was_placed_is_one_sentence(tmp_path: Path, volume_root: Path) -> None:
    output = StageOutput(Volume(volume_root).artifact("touch", "k1").partial)
    with pytest.raises(
        DataError, match=r"gone.jpg was removed while the step read it; start again, .* during the run\.$"
    ):
        output.place(tmp_path / "gone.jpg", "accepted/gone.jpg")
    assert list(output.root.rglob("*.jpg")) == []
