"""The journal: rows of a killed stage are read again, without incomplete rows."""

from __future__ import annotations

from pathlib import Path

from vasevqa.journal import Journal


def test_existing_rows_are_read_and_new_rows_are_added(tmp_path: Path) -> None:
    Journal(tmp_path / "rows").append([["ä.jpg", 0.5], {"answer": "κύλιξ\u2028"}])
    again = Journal(tmp_path / "rows")
    again.append([3])
    assert again.rows == Journal(tmp_path / "rows").rows == [["ä.jpg", 0.5], {"answer": "κύλιξ\u2028"}, 3]


def test_an_incomplete_line_is_dropped_and_the_next_line_is_separate(tmp_path: Path) -> None:
    for torn in ('["b', '["b.jpg", 1]', ""):
        (tmp_path / "rows").write_text('["a.jpg", 1]\n' + torn)
        journal = Journal(tmp_path / "rows")
        assert journal.rows == [["a.jpg", 1]]
        journal.append([["c.jpg", 2]])
        assert (tmp_path / "rows").read_text() == '["a.jpg", 1]\n["c.jpg", 2]\n'


def test_rows_with_another_header_are_ignored(tmp_path: Path) -> None:
    Journal(tmp_path / "rows", "threshold 1").append([1])
    assert Journal(tmp_path / "rows", "threshold 1").rows == [1]
    assert Journal(tmp_path / "rows", "threshold 2").rows == []
    assert (tmp_path / "rows").read_text() == "threshold 2\n"
    (tmp_path / "rows").write_text("threshold 2")  # the process was killed while it wrote the first line
    assert Journal(tmp_path / "rows", "threshold 2").rows == []


def test_invalid_bytes_lose_only_their_line(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"1\n\xff\xfe\n2\n")
    assert Journal(tmp_path / "rows").rows == [1, 2]
