"""The event log stays readable after crashes of its writers."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from vasevqa.pipeline.events import EventLog, parse


def test_events_are_read_in_order_with_their_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    assert list(log.read()) == []
    log.append("step-started", step="é", kind="a field called kind", self="and one called self")
    log.append("run-finished")
    events = list(log.read())
    assert [event["event"] for event in events] == ["step-started", "run-finished"]
    assert (events[0]["step"], events[0]["kind"], events[0]["self"]) == (
        "é",
        "a field called kind",
        "and one called self",
    )
    assert events[0]["time"] <= events[1]["time"]
    assert log.last(("step-started", "step-done")) == events[0]
    assert log.last(("step-done",)) is None


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_truncated_last_line_loses_only_one_event(tmp_path: Path, cut: int) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("run-started", steps=["first"])
    log.append("step-started", step="first")
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-cut])
    assert [event["event"] for event in log.read()][:1] == ["run-started"]
    log.append("run-started", resumed=True)
    kinds = [event["event"] for event in log.read()]
    assert kinds[0] == kinds[-1] == "run-started"
    assert len(kinds) == (3 if cut == 1 else 2)


def test_other_output_of_a_stage_is_skipped() -> None:
    lines = [
        "",
        "a plain print",
        "{not json",
        '{"no": "event"}',
        '["event"]',
        '{"event": 5}',
        '{"event": "x", "time": "noon"}',
        '{"event": "note", "text": "y"}',
    ]
    assert list(parse(lines)) == [{"event": "note", "text": "y"}]


def test_a_full_disk_leaves_no_partial_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("run-started")
    before = log.path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises(OSError, match="No space left") as full:
        log.append("step-started", step="first")
    assert full.value.errno == errno.ENOSPC
    assert log.path.read_bytes() == before


def _append_many(path: Path, writer: int) -> None:
    for number in range(200):
        EventLog(path).append("note", writer=writer, number=number, text="x" * 300)


def test_lines_of_two_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()
    assert len([json.loads(line) for line in lines if line]) == 400
    for writer_number in range(2):
        numbers = [event["number"] for event in EventLog(path).read() if event["writer"] == writer_number]
        assert numbers == list(range(200))
