"""labels.jsonl: what a kill, a second process and a wrong file do to it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.review import kit
from vasevqa.errors import ConfigError, DataError
from vasevqa.review.labels import FILE, LabelFile, NotSaved, by_picture, standing
from vasevqa.review.questions import INTACT, QUALITY

ENDLESS = """
import sys
from pathlib import Path
from tests.review import kit
record = kit.record(Path(sys.argv[1]), Path(sys.argv[2]))
for number in range(100_000):
    kit.say(record, f"V{number % 4 + 1}/IMG_0000.png", ("high", "low")[number % 2])
    print(number, flush=True)
"""


def test_a_label_says_what_when_who_and_why(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    kit.say(record, "V2/IMG_0001.png", "high")
    [line] = map(json.loads, (tmp_path / "quality" / FILE).read_text().splitlines())
    assert (
        line.items()
        >= {
            "name": "V2/IMG_0001.png",
            "vase": "v2",
            "question": "quality",
            "label": "high",
            "who": "anna",
            "milliseconds": 1200,
            "why": "spread",
            "probability": 0.25,
        }.items()
    )
    assert len(line["digest"]) == 64
    assert line["when"].endswith("Z")


def test_a_kill_loses_at_most_one_label(tmp_path: Path) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    words = [sys.executable, "-c", ENDLESS, str(folder), str(into)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [next(process.stdout) for _ in range(25)]
        process.send_signal(signal.SIGKILL)
        said += list(process.stdout)
    whole = LabelFile(into / FILE, QUALITY).lines
    assert int(said[-1]) + 1 <= len(whole) <= int(said[-1]) + 2
    record = kit.record(folder, into)  # what the killed process hadn't placed is placed now
    assert len(record.mine("anna")) == 4
    assert kit.placed(into) == [f"{index % 2 == 0:d}/V{index + 1}/IMG_0000.png" for index in (1, 3, 0, 2)]


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_line_that_was_cut_is_left_out_and_the_next_label_is_whole(tmp_path: Path, cut: int) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    record = kit.record(folder, into)
    kit.say(record, "V1/IMG_0000.png", "high")
    kit.say(record, "V1/IMG_0001.png", "low")
    first, second = (into / FILE).read_bytes().splitlines(keepends=True)
    (into / FILE).write_bytes(first + second[:cut])
    again = kit.record(folder, into)
    assert list(again.mine("anna")) == ["V1/IMG_0000.png"]
    kit.say(again, "V1/IMG_0002.png", "low")
    once_more = kit.record(folder, into)
    assert list(once_more.mine("anna")) == ["V1/IMG_0000.png", "V1/IMG_0002.png"]
    assert once_more.file.torn == 1
    assert (into / FILE).read_bytes().startswith(first + second[:cut])


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_the_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    with monkeypatch.context() as patched:
        write = os.write
        patched.setattr(os, "write", lambda file, content: write(file, content[:7]))
        kit.say(record, "V1/IMG_0000.png", "high")
    kit.say(record, "V1/IMG_0001.png", "low")
    again = kit.record(tmp_path / "photos", tmp_path / "quality")
    assert {name: line.label for name, line in again.mine("anna").items()} == {
        "V1/IMG_0000.png": "high",
        "V1/IMG_0001.png": "low",
    }
    assert again.file.torn == 0


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_a_label_that_the_disk_does_not_take_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    kit.say(record, "V1/IMG_0000.png", "high")
    before = record.file.path.read_bytes()
    with monkeypatch.context() as patched:
        write, calls = os.write, []

        def full(file: int, content: bytes = b"") -> int:
            calls.append(content)
            if len(calls) > 1 or fails == "fsync":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, content[:7])

        patched.setattr(os, fails, full)
        with pytest.raises(NotSaved, match=r"^The label was not saved: could not write .* the disk is full; free some"):
            record.file.append(record.file.lines)
    assert record.file.path.read_bytes() == before
    kit.say(record, "V1/IMG_0001.png", "high")
    assert LabelFile(record.file.path, QUALITY).torn == 0


def test_null_bytes_of_a_power_cut_are_a_cut_line(tmp_path: Path) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    kit.say(kit.record(folder, into), "V1/IMG_0000.png", "high")
    with (into / FILE).open("ab") as stream:
        stream.write(b"\0" * 300)
    kit.say(kit.record(folder, into), "V1/IMG_0001.png", "high")
    assert len(kit.record(folder, into).mine("anna")) == 2


def test_a_last_line_without_its_end_is_a_label(tmp_path: Path) -> None:
    """Editors and other tools leave it out."""
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    kit.say(kit.record(folder, into), "V1/IMG_0000.png", "high")
    (into / FILE).write_bytes(b"\n" + (into / FILE).read_bytes().rstrip())
    record = kit.record(folder, into)
    assert list(record.mine("anna")) == ["V1/IMG_0000.png"]
    kit.say(record, "V1/IMG_0001.png", "high")
    assert len(record.mine("anna")) == len(kit.record(folder, into).mine("anna")) == 2
    assert record.file.torn == 0


@pytest.mark.parametrize(
    "text", ["path,label\na.jpg,1\n", "path,label", '{"label": "high"}\n', '{"digest":"short","x":1}\n']
)
def test_another_file_of_that_name_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(DataError, match=r"labels.jsonl, line 1 is not a label"):
        LabelFile(tmp_path / FILE, QUALITY)
    assert (tmp_path / FILE).read_text() == text


def test_a_refused_line_is_refused_again_and_hides_no_label_behind_it(tmp_path: Path) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    record, other = kit.record(folder, into), kit.record(folder, into)
    kit.say(other, "V1/IMG_0000.png", "high", "ben")
    good = (into / FILE).read_text()
    (into / FILE).write_text(f"not a label\n{good}")
    for _ in range(2):
        with pytest.raises(DataError, match=r"line 1 is not a label"):
            record.follow()
    (into / FILE).write_text(good)
    record.follow()
    assert list(record.mine("ben")) == ["V1/IMG_0000.png"]


def test_labels_of_the_other_question_and_unknown_labels_are_refused(tmp_path: Path) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "labels"
    kit.say(kit.record(folder, into, INTACT), "V1/IMG_0000.png", "damaged")
    with pytest.raises(ConfigError, match="answers the question 'intact', but you asked 'quality'"):
        kit.record(folder, into)
    (into / FILE).write_text((into / FILE).read_text().replace('"damaged"', '"blue"'))
    with pytest.raises(DataError, match="no label 'blue'"):
        kit.record(folder, into, INTACT)


def test_undo_is_a_line_and_brings_the_earlier_label_back(tmp_path: Path) -> None:
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    for label in ("high", "low", None):
        kit.say(record, "V1/IMG_0000.png", label)
    assert record.mine("anna")["V1/IMG_0000.png"].label == "high"
    assert kit.placed(record.into) == ["1/V1/IMG_0000.png"]
    kit.say(record, "V1/IMG_0000.png", None)
    assert record.mine("anna") == {}
    assert kit.placed(record.into) == []
    kit.say(record, "V1/IMG_0000.png", None)  # nothing is left to take back
    assert len(LabelFile(record.file.path, QUALITY).lines) == 5


def test_two_files_put_together_count_each_line_once_and_the_latest_label(tmp_path: Path) -> None:
    folder = kit.per_vase(tmp_path / "photos")
    mine, yours = kit.record(folder, tmp_path / "mine"), kit.record(folder, tmp_path / "yours")
    kit.say(mine, "V1/IMG_0000.png", "low")
    kit.say(yours, "V1/IMG_0000.png", "high")  # the same reviewer, later, on another machine
    kit.say(yours, "V1/IMG_0001.png", "high", "ben")
    assert (mine.merge(yours.file.path), mine.merge(yours.file.path)) == (2, 0)
    assert mine.mine("anna")["V1/IMG_0000.png"].label == "high"
    with mine.file.path.open("ab") as stream:
        stream.write(yours.file.path.read_bytes())
    lines = LabelFile(mine.file.path, QUALITY).lines
    assert len(lines) == 5
    assert len(standing(lines)) == 2
    assert {who: line.label for who, line in by_picture(standing(lines))[lines[0].digest].items()} == {"anna": "high"}


def test_the_latest_label_counts_even_if_the_clock_was_set_back(tmp_path: Path) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    kit.say(kit.record(folder, into), "V1/IMG_0000.png", "high")
    text = (into / FILE).read_text()
    year = json.loads(text)["when"][:4]
    (into / FILE).write_text(text.replace(f'"when":"{year}', '"when":"2999'))
    record = kit.record(folder, into)
    kit.say(record, "V1/IMG_0000.png", "low")
    assert record.mine("anna")["V1/IMG_0000.png"].label == "low"


def test_a_second_process_s_labels_are_followed(tmp_path: Path) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    one, other = kit.record(folder, into), kit.record(folder, into)
    kit.say(one, "V1/IMG_0000.png", "high", "anna")
    kit.say(other, "V1/IMG_0000.png", "low", "ben")
    assert kit.placed(into) == []  # they disagree
    assert one.counts()["disputed"] == 0
    one.follow()
    assert one.counts()["disputed"] == other.counts()["disputed"] == 1


def test_labels_are_of_contents_not_of_names(tmp_path: Path) -> None:
    folder, into = kit.per_vase(tmp_path / "photos"), tmp_path / "quality"
    record = kit.record(folder, into)
    kit.say(record, "V1/IMG_0000.png", "high")
    kit.say(record, "V1/IMG_0001.png", "high")
    kit.photo(folder / "V1/IMG_0000.png", 999)
    os.utime(folder / "V1/IMG_0001.png", ns=(1, 1))
    again = kit.record(folder, into)
    assert list(again.mine("anna")) == ["V1/IMG_0001.png"]
    assert again.elsewhere() == 1
