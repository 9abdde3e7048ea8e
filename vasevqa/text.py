"""Words for people: suggestions, durations and sizes as they are written in messages."""

from __future__ import annotations

IMAGE_TAG = "<image>"  # stands for a picture in a message, as ms-swift and LLaVA write it


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """A suggestion such as ` Did you mean 'threshold'?`, or what is known where nothing is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(sorted(known))}." if known else ""


def duration(seconds: float) -> str:
    """Seconds for people: 7 s, 3:05, 2:10:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def byte_size(count: float) -> str:
    """Bytes for people: 512 bytes, 3 MiB."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{count:.0f} {units[0]}"


def first_line(error: object, most: int = 200) -> str:
    """The first line of an error's text, at most `most` characters; the error's kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:most].rstrip(".") if lines else type(error).__name__
