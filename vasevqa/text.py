"""Convert durations, sizes, shares and amounts to text for messages, and suggest similar words."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

# C0 and C1 control characters, line separators, the characters that change the direction of writing, and surrogates
# (bytes of a file name that are not UTF-8).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
IMAGE_TAG = "<image>"  # placeholder for a picture in a message, in the format of ms-swift and LLaVA


def printable(text: str) -> str:
    """Return `text` in a form that UTF-8 can encode.

    Each surrogate is written as an escape. Python uses surrogates for bytes of a file name that are not UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def plain(text: str) -> str:
    """Return `text` in a form that is safe to print on one line of a terminal.

    Control characters and surrogates are written as escapes. A terminal can obey control characters: they move the
    cursor, change the title or hide a part of a message. Characters that change the direction of writing are escaped
    too.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible(text: str) -> str:
    """Return a text of several lines in a form that is safe to print on a terminal.

    As in `plain`, escapes replace control characters. Line breaks and tabs are kept. The escapes are also valid inside
    the strings of a JSON text.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\u{ord(found[0]):04x}", text)


class _Filtered:
    """A text stream that passes each text through a function before it writes the text to the stream `inner`.

    All other attributes of this stream are those of `inner`.
    """

    def __init__(self, inner: TextIO, change: Callable[[str], str]) -> None:
        self.inner, self._change = inner, change

    def write(self, text: str) -> int:
        self.inner.write(self._change(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@contextlib.contextmanager
def filtered_output(change: Callable[[str], str]) -> Iterator[None]:
    """Apply `change` to all text that this process prints during the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Filtered(stream, change) for stream in before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unfiltered(stream: TextIO) -> TextIO:
    """Return the stream that `filtered_output` replaced by `stream`, or `stream` itself if it is not filtered.

    Output that moves the cursor or has colours needs the unfiltered stream.
    """
    return stream.inner if isinstance(stream, _Filtered) else stream


def cell_text(value: object) -> str:
    """Return a value of a table as a text. A whole number has no decimal point, whatever its type."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return a suggestion such as ` Did you mean 'threshold'?`, or all known words if no known word is similar."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(sorted(known))}." if known else ""


def duration(seconds: float) -> str:
    """Return a duration as text, such as 7 s, 3:05 or 2:10:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def byte_size(count: float) -> str:
    """Return a number of bytes as text, such as 512 bytes or 3 MiB."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{count:.0f} {units[0]}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share as text, such as <1% or 12%. Only the exact shares 0 and 1 give 0% and 100%."""
    none, some, most, every = (f"{part:.{digits}%}" for part in (0, 10.0**-digits / 100, 1 - 10.0**-digits / 100, 1))
    text = f"{share:.{digits}%}"
    if 0 < share < 1 and text in (none, every):
        return f"<{some}" if text == none else f">{most}"
    return text


def amount(value: float) -> str:
    """Return an amount of at least 0 as text, such as <0.01, 0.51, 3.2, 12 or 1,234."""
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def cut(text: str, most: int) -> str:
    """Return `text`, cut to at most `most` characters. An ellipsis replaces the part that was cut."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def first_line(error: object, most: int = 200) -> str:
    """Return the first line of an error's text, cut to `most` characters.

    If the text is empty, return the name of the error's class.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:most].rstrip(".") if lines else type(error).__name__
