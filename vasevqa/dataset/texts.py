"""Clean the texts of annotations: remove HTML, record separators, and tokens that control a chat model."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vasevqa.dataset.annotations import MEDIA, Problem, Record, Turn
from vasevqa.dataset.talks import answered, says_nothing

# HTML elements that occur in exports of catalogues. Other angle brackets are text: <image>, "height < 5 cm".
_ELEMENTS = (
    "a|abbr|b|blockquote|br|cite|div|em|font|h[1-6]|hr|i|li|ol|p|q|s|small|span|strong|sub|sup|table|tbody|td|th"
)
_ELEMENTS += "|thead|tr|u|ul"
# Each pattern begins at the start of a run of spaces only, so that a long run is read once.
_BREAK = re.compile(r"(?:(?<!\s)\s+)?<\s*(?:/\s*)?(br|hr|li|tr|div|h[1-6]|p|blockquote)\b[^<>]*>\s*", re.IGNORECASE)
_ELEMENT = re.compile(rf"<\s*(?:/\s*)?({_ELEMENTS})\b[^<>]*>", re.IGNORECASE)
_ENTITY = re.compile(r"&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_OPENED = re.compile(r"<!--|<(script|style)\b", re.IGNORECASE)
_CLOSED = {
    "": re.compile("-->"),
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
}
_SEPARATOR = re.compile(r"(?:(?<!\s)\s+)?(\|\||[\x1c-\x1f])\s*")
# Control tokens in the chat templates of open models. In a text, such a token would end or begin a turn.
TOKEN = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|</?(?:tool_call|tool_response|IMG_CONTEXT|img|box|ref|quad)>"
)


@dataclass(frozen=True)
class Cleaned:
    """The cleaned records. `changed` counts the changed texts by the kind of content that was removed."""

    records: list[Record]
    changed: Counter[str]


def clean(records: Sequence[Record], problems: list[Problem]) -> Cleaned:
    """Return the records with clean texts. A text with a chat token is reported as a problem.

    If the text of an attribute holds a chat token, the attribute is removed. If a turn of a conversation holds a chat
    token, the whole conversation is removed.
    """
    changed: Counter[str] = Counter()
    kept = []
    for record in records:
        attributes = {}
        for name, value in record.attributes.items():
            token = _steering(value)
            if token:
                problems.append(Problem("chat token", record.where, f"{name} holds {token}"))
                continue
            text = plain(value, changed)
            if not says_nothing(text):
                attributes[name] = text
            else:
                problems.append(Problem("empty answer", record.where, f"{name} is empty or a placeholder"))
        turns = _turns(record, problems, changed)
        if attributes or turns or not (record.attributes or record.turns):
            kept.append(replace(record, attributes=attributes, turns=turns))
    return Cleaned(kept, changed)


def _steering(text: str) -> str:
    """Return a text that names the chat token in `text`, or "" if there is no chat token.

    A chat token is a text that a model would read as a control token. An image tag written with HTML entities is also a
    chat token, because decoding the entities would give a real tag.
    """
    decoded = html.unescape(html.unescape(text))
    token = TOKEN.search(decoded)
    if token:
        return token[0]
    return "a hidden image tag" if len(MEDIA.findall(decoded)) > len(MEDIA.findall(text)) else ""


def _turns(record: Record, problems: list[Problem], changed: Counter[str]) -> tuple[Turn, ...]:
    for _, text in record.turns:
        token = _steering(text)
        if token:
            problems.append(Problem("chat token", record.where, f"the conversation holds {token}"))
            return ()
    cleaned = [(role, plain(text, changed, lines=True)) for role, text in record.turns]
    return answered(cleaned, record.where, problems)


def plain(text: str, changed: Counter[str] | None = None, lines: bool = False) -> str:
    """Return `text` without HTML elements and with decoded HTML entities.

    A line break in HTML and a record separator become "; ", or a new line if `lines` is True. Entities that were
    encoded twice are decoded twice. `changed` counts the changed texts by the kind of content that was removed.
    """
    counts = changed if changed is not None else Counter()
    result, between = text, "\n" if lines else "; "
    for _ in range(2):
        before = result
        if _ENTITY.search(result):
            result = html.unescape(result).replace("\xa0", " ").replace("\xad", "")
        without = _without_comments(result)
        if without != result or _ELEMENT.search(result):
            result = _ELEMENT.sub("", _BREAK.sub(between, without))
        if result == before:
            break
    if result != text:
        counts["HTML"] += 1
    separated = _SEPARATOR.sub(between, result)
    if separated != result:
        counts["record separators"] += 1
    if separated == text:
        return text
    if lines:
        return separated.strip()
    separated = re.sub(r"(;\s*){2,}", "; ", " ".join(separated.split())).strip()
    return re.sub(r"^(; ?)+|( ?;)+$", "", separated).strip()


def _without_comments(text: str) -> str:
    """Return `text` without HTML comments, scripts and styles.

    A comment, script or style that is never closed stays in the text.
    """
    kept, at, begin = [], 0, 0
    open_ended: set[str] = set()  # the kinds that are not closed in the rest of the text, which is searched only once
    while found := _OPENED.search(text, at):
        kind = (found[1] or "").lower()
        closed = None if kind in open_ended else _CLOSED[kind].search(text, found.end())
        if closed is None:
            open_ended.add(kind)
            at = found.end()
            continue
        kept.append(text[begin : found.start()])
        begin = at = closed.end()
    return "".join([*kept, text[begin:]])
