"""What a killed stage had written down is there again, and nothing half."""

from __future__ import annotations

from pathlib import Path

from vasevqa.journal import Journal


def test_rows_are_there_again_and_more_are_added(tmp_path: Path) -> None:
    Journal(tmp_path / "rows").append([["ä.jpg", 0.5], {"answer": "κύλιξ\u2028"}])
    again = Journal(tmp_path / "rows")
    again.append([3])
    assert again.rows == Journal(tmp_path / "rows").rows == [["ä.jpg", 0.5], {"answer": "κύλιξ\u2028"}, 3]


def test_a_line_cut_off_by_a_kill_is_dropped_and_the_next_stands_on_its_own(tmp_path: Path) -> None:
    for torn in ('["b', '["b.jpg", 1]', ""):
        (tmp_path / "rows").write_text('["a.jpg", 1]\n' + torn)
        journal = Journal(tmp_path / "rows")
        assert journal.rows == [["a.jpg", 1]]
        journal.append([["c.jpg", 2]])
        assert (tmp_path / "rows").read_text() == '["a.jpg", 1]\n["c.jpg", 2]\n'


def test_rows_made_for_something_else_do_not_count(tmp_path: Path) -> None:
    Journal(tmp_path / "rows", "threshold 1").append([1])
    assert Journal(tmp_path / "rows", "threshold 1").rows == [1]
    assert Journal(tmp_path / "rows", "threshold 2").rows == []
    assert (tmp_path / "rows").read_text() == "threshold 2\n"
    (tmp_path / "rows").write_text("threshold 2")  # killed within the first line
    assert Journal(tmp_path / "rows", "threshold 2").rows == []


def test_bytes_that_are_no_text_cost_their_line_only(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"1\n\xff\xfe\n2\n")
    assert Journal(tmp_path / "rows").rows == [1, 2]
