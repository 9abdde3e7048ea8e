"""The store of values by a photograph's content: damage, limits, several writers, and the digests of photographs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vasevqa import files, storage
from vasevqa.artifacts import known
from vasevqa.artifacts.digests import DigestCache
from vasevqa.artifacts.known import KnownPhotographs, KnownValues, content_digests
from vasevqa.errors import DataError, TransientStorageError

MADE_FOR = {"stage": "classify", "model": "abc"}
VALUES = {"d1": b"one", "d2": b"two"}


def only(volume: Path) -> Path:
    (path,) = (volume / known.FOLDER).glob("*.sqlite")
    return path


def test_values_are_found_by_content_and_by_what_they_were_made_for(tmp_path: Path) -> None:
    KnownValues(tmp_path, MADE_FOR).add(VALUES)
    assert KnownValues(tmp_path, MADE_FOR).find(["d1", "d2", "d3"]) == VALUES
    assert KnownValues(tmp_path, {**MADE_FOR, "model": "other"}).find(["d1"]) == {}


def test_more_values_are_found_than_a_query_has_variables(tmp_path: Path) -> None:
    many = {f"{number:064}": b"x" for number in range(40_000)}
    KnownValues(tmp_path, MADE_FOR).add(many)
    assert len(KnownValues(tmp_path, MADE_FOR).find(many)) == 40_000


def test_a_damaged_value_is_not_found_and_is_replaced(tmp_path: Path) -> None:
    store = KnownValues(tmp_path, MADE_FOR)
    store.add(VALUES)
    with sqlite3.connect(only(tmp_path)) as connection:
        connection.execute("UPDATE known SET value = x'00' WHERE digest = 'd1'")
        connection.execute("UPDATE known SET value = 7 WHERE digest = 'd2'")
    assert store.find(VALUES) == {}
    store.add(VALUES)
    assert store.find(VALUES) == VALUES


@pytest.mark.parametrize("damage", ["text", "cut", "another program's table"])
def test_a_damaged_file_is_no_error(tmp_path: Path, damage: str) -> None:
    store = KnownValues(tmp_path, MADE_FOR)
    store.add({f"{number}": b"x" * 500 for number in range(100)})
    path = only(tmp_path)
    if damage == "text":
        path.write_text("This is no database.\n" * 200)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:9000])
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE known (other TEXT)")
    assert store.find(["1"]) == {}
    store.add(VALUES)
    assert store.find(VALUES) in ({}, VALUES)


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    store = KnownValues(tmp_path, MADE_FOR)
    store.add(VALUES)
    only(tmp_path).write_text("This is no database.\n" * 200)
    assert store.find(VALUES) == {}
    store.add(VALUES)
    assert store.find(VALUES) == VALUES


def test_another_models_values_are_not_taken_for_this_models(tmp_path: Path) -> None:
    other = KnownValues(tmp_path, {**MADE_FOR, "model": "other"})
    other.add(VALUES)
    there = only(tmp_path)
    store = KnownValues(tmp_path, MADE_FOR)
    store.add({"d9": b"nine"})
    (here,) = (path for path in there.parent.glob("*.sqlite") if path != there)
    shutil.copy(there, here)
    assert store.find(["d1", "d9"]) == {}


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    store = KnownValues(tmp_path, MADE_FOR)
    store.add(VALUES)
    path = only(tmp_path)
    path.unlink()
    path.symlink_to("/dev/full")
    store.add(VALUES)
    assert store.find(VALUES) == {}
    (tmp_path / "elsewhere").write_text("a file in the place of the volume")
    KnownValues(tmp_path / "elsewhere", MADE_FOR).add(VALUES)


def test_several_stages_write_at_once(tmp_path: Path) -> None:
    parts = [{f"{writer}-{number}": b"x" * 100 for number in range(200)} for writer in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: KnownValues(tmp_path, MADE_FOR).add(part), parts))
    assert len(KnownValues(tmp_path, MADE_FOR).find([name for part in parts for name in part])) == 1600


def test_the_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(known.KEPT + 3):
        KnownValues(tmp_path, {**MADE_FOR, "model": number}).add(VALUES)
        for path in (tmp_path / known.FOLDER).glob("*.sqlite"):  # older than the next file
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
        KnownValues(tmp_path, {**MADE_FOR, "model": 0}).find(["d1"])
    assert len(list((tmp_path / known.FOLDER).iterdir())) == known.KEPT
    assert KnownValues(tmp_path, {**MADE_FOR, "model": 0}).find(["d1"]) == {"d1": b"one"}  # it was used
    assert KnownValues(tmp_path, {**MADE_FOR, "model": 1}).find(["d1"]) == {}
    monkeypatch.setattr(known, "LARGEST", 100)
    store = KnownValues(tmp_path, {**MADE_FOR, "model": 0})
    store.add({"d3": b"three"})
    assert store.find(["d1", "d3"]) == {"d3": b"three"}


def test_a_full_store_loses_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = b"x" * 100
    monkeypatch.setattr(known, "LARGEST", 3 * (len(value) + known.ROW))
    store = KnownValues(tmp_path, MADE_FOR)
    for name in ("a", "b", "c"):
        store.add({name: value})
    store.add({"d": value}, used=["a"])
    assert sorted(store.find("abcd")) == ["a", "c", "d"]
    store.add(dict.fromkeys(("e", "f"), value), used=["d"])
    assert sorted(store.find("abcdef")) == ["d", "e", "f"]
    store.add({str(number): value for number in range(10)})  # more than fits
    assert len(store.find([*"abcdef", *map(str, range(10))])) == 3
    monkeypatch.setattr(known, "LARGEST", 1 << 20)
    store.add({"g": value})
    assert len(store.find([*"abcdefg", *map(str, range(10))])) == 4


def test_values_without_a_time_of_use_are_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file comes from an earlier version."""
    store = KnownValues(tmp_path, MADE_FOR)
    store.add({"a": b"x", "b": b"x"})
    with sqlite3.connect(only(tmp_path)) as connection:
        connection.execute("DROP TABLE uses")
    store.add({}, used=["b"])
    monkeypatch.setattr(known, "LARGEST", 2 * (1 + known.ROW))
    store.add({"c": b"x"})
    assert sorted(store.find("abc")) == ["b", "c"]


def test_what_a_run_found_again_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    KnownPhotographs(tmp_path, tmp_path, ["a"], MADE_FOR).keep({"a": b"1"})
    KnownPhotographs(tmp_path, tmp_path, ["b"], MADE_FOR).keep({"b": b"2"})
    again = KnownPhotographs(tmp_path, tmp_path, ["a"], MADE_FOR)
    assert again.lacking(["a", "b"]) == []
    again.keep({})
    monkeypatch.setattr(known, "LARGEST", 2 * (1 + known.ROW))
    photographs = KnownPhotographs(tmp_path, tmp_path, ["c"], MADE_FOR)
    assert photographs.lacking(["a", "c"]) == ["c"]
    photographs.keep({"c": b"3"})
    assert KnownPhotographs(tmp_path, tmp_path, ["a", "b", "c"], MADE_FOR).values == {"a": b"1", "c": b"3"}


def test_a_photograph_that_changed_meanwhile_is_not_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    photographs = KnownPhotographs(tmp_path, tmp_path, ["a", "b", "missing"], MADE_FOR)
    (tmp_path / "a").write_text("edited")
    photographs.keep({"a": b"1", "b": b"2", "missing": b"3"})
    (tmp_path / "a").write_text("a")
    assert KnownPhotographs(tmp_path, tmp_path, ["a", "b"], MADE_FOR).values == {"b": b"2"}


def test_digests_of_files_come_from_the_cache_of_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    (folder / "louvre").mkdir(parents=True)
    for name in ("a.jpg", "louvre/b.jpg"):
        (folder / name).write_text(name)
        os.utime(folder / name, ns=(0, 0))
    os.mkfifo(folder / "pipe.jpg")
    names = ["a.jpg", "louvre/b.jpg", "pipe.jpg", "missing.jpg"]
    right = {name: files.digest_file(folder / name) for name in names[:2]}
    assert content_digests(tmp_path, folder, names, reading=False) == {}
    assert content_digests(tmp_path, folder, names) == right


@pytest.fixture
def ill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of files at which the storage fails, below a folder of 20 files."""
    names: set[str] = set()
    digest = files.digest_file

    def failing(path: Path) -> str:
        if path.name in names:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(path)

    monkeypatch.setattr(storage, "PAUSES", (0.0,))
    monkeypatch.setattr("vasevqa.artifacts.digests.RACY", 0)
    monkeypatch.setattr(files, "digest_file", failing)
    (tmp_path / "photographs").mkdir()
    for number in range(20):
        (tmp_path / f"photographs/{number:02}.jpg").write_text(str(number))
    return names


def test_a_file_that_can_t_be_read_costs_no_other_digest(tmp_path: Path, ill: set[str]) -> None:
    folder = tmp_path / "photographs"
    names = sorted(path.name for path in folder.iterdir())
    ill.add("07.jpg")
    found = content_digests(tmp_path, folder, names)
    assert sorted(found) == [name for name in names if name != "07.jpg"]
    assert content_digests(tmp_path, folder, names, reading=False) == found  # they are cached
    ill.clear()
    assert len(content_digests(tmp_path, folder, names)) == 20


def test_the_digest_of_a_folder_names_the_file_that_can_t_be_read_and_keeps_the_others(
    tmp_path: Path, ill: set[str]
) -> None:
    folder = tmp_path / "photographs"
    names = sorted(path.name for path in folder.iterdir())
    ill.add("07.jpg")
    cache = DigestCache(tmp_path / ".cache", tmp_path)
    with pytest.raises(TransientStorageError, match=rf"^Could not read {folder / '07.jpg'}: .*EIO"):
        cache.digest(folder)
    assert len(cache.of_files(folder, names, reading=False)) == 19
    ill.clear()
    ill |= set(names) - {"07.jpg"}  # they aren't read again
    cache.digest(folder)
    with pytest.raises(TransientStorageError, match="EIO"):
        cache.digest(folder / "08.jpg")


def test_a_file_that_vanishes_while_a_folder_is_digested_is_one_sentence(
    tmp_path: Path, ill: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photographs"
    read = files.digest_file

    def vanishing(path: Path) -> str:
        if path.name == "07.jpg":
            path.unlink()
        return read(path)

    monkeypatch.setattr(files, "digest_file", vanishing)
    with pytest.raises(DataError, match=rf"^{folder / '07.jpg'} was removed while its content was read; start again"):
        DigestCache(tmp_path / ".cache", tmp_path).digest(folder)


def test_a_storage_that_fails_everywhere_is_not_asked_for_every_file(tmp_path: Path, ill: set[str]) -> None:
    folder = tmp_path / "photographs"
    asked: list[Path] = []
    failing = files.digest_file
    ill |= {path.name for path in folder.iterdir()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "digest_file", lambda path: (asked.append(path), failing(path))[1])
        assert content_digests(tmp_path, folder, sorted(ill)) == {}
    assert len(set(asked)) <= 3 + 3  # three that failed, and those of the other threads


def test_a_full_disk_computes_no_digest_twice(tmp_path: Path, ill: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photographs"
    asked: list[Path] = []
    real = files.digest_file
    monkeypatch.setattr(files, "digest_file", lambda path: (asked.append(path), real(path))[1])
    (tmp_path / ".cache").mkdir()
    DigestCache(tmp_path / ".cache", tmp_path).digest(folder / "00.jpg")
    with sqlite3.connect(tmp_path / ".cache/digests.sqlite") as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'full'); END")
    asked.clear()
    DigestCache(tmp_path / ".cache", tmp_path).digest(folder)
    assert len(asked) == 20


def test_a_plans_digests_are_found_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vasevqa.artifacts.digests.RACY", 0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "a.jpg").write_text("a")
    DigestCache(tmp_path / ".cache", tmp_path).digest(folder)
    right = {"a.jpg": files.digest_file(folder / "a.jpg")}
    assert content_digests(tmp_path, folder, ["a.jpg"], reading=False) == right
    (folder / "a.jpg").write_text("edited")
    assert content_digests(tmp_path, folder, ["a.jpg"], reading=False) == {}


def test_digests_of_an_artifacts_files_come_from_its_record(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts/classify/key"
    (folder / "1").mkdir(parents=True)
    (folder / "1/a.jpg").write_text("a")
    (folder / "artifact.json").write_text(json.dumps({"files": {"1/a.jpg": {"sha256": "recorded"}}}))
    assert content_digests(tmp_path, folder / "1", ["a.jpg", "b.jpg"], reading=False) == {"a.jpg": "recorded"}
    assert content_digests(tmp_path, folder, ["1/a.jpg"]) == {"1/a.jpg": "recorded"}
    (folder / "artifact.json").write_text("{damaged")
    assert content_digests(tmp_path, folder / "1", ["a.jpg"]) == {}
