"""Inputs that would take hours if the time grew with the square of their length, and control characters."""

from __future__ import annotations

import io
import random
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from vasevqa import files
from vasevqa.cores import available_cores
from vasevqa.dataset import annotations, texts
from vasevqa.dataset.columns import Columns
from vasevqa.dataset.tables import delimited, keyed
from vasevqa.report.pictures import Thumbnails
from vasevqa.text import filtered_output, plain, unfiltered, visible

MANY = 300_000


def test_thoughts_that_are_never_closed_end() -> None:
    assert annotations._answer("<think>" * MANY) == ""
    assert annotations._answer("<think>a</think>" * MANY + "red") == "red"
    assert annotations._answer("<THINK>a</Think> b <think> c") == ""


def test_comments_elements_and_spaces_that_are_never_closed_end() -> None:
    for text in ("<!--" * MANY, "<script>" * MANY, "<style>" * MANY, "<" * MANY, "<p " * MANY):
        assert len(texts.plain(text)) > 0
    for text in ("a" + " " * MANY + "b", "a<" + " " * MANY + "b"):
        assert texts.plain(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a <!-- b --> c <!-- d",
        "<!-- a <script>b</script> c",
        "x<SCRIPT a=1>b</Script  >y<style>z",
        "<script>a</style>b</script>c",
        "<!--a--><!--b--><style>c</style>d<!--",
        "<scripted>a</scripted>",
    ],
)
def test_comments_are_removed_as_before(text: str) -> None:
    before = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
    assert texts._without_comments(text) == before.sub("", text)


def test_breaks_and_separators_are_found_as_before() -> None:
    before = re.compile(r"\s*<\s*/?\s*(br|hr|li|tr|div|h[1-6]|p|blockquote)\b[^<>]*>\s*", re.IGNORECASE)
    apart = re.compile(r"\s*(\|\||[\x1c-\x1f])\s*")
    for text in (
        "a <br> <br>b",
        "a\n< / p >  <p>b</p> ",
        "  <BR/>",
        "<br><br>",
        "a < b <p",
        " \x1c \x1d a || b||  ||c",
    ):
        assert texts._BREAK.sub("|", text) == before.sub("|", text)
        assert texts._SEPARATOR.sub("|", text) == apart.sub("|", text)


def test_a_header_of_a_million_columns_is_refused() -> None:
    header = ",".join(f"column {number}" for number in range(1_000_000))
    columns = Columns()
    with pytest.raises(ValueError, match="it has 1000000 columns"):
        list(keyed("a.csv", delimited("a.csv", f"{header}\n1,2\n", columns, []), columns, []))


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 2),
        ({"cpu.max": "max 100000"}, "0::/", 64),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "300000 100000"}, "0::/a/b", 3),
        ({"a/cpu.max": "50000 100000", "a/b/cpu.max": "300000 100000"}, "0::/a/b", 1),
        ({"cpu.max": "400000 100000"}, "0::/outside/the/container", 4),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/", 3),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/", 64),
        ({"memory/cpu.max": "100000 100000"}, "3:memory:/", 64),
        ({"cpu.max": "no number"}, "0::/", 64),
        ({}, "", 64),
    ],
)
def test_cores_follow_the_quota_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], own: str, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    groups = tmp_path / "cgroup"
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{content}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    assert available_cores(groups, tmp_path / "own") == cores
    assert available_cores(groups, tmp_path / "nowhere") == 64


@pytest.mark.parametrize("name", ["器" * 85, "αγγείο" * 21 + "abc", "\U0001f3fa" * 63 + "abc", "a" * 255])
def test_names_of_255_bytes_are_written_copied_and_linked(tmp_path: Path, name: str) -> None:
    files.write_text(tmp_path / name, "text")
    assert files.place(tmp_path / name, tmp_path / "copies" / name, immutable=False) in ("copy", "reflink")
    assert files.place(tmp_path / name, tmp_path / "links" / name, immutable=True) == "link"
    assert (tmp_path / "copies" / name).read_text() == (tmp_path / "links" / name).read_text() == "text"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_no_exif_stops_a_report_s_pictures(tmp_path: Path, suffix: str) -> None:
    draw = random.Random(7)
    odd = [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12" + b"\xff" * 40,
    ]
    odd += [b"Exif\0\0II*\0\x08\0\0\0" + draw.randbytes(draw.randrange(120)) for _ in range(60)]
    for number, exif in enumerate(odd):
        path = tmp_path / f"{number}.{suffix}"
        Image.new("RGB", (20, 10), "red").save(path, exif=exif) if suffix != "tiff" else _tiff(path, exif)
        assert (Thumbnails().of(path) or "data:").startswith("data:")


def _tiff(path: Path, tail: bytes) -> None:
    """Write a TIFF whose bytes behind the pixels, where the tags lie, are damaged."""
    Image.new("RGB", (20, 10), "red").save(path)
    content = bytearray(path.read_bytes())
    begin = max(8, len(content) - len(tail))
    content[begin : begin + len(tail)] = tail[: len(content) - begin]
    path.write_bytes(content)


ODD = "a\x1b[2Jb\x9b31mc\x07\r\u202etxt.exe\udce9"


def test_control_characters_are_written_as_escapes() -> None:
    assert visible(f"one\ttwo\n{ODD}") == "one\ttwo\n" + (r"a\u001b[2Jb\u009b31mc\u0007\u000d\u202etxt.exe\udce9")
    assert plain(f"a\n{ODD}") == r"a\na\x1b[2Jb\x9b31mc\x07\r\u202etxt.exe\udce9"
    assert visible("αγγείο 器 \U0001f3fa é") == "αγγείο 器 \U0001f3fa é"


def test_all_output_is_filtered_except_what_asks_for_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with filtered_output(visible):
        print("\x1b[31mred")
        unfiltered(sys.stdout).write("\x1b[32mgreen\n")
        sys.stdout.writelines(["a\x07\n"])
    assert sys.stdout is out
    assert out.getvalue() == "\\u001b[31mred\n\x1b[32mgreen\na\\u0007\n"
