"""Check the rows of a JSON-lines dataset before training, by the rules of ms-swift 4.6.

ms-swift silently skips a row that it can't read. It also ignores a picture in an unexpected column. In contrast, this
module raises an error for the first invalid row. The message names the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vasevqa.errors import DataError
from vasevqa.text import IMAGE_TAG

FORMS = ("messages", "conversations", "conversation")
ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "tool_call", "tool_response", "function_call", "function_response"), "tool"),
    **dict.fromkeys(("function-call", "function-response", "observation", "observations"), "tool"),
}
MODES = ("images", "image")  # the columns for pictures; ms-swift reads only one of them in a file


@dataclass(frozen=True)
class CheckedRows:
    """A checked file of rows: the line number of each row, and the distinct paths of the pictures in the rows."""

    path: Path
    lines: list[int]
    images: list[str]


@dataclass
class _Columns:
    """The columns and the pictures in the rows that were already checked.

    `form` is the name of the column for turns, and `images` is the name of the column for pictures. If a file uses
    several columns for turns or for pictures, ms-swift loses rows or pictures. `pictures` holds the paths of the
    pictures.
    """

    form: str = ""
    images: str = ""
    pictures: dict[str, None] = field(default_factory=dict)


def check_rows(path: Path, root: Path, wanted: str | None = None) -> CheckedRows:
    """Check every row of a JSON-lines dataset.

    Every row needs `messages` (or ShareGPT's `conversations`, or `query` and `response`) with an answer at the end. For
    GRPO, `wanted` is the name of a column. Every row then needs this column instead of the answer. The row's pictures
    must exist as files below `root`. If a row has image tags, it needs one tag for each picture. Raise DataError if a
    row is invalid. The message names the first invalid line.
    """
    if not path.is_file():
        raise DataError(f"There is no {path.name} in {path.parent}; give the folder that build-dataset wrote.")
    columns, lines = _Columns(), []
    for number, row in json_rows(path):
        problem = _problem(row, columns, root, wanted)
        if problem:
            raise DataError(f"{path}, line {number} {problem}")
        lines.append(number)
    if not lines:
        raise DataError(f"{path} holds no rows; see dataset_report.json in the same folder for the reasons.")
    return CheckedRows(path, lines, list(columns.pictures))


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the line number and the value of each row of a JSON-lines file. Blank lines are skipped.

    Raise DataError if a line is not valid JSON in UTF-8. The message names the first such line.
    """
    with path.open("rb") as stream:  # only "\n" ends a line; splitlines would also split a text at U+2028
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                row = json.loads(text) if text else None
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number} is not UTF-8 (byte {error.start} of the line); save the file as UTF-8, or"
                    " build the dataset again."
                ) from None
            except (ValueError, RecursionError) as error:
                what = error if isinstance(error, ValueError) else "nested too deeply"
                raise DataError(f"{path}, line {number} is not valid JSON ({what}); build the dataset again.") from None
            if text:
                yield number, row


def _problem(row: object, columns: _Columns, root: Path, wanted: str | None) -> str:
    """Return the problem of a row and its remedy, or "" if ms-swift can train on the row.

    The result continues a sentence that begins with the file and the line of the row.
    """
    try:
        if not isinstance(row, dict):
            raise DataError("is not a JSON object; write each row as a JSON object.")
        turns = _turns(row, columns, answered=wanted is None)
        if wanted:
            _check_solution(row, wanted)
        images, tags = _pictures_of(row, columns), 0
        for _, content in turns:
            text, inside = _content(content)
            tags += text.count(IMAGE_TAG)
            if inside and images:
                raise DataError("names pictures both in its messages and in a column; keep one of the two.")
            images = images or inside
        _check_tags(tags, len(images))
        if wanted is None:
            _check_answer(turns)
        _check_files(images, columns, root)
    except DataError as error:
        return str(error)
    return ""


def _turns(row: dict[str, object], columns: _Columns, answered: bool) -> list[tuple[str, object]]:
    """Return the turns of a row as (role, content)."""
    form = next((name for name in FORMS if row.get(name)), "")
    if not form:
        if not row.get("query") or (answered and not row.get("response")):
            raise DataError(
                "holds none of `messages`, `conversations`, and `query` with `response`; ms-swift would drop the row."
                " Add `messages`."
            )
        form, response = "query", row.get("response")
        turns: list[tuple[str, object]] = [("user", row["query"])]
        if response:
            turns.append(("assistant", response[0] if isinstance(response, list) else response))
    else:
        turns = _messages(row[form])
    if columns.form not in ("", form):
        raise DataError(
            f"holds {form}, but earlier rows hold {columns.form}; ms-swift would drop some of these rows. Use only one"
            " of the two in the whole file."
        )
    columns.form = form
    return turns


def _messages(given: object) -> list[tuple[str, object]]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise DataError("holds messages that are a text; write them as a list of turns.") from None
    if not isinstance(given, list) or not given or not all(isinstance(turn, dict) for turn in given):
        raise DataError(
            "holds messages that are not a list of turns; write each turn as an object with role and content."
        )
    if all({"user", "assistant"} <= set(turn) for turn in given):
        return [(role, turn[role]) for turn in given for role in ("user", "assistant")]
    turns = []
    for turn in given:
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or role not in ROLES:
            raise DataError(
                f"has a turn of the role '{role}', which ms-swift can't read; use user, assistant or system."
            )
        if content is None and not turn.get("tool_calls"):
            raise DataError(
                f"has a turn with the role '{role}' but without content; write the content, or remove the turn."
            )
        turns.append((ROLES[role], content))
    if any(role == "system" for role, _ in turns[1:]):
        raise DataError("has a system turn after the first turn; move the system turn to the front.")
    return turns


def _content(content: object) -> tuple[str, list[object]]:
    """Return the text of a turn and the pictures in the turn.

    `content` may be a list of parts in the format of OpenAI's API. The text then has one image tag for each picture.
    """
    if isinstance(content, str):
        return content, []
    if isinstance(content, dict) or not isinstance(content, list):
        return json.dumps(content), []
    text = ""
    pictures: list[object] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if isinstance(part, dict) else None
        if kind == "text" and isinstance(value, str):
            text += value
        elif kind in ("image", "image_url"):
            value = value.get("url") if isinstance(value, dict) else value
            text += IMAGE_TAG
            pictures += [value] if value else []
        else:
            raise DataError(f"has a part of the type '{kind}' in a turn; use parts of the types text and image.")
    return text, pictures


def _pictures_of(row: dict[str, object], columns: _Columns) -> list[object]:
    """Return the pictures in a row's column `images` or `image`. Pictures in the row's messages are not included."""
    there = [name for name in MODES if name in row]
    if len(there) == 2 or (there and columns.images not in ("", *there)):
        raise DataError(
            "names pictures in another column than earlier rows, or in both `images` and `image`; ms-swift would ignore"
            " the pictures in `image`. Use only one of the two columns in the whole file."
        )
    if not there:
        return []
    columns.images = there[0]
    given = row[there[0]]
    return list(given) if isinstance(given, list) else [given] if given else []


def _check_tags(tags: int, images: int) -> None:
    # If a row has no tags, ms-swift puts the pictures before the first turn. The author of such a row expects this.
    if tags != images and tags:
        raise DataError(
            f"has {tags} {IMAGE_TAG} tags and {images} pictures; write one tag for each picture, in the same order."
        )


def _check_answer(turns: list[tuple[str, object]]) -> None:
    role, content = turns[-1]
    if role != "assistant":
        raise DataError("ends without an answer, so training can't use it; add a turn of the assistant.")
    if not _content(content)[0].strip():
        raise DataError("ends with an empty answer; write the answer, or remove the row.")


def _check_files(images: list[object], columns: _Columns, root: Path) -> None:
    for image in images:
        path = _path(image)
        if path not in columns.pictures:
            if not (root / path).is_file():
                raise DataError(
                    f"names the image {path}, which is not in {root}; build the dataset again or give --image-root."
                )
            if not Path(path).is_absolute() and Path(path).exists() and not Path(path).samefile(root / path):
                raise DataError(
                    f"names the image {path}, but ms-swift would read a different file of this name from the working"
                    f" folder {Path.cwd()}; run the command in another folder."
                )
            columns.pictures[path] = None


def _path(image: object) -> str:
    if isinstance(image, dict):
        if image.get("bytes"):
            raise DataError(
                "holds a picture as bytes, which ms-swift can't read from JSON; write the picture into a file and name"
                " it in `images`."
            )
        image = image.get("path")
    if not isinstance(image, str) or not image:
        raise DataError("names a picture without a path; write the path of the picture.")
    if image.startswith(("http:", "https:", "data:", "file:")):
        raise DataError(
            f"names the picture {image[:40]}, which is not a path; put the picture into a file and write its path."
        )
    return image


def _check_solution(row: dict[str, object], wanted: str) -> None:
    if row.get(wanted) in (None, "", [], {}):
        raise DataError(f"has no '{wanted}', but the reward compares answers with it; build the dataset again.")
