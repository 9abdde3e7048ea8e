"""The output of a pod: each byte is written once, at its offset, despite lost connections, rotations, crashes and
second launchers.

These tests need no cluster.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from vasevqa.backends.kubernetes.logs import PIECE, Tee, Unseen, unstamped


def lines(*numbers: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in numbers)


def test_the_timestamp_before_a_line_is_removed() -> None:
    assert unstamped(b"2026-11-25T01:02:03.123456789Z {}\n") == (b"2026-11-25T01:02:03.123456789Z", b"{}\n")
    assert unstamped(b"2026-11-25T01:02:03+02:00 \n") == (b"2026-11-25T01:02:03+02:00", b"\n")
    assert unstamped(b"unable to retrieve container logs\n")[0] == b""


def test_timestamps_within_a_long_line_are_removed() -> None:
    stamp = b"2026-11-25T01:02:03.1Z "
    text = bytes(65 + number % 26 for number in range(2 * PIECE + 10)) + b"\n"
    pieces = [text[:PIECE], text[PIECE : 2 * PIECE], text[2 * PIECE :]]
    assert unstamped(b"".join(stamp + piece for piece in pieces)) == (stamp.strip(), text)
    assert unstamped(stamp + text) == (stamp.strip(), text)  # some kubelets add no timestamps


def test_no_line_is_lost_or_repeated_after_a_lost_connection() -> None:
    stream = [
        (b"2026-11-25T01:02:03.1Z", 1),
        (b"2026-11-25T01:02:03.1Z", 2),
        (b"2026-11-25T01:02:03.25Z", 3),
        (b"2026-11-25T01:02:04Z", 4),
    ]
    for broken in range(len(stream) + 1):
        unseen = Unseen()
        assert unseen.reconnected() == ""
        got = [number for stamp, number in stream[:broken] if unseen.new(stamp)]
        assert unseen.reconnected() == (
            "2026-11-25T01:02:04Z" if broken == 4 else "2026-11-25T01:02:03Z" if broken else ""
        )
        since = stream[3:] if broken == 4 else stream  # the server accepts only whole seconds
        got += [number for stamp, number in since if unseen.new(stamp)]
        assert got == [1, 2, 3, 4]


def write(path: Path, *blocks: bytes) -> None:
    tee = Tee(path)
    for block in blocks:
        tee.write(block)
    tee.close()


def test_a_second_reader_writes_the_same_bytes_at_the_same_offsets(tmp_path: Path) -> None:
    log = tmp_path / "logs/first-1.log"
    write(log, lines(1, 2), lines(3))
    write(log, lines(1), lines(2, 3, 4))
    write(log, lines(1, 2, 3, 4))
    assert log.read_bytes() == lines(1, 2, 3, 4)


def test_an_incomplete_log_is_completed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes((lines(1, 2, 3))[:-3])
    write(log, lines(1, 2, 3, 4))
    assert log.read_bytes() == lines(1, 2, 3, 4)
    log.write_bytes(lines(1)[:3])
    write(log, lines(1, 2))
    assert log.read_bytes() == lines(1, 2)


def test_a_stream_without_its_beginning_is_written_at_the_right_offset(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(lines(1, 2, 3, 2, 4))
    write(log, lines(2, 4, 5))
    assert log.read_bytes() == lines(1, 2, 3, 2, 4, 5)


def test_the_output_of_a_second_pod_follows_the_output_of_the_first_pod(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(log, lines(1, 2, 3))
    for _ in range(2):
        write(log, lines(7), lines(8))
    assert log.read_bytes() == lines(1, 2, 3, 7, 8)


def test_output_that_a_full_disk_refused_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tee, full = Tee(tmp_path / "log"), [False]
    real = os.pwrite

    def pwrite(*given: Any) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given)

    monkeypatch.setattr(os, "pwrite", pwrite)
    tee.write(lines(1))
    full[0] = True
    tee.write(lines(2))
    full[0] = False
    tee.write(lines(3))
    tee.close()
    assert (tmp_path / "log").read_bytes() == lines(1, 2, 3)


def test_only_lines_of_the_stage_are_passed_on() -> None:
    unseen = Unseen()
    assert unseen.fresh(
        [b"2026-11-25T01:02:03.1Z one\n", b"rpc error: code = NotFound\n", b"2026-11-25T01:02:03.2Z two\n"]
    ) == [b"one\n", b"two\n"]
    assert unseen.reconnected() == "2026-11-25T01:02:03Z"
    assert unseen.fresh([b"2026-11-25T01:02:03.2Z two\n", b"2026-11-25T01:02:03.2Z three\n"]) == [b"three\n"]
