"""Control characters in names and in the output of a stage never reach a terminal or the report."""

from __future__ import annotations

import os

import pytest

from tests.pipeline.kit import Kit
from vasevqa.runtime.progress import make_progress

ODD = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202eb"


def test_control_characters_from_a_stage_are_neutralized(kit: Kit) -> None:
    kit.wish("first", "tell PLACE")
    result = kit.run("--to", "first", check=3, env={"PLACE": ODD})
    run = kit.runs()[0]
    logs = kit.call("logs", run.name).stdout
    report = (run.path / "report.html").read_text()
    for text in (result.stdout, result.stderr, logs, report):
        assert "title" in text
        assert not set("\x1b\x07\x9b\u202e") & set(text)


def test_control_characters_and_invalid_utf_8_in_an_argument_are_neutralized(kit: Kit) -> None:
    name = os.fsdecode(b"caf\xe9\x07.yaml")
    result = kit.call("plan", name, check=2)
    assert r"caf\udce9\u0007.yaml" in result.stderr
    assert "\x07" not in result.stderr


@pytest.mark.parametrize("json_events", [False, True])
def test_a_stage_prints_no_control_characters_of_a_file_name(
    json_events: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = make_progress("copying", json_events)
    progress.note(ODD)
    progress.summary(ODD)
    progress.error("DataError", 3, ODD)
    told = capsys.readouterr()
    assert (told.out + told.err).count("title") == (4 if json_events else 3)
    assert not set("\x1b\x07\x9b\u202e") & set(told.out + told.err)
