"""What labels do: 0/ and 1/ for train-classifier, agreement of reviewers, Label Studio's JSON."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest

from tests.review import kit
from vasevqa import files
from vasevqa.curation.labels import labelled_images
from vasevqa.curation.naming import naming_of
from vasevqa.dataset.collection import look_at, look_at_table
from vasevqa.errors import ConfigError, DataError
from vasevqa.review.label_studio import read_tasks
from vasevqa.review.photographs import photographs_of
from vasevqa.review.questions import INTACT, QUALITY
from vasevqa.review.record import Record


def test_train_classifier_reads_the_placed_photographs(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    for vase in range(1, 5):
        kit.say(record, f"V{vase}/IMG_0000.png", "high")
        kit.say(record, f"V{vase}/IMG_0001.png", "low")
        kit.say(record, f"V{vase}/IMG_0002.png", "unsure")
    found = labelled_images(record.into)[0]
    assert sorted(item.name for item in found) == [
        f"{label}/V{vase}/IMG_000{1 - label}.png" for label in (0, 1) for vase in range(1, 5)
    ]
    assert naming_of(None, [item.file.name for item in found]).names == ["folder/view"]
    assert record.counts() == {"high": 4, "low": 4, "unsure": 4, "disputed": 0}
    source, copy = tmp_path / "photos/V1/IMG_0000.png", record.into / "1/V1/IMG_0000.png"
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_ino != source.stat().st_ino


def test_a_changed_mind_moves_the_photograph(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    for label, there in (("low", ["0/V1/IMG_0000.png"]), ("high", ["1/V1/IMG_0000.png"]), ("unsure", [])):
        kit.say(record, "V1/IMG_0000.png", label)
        assert kit.placed(record.into) == there


def test_a_copy_that_fails_is_made_later_and_keeps_no_other_from_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    other = kit.record(tmp_path / "photos", tmp_path / "quality")
    for number in range(3):
        kit.say(other, f"V1/IMG_000{number}.png", "high", "ben")
    for path in (tmp_path / "quality/1").rglob("*.png"):
        path.unlink()
    full = [f"V1/IMG_000{number}.png" for number in range(2)]
    copy = files.copy

    def failing(source: Path, target: Path) -> str:
        if source.relative_to(tmp_path / "photos").as_posix() in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return copy(source, target)

    monkeypatch.setattr(files, "copy", failing)
    record.follow()
    assert kit.placed(record.into) == ["1/V1/IMG_0002.png"]
    assert len(record.mine("ben")) == 3
    [told] = record.problems()
    assert told.startswith(f"2 labelled photographs are not in 0/ or 1/ of {record.into} yet: could not copy ")
    assert "the disk is full; free some space" in told
    kit.say(record, "V2/IMG_0000.png", "low")  # is saved, and placed beside those that wait
    assert kit.placed(record.into) == ["0/V2/IMG_0000.png", "1/V1/IMG_0002.png"]
    full.clear()
    record.follow()
    assert len(kit.placed(record.into)) == 4
    assert record.problems() == []


def test_a_few_copies_are_tried_at_once_and_all_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    other = kit.record(tmp_path / "photos", tmp_path / "quality")
    for one in other.photographs[:7]:
        kit.say(other, one.name, "high", "ben")
    shutil.rmtree(tmp_path / "quality/1")
    copy, tried = files.copy, []

    def failing(source: Path, target: Path) -> str:
        tried.append(source)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(files, "copy", failing)
        for _ in range(3):
            record.follow()
    assert len(tried) == 9
    assert len(set(tried)) == 7
    assert files.copy is copy
    record.follow()
    assert len(kit.placed(record.into)) == 7


def test_a_photograph_that_can_t_be_read_now_is_followed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kit.per_vase(tmp_path / "photos")
    other = kit.record(folder, tmp_path / "quality")
    kit.say(other, "V1/IMG_0000.png", "high", "ben")
    kit.say(other, "V1/IMG_0001.png", "low", "ben")
    os.utime(folder / "V1/IMG_0000.png", ns=(1, 1))  # it has to be read again
    digest = files.digest_file

    def failing(path: Path) -> str:
        if path.name == "IMG_0000.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(path)

    with monkeypatch.context() as patched:
        patched.setattr(files, "digest_file", failing)
        record = kit.record(folder, tmp_path / "quality")
        assert list(record.mine("ben")) == ["V1/IMG_0001.png"]
        [told] = record.problems()
        assert told.startswith("1 saved label is left out for now: could not read ")
    record.follow()
    assert len(record.mine("ben")) == 2
    assert record.problems() == []


def test_intact_places_nothing(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "intact", INTACT)
    kit.say(record, "V1/IMG_0000.png", "intact")
    assert [path.name for path in record.into.iterdir()] == ["labels.jsonl"]


def test_two_folders_with_the_same_names_share_a_set_of_labels(tmp_path: Path) -> None:
    kit.say(kit.record(kit.per_vase(tmp_path / "one"), tmp_path / "quality"), "V1/IMG_0000.png", "high")
    kit.photo(tmp_path / "two/V1/IMG_0000.png", 777)
    other = kit.record(tmp_path / "two", tmp_path / "quality")
    kit.say(other, "V1/IMG_0000.png", "high")
    first, second = kit.placed(tmp_path / "quality")
    assert second == "1/V1/IMG_0000.png"
    assert first.endswith("/V1/IMG_0000.png")
    assert (tmp_path / "quality" / first).read_bytes() == (tmp_path / "two/V1/IMG_0000.png").read_bytes()
    kit.say(other, "V1/IMG_0000.png", None)
    assert kit.placed(tmp_path / "quality") == ["1/V1/IMG_0000.png"]
    assert other.elsewhere() == 1


def test_copies_of_one_file_are_placed_once(tmp_path: Path) -> None:
    folder = kit.per_vase(tmp_path / "photos")
    (folder / "V2/IMG_0000.png").write_bytes((folder / "V1/IMG_0000.png").read_bytes())
    record = kit.record(folder, tmp_path / "quality")
    kit.say(record, "V1/IMG_0000.png", "high")
    kit.say(record, "V2/IMG_0000.png", "high")
    assert kit.placed(record.into) == ["1/V1/IMG_0000.png"]
    assert len(record.mine("anna")) == 2
    kit.say(record, "V1/IMG_0000.png", None)
    assert kit.placed(record.into) == ["1/V1/IMG_0000.png"]


def test_photographs_of_somebody_else_are_not_touched(tmp_path: Path) -> None:
    folder = kit.per_vase(tmp_path / "photos")
    kit.photo(tmp_path / "quality/0/own.png", 5)
    with pytest.raises(ConfigError, match="no review placed there"):
        kit.record(folder, tmp_path / "quality")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        kit.record(folder, tmp_path / "file")


def test_vases_that_a_table_tells_are_in_the_folders(tmp_path: Path) -> None:
    for number in range(6):
        kit.photo(tmp_path / f"photos/IMG_{number:04}.png", number)
    rows = [f"IMG_{number:04}.png,F {number // 2}/b,amphora" for number in range(6)]
    (tmp_path / "table.csv").write_text("\n".join(["image,vase_id,shape", *rows]))
    collection = look_at(tmp_path / "photos")
    assert collection.vases == {}
    told = look_at_table(tmp_path / "table.csv", collection).vase_of
    record = Record(tmp_path / "quality", QUALITY, photographs_of(collection, told))
    assert {one.vase for one in record.photographs} == {"f 0/b", "f 1/b", "f 2/b"}
    for number in range(6):
        kit.say(record, f"IMG_{number:04}.png", "high" if number % 2 else "low")
    assert kit.placed(record.into)[0] == "0/f 0_b/IMG_0000.png"
    names = [item.file.name for item in labelled_images(record.into)[0]]
    assert naming_of(None, names).names == ["folder/view"]


def test_two_reviewers_agree_as_cohen_s_kappa_says(tmp_path: Path) -> None:
    """20 and 15 common yes and no, 5 and 10 mixed: the textbook example, whose kappa is 0.4."""
    record = kit.record(kit.per_vase(tmp_path / "photos", 10, 5), tmp_path / "quality")
    names = [one.name for one in record.photographs]
    pairs = [("high", "high")] * 20 + [("high", "low")] * 5 + [("low", "high")] * 10 + [("low", "low")] * 15
    for name, (anna, ben) in zip(names, pairs, strict=True):
        kit.say(record, name, anna, "anna")
        kit.say(record, name, ben, "ben")
    [agreement] = record.agreements()
    assert agreement.kappa == pytest.approx(0.4)
    assert agreement.said() == (
        "anna and ben gave the same label to 35 of 50 photographs of 10 vases (25.0 by chance): Cohen's kappa 0.40"
    )
    assert record.counts() == {"high": 20, "low": 15, "unsure": 0, "disputed": 15}
    assert len(kit.placed(record.into)) == 35


def test_kappa_needs_two_kinds_of_labels_and_common_photographs(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    kit.say(record, "V1/IMG_0000.png", "high", "anna")
    kit.say(record, "V1/IMG_0001.png", "high", "ben")
    assert record.agreements() == []
    kit.say(record, "V1/IMG_0000.png", "high", "ben")
    assert record.agreements()[0].kappa is None
    assert "1 of 1 photographs of 1 vase (1.0 by chance): Cohen's kappa is not defined" in record.agreements()[0].said()


def task(image: str, choice: str, who: object, control: str = "quality", **more: object) -> dict[str, object]:
    result = {"from_name": control, "to_name": "img", "type": "choices", "value": {"choices": [choice]}, "id": "x1"}
    annotation = {"id": 7, "result": [result], "completed_by": who, "created_at": "2026-03-09T22:16:08.728353Z"}
    return {"id": 1, "project": 3, "data": {"image": image}, "annotations": [{**annotation, **more}]}


def test_labels_come_from_label_studio_once(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    tasks = [
        task("/data/local-files/?d=photos/V1/IMG_0000.png", "high", {"email": "eva@example.org"}, lead_time=2.5),
        task("https://example.org/V1/IMG_0001.png", "Bad", 12),
        task("s3://bucket/V1/IMG_0002.png", "unsure", 12),
        task("/data/upload/2/1a2b3c4d-IMG_0000.png", "low", 12),  # of four vases: which one isn't told
        task("/data/upload/2/other.png", "low", 12),
        task("/V2/IMG_0000.png", "low", 12, was_cancelled=True),
        task("/V2/IMG_0001.png", "damaged", 12, control="intact"),
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    read = read_tasks(tmp_path / "export.json")
    assert record.take_in(read) == (3, 2)
    assert record.take_in(read) == (0, 2)
    [line] = record.mine("eva@example.org").values()
    assert (line.name, line.label, line.milliseconds, line.why) == ("V1/IMG_0000.png", "high", 2500, "Label Studio")
    assert {name: line.label for name, line in record.mine("12").items()} == {
        "V1/IMG_0001.png": "low",
        "V1/IMG_0002.png": "unsure",
    }
    assert kit.placed(record.into) == ["0/V1/IMG_0001.png", "1/V1/IMG_0000.png"]


def test_a_project_with_one_control_may_call_it_anything(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    (tmp_path / "export.json").write_text(json.dumps([task("V1/IMG_0000.png", "good", 1, control="choice")]))
    assert record.take_in(read_tasks(tmp_path / "export.json")) == (1, 0)
    (tmp_path / "export.json").write_text(json.dumps([task("V1/IMG_0000.png", "purple", 1, control="choice")]))
    with pytest.raises(
        DataError, match=r"choice 'purple' is not an answer to --question quality; .* high, low, unsure"
    ):
        record.take_in(read_tasks(tmp_path / "export.json"))


def test_labels_go_to_label_studio_and_what_was_there_stays(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    path = tmp_path / "tasks.json"
    before = [task("/V1/IMG_0000.png", "high", 4, draft=True), task("/elsewhere.png", "low", 4)]
    path.write_text(json.dumps(before))
    record.take_in(read_tasks(path))
    kit.say(record, "V1/IMG_0000.png", "low", "anna")
    kit.say(record, "V2/IMG_0000.png", "high", "anna")
    record.give_out(path, read_tasks(path))
    first, second, third = json.loads(path.read_text())
    assert first["annotations"][0] == before[0]["annotations"][0]  # type: ignore[index]
    assert (first["id"], first["project"], second) == (1, 3, before[1])
    assert third["data"]["image"] == "/data/local-files/?d=V2/IMG_0000.png"
    assert third["data"]["vase"] == "v2"
    [given] = third["annotations"]
    assert given["result"][0]["value"] == {"choices": ["high"]}
    assert (given["result"][0]["from_name"], given["result"][0]["to_name"], given["lead_time"]) == (
        "quality",
        "img",
        1.2,
    )
    fresh = kit.record(tmp_path / "photos", tmp_path / "fresh")
    assert fresh.take_in(read_tasks(path)) == (3, 1)
    assert [line.label for line in fresh.mine("anna").values()] == ["low", "high"]
    assert fresh.mine("4")["V1/IMG_0000.png"].label == "high"
    record.give_out(path, read_tasks(path))
    assert json.loads(path.read_text()) == [first, second, third]
    kit.say(record, "V2/IMG_0000.png", None, "anna")
    record.give_out(path, read_tasks(path))
    assert json.loads(path.read_text())[2]["annotations"] == []


NAMES = (
    "V1/a b.png",
    "V1/a+b.png",
    "V1/a%20b.png",
    "V1/50% #1.png",
    "V1/what?&d=x.png",
    "Gefäß 7/Ansicht ü;v.png",
    "Αμφορέας/όψη.png",
    "V1/1a2b3c4d-c.png",
)


def test_names_with_any_characters_come_back_from_label_studio(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        kit.photo(tmp_path / "photos" / name, number)
    record = kit.record(tmp_path / "photos", tmp_path / "quality")
    for number, name in enumerate(NAMES):
        kit.say(record, name, ("high", "low")[number % 2])
    path = tmp_path / "tasks.json"
    record.give_out(path, [])
    written = {one["data"]["image"] for one in json.loads(path.read_text())}
    assert "/data/local-files/?d=V1/50%25%20%231.png" in written
    # What a server and its browser make of the addresses:
    assert {unquote(urlsplit(one).query.removeprefix("d=")) for one in written} == set(NAMES)
    assert all(one.isascii() and " " not in one for one in written)
    fresh = kit.record(tmp_path / "photos", tmp_path / "fresh")
    assert fresh.take_in(read_tasks(path)) == (len(NAMES), 0)
    assert {name: line.label for name, line in fresh.mine("anna").items()} == {
        name: ("high", "low")[number % 2] for number, name in enumerate(NAMES)
    }
    record.give_out(path, read_tasks(path))
    assert len(json.loads(path.read_text())) == len(NAMES)  # no task twice


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "address",
    ["/data/local-files/?d=photos/{raw}", "https://example.org/photos/{quoted}?signed=1", "s3://bucket/{raw}", "{raw}"],
)
def test_addresses_of_other_programs_are_read(tmp_path: Path, address: str, name: str) -> None:
    """Addresses of buckets aren't encoded, and neither were those of earlier versions, nor those that people write."""
    kit.photo(tmp_path / "photos" / name, 1)
    kit.photo(tmp_path / "photos/V1/other.png", 2)
    record = kit.record(tmp_path / "photos", tmp_path / "quality")
    image = address.format(raw=name, quoted=quote(name))
    (tmp_path / "export.json").write_text(json.dumps([task(image, "high", 4)]))
    assert record.take_in(read_tasks(tmp_path / "export.json")) == (1, 0)
    assert list(record.mine("4")) == [name]


def test_an_address_that_is_none_is_no_photograph(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    (tmp_path / "export.json").write_text(json.dumps([task("http://[", "high", 4), task("", "high", 4)]))
    assert record.take_in(read_tasks(tmp_path / "export.json")) == (0, 2)


def test_both_questions_share_a_file_and_a_control_keeps_its_name(tmp_path: Path) -> None:
    folder, path = kit.per_vase(tmp_path / "photos"), tmp_path / "tasks.json"
    for question, label in ((QUALITY, "low"), (INTACT, "intact")):
        record = kit.record(folder, tmp_path / question.name, question)
        kit.say(record, "V1/IMG_0000.png", label)
        record.give_out(path, read_tasks(path) if path.exists() else [])
    [one] = json.loads(path.read_text())
    results = [given["result"][0] for given in one["annotations"]]
    assert [(result["from_name"], result["to_name"]) for result in results] == [
        ("quality", "image"),
        ("intact", "image"),
    ]
    path.write_text(json.dumps([task("V1/IMG_0000.png", "good", 1, control="grade")]))
    record = kit.record(folder, tmp_path / "quality")
    for _ in range(2):
        record.take_in(read_tasks(path))
        record.give_out(path, read_tasks(path))
    [one] = json.loads(path.read_text())
    assert [
        (given["result"][0]["from_name"], given["result"][0]["value"]["choices"]) for given in one["annotations"]
    ] == [
        ("grade", ["good"]),
        ("grade", ["low"]),
    ]


@pytest.mark.parametrize("text", ["", "{}", '[{"image": "a.jpg", "quality": "high"}]', "image,quality\n"])
def test_another_file_is_not_label_studio_s(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="is not Label Studio's JSON"):
        read_tasks(tmp_path / "x.json")
