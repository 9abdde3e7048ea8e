"""Read the YAML files that users write: recipes, Cluster files, prompts and questions.

An error names the file and the line. Folders, pipes, large files and files in another encoding are refused.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vasevqa.errors import ConfigError, invalid_yaml, storage_error
from vasevqa.storage import patiently

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000  # nested aliases can expand a small file without bound
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_NULL = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True)
class FileKind:
    """A kind of file: its name in messages ("recipe"), and the hint for the message about a missing file."""

    name: str
    hint: str


@dataclass
class Lines:
    """The line number of each key in a file. A key is a path, such as ('steps', 'clip-filter', 'threshold')."""

    where: str
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    options: dict[tuple[str, ...], str] = field(default_factory=dict)  # values that come from the command line

    def at(self, *path: str) -> str:
        """Return 'recipe.yaml, line 7' for the key at `path`, or for the nearest key that contains it.

        For a value from the command line, return its option, such as '--set x.y=z'. If the key in the file contains
        values from the command line, return both places, because the mistake may be in either.
        """
        for length in range(len(path), 0, -1):
            near = path[:length]
            if near in self.options:
                return self.options[near]
            given = ", ".join(text for other, text in self.options.items() if len(near) > 1 and other[:length] == near)
            if near in self.lines:
                return f"{self.where}, line {self.lines[near]}" + (f", with {given}" if given else "")
            if given:
                return given
        return self.where


def read_text(path: Path, kind: FileKind) -> str:
    """Return the text of a user's file.

    Raise ConfigError if the file is missing, not a regular file, larger than MAX_BYTES, unreadable or not in UTF-8.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{path} is a folder; give a {kind.name}, which is a YAML file.")
        if not stat.S_ISREG(status.st_mode):  # reading a FIFO may block for ever, and a device may never end
            raise ConfigError(f"{path} is a pipe, socket or device; give a {kind.name} that is saved as a file.")
        if status.st_size > MAX_BYTES:
            raise ConfigError(
                f"{path} is larger than {MAX_BYTES >> 20} MiB; give a {kind.name}, which is a small file."
            )
        content = patiently(path.read_bytes, path)
    except FileNotFoundError:
        raise ConfigError(f"There is no {kind.name} {path}; {kind.hint}.") from None
    except (OSError, ValueError, RuntimeError) as error:  # for example a null byte or a loop of links
        if (known := storage_error(error, "read", path)) is not None:
            raise known from error
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"The {kind.name} {shortened(str(path))} can't be read ({why}); give another path.") from None
    return _decoded(content, path, kind)


def shortened(text: str, most: int = 200) -> str:
    """Return `text`. If `text` is longer than `most` characters, '...' replaces the middle."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 4 :]}"


def _decoded(content: bytes, path: Path, kind: FileKind) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise ConfigError(f"{path} is written in {encoding}; save the {kind.name} in UTF-8.")
    if b"\0" in content:
        if content.count(b"\0") * 4 > len(content):
            raise ConfigError(f"{path} is written in UTF-16; save the {kind.name} in UTF-8.")
        raise ConfigError(f"{path} is not a text file; give a {kind.name} in UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: the text is not UTF-8 (perhaps it is Windows-1252); save the {kind.name} in UTF-8."
        ) from None


def parse(text: str, lines: Lines, *, aliases: bool = False, as_written: bool = False, hint: str = "correct it") -> Any:
    """Return the value of the YAML in `text`, or None for an empty text. Store the line of each key in `lines`.

    `aliases` permits anchors and aliases. With `as_written`, numbers, booleans and dates stay strings as the user wrote
    them (`4`, `true`, `no`, `1.10`), and only an empty value becomes None. The message about invalid YAML ends with
    `hint`.

    Raise ConfigError for invalid YAML, for a duplicate key, and for a text that holds more than MAX_VALUES values.
    """
    try:
        if not aliases:
            _refuse_aliases(text, lines)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _Reader(lines, as_written).value(node, ())
    except yaml.YAMLError as error:
        raise invalid_yaml(lines.where, error, hint) from None
    except RecursionError:  # for example an alias inside its own anchor
        raise ConfigError(
            f"{lines.where} is nested too deeply; use fewer levels, and no alias inside its own anchor."
        ) from None


def _refuse_aliases(text: str, lines: Lines) -> None:
    for token in yaml.scan(text):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
            raise ConfigError(
                f"{lines.where}, line {token.start_mark.line + 1}: recipes can't have anchors and aliases;"
                " write each value in full."
            )


class _Reader:
    """Converts YAML nodes to values."""

    def __init__(self, lines: Lines, as_written: bool) -> None:
        self.lines, self.as_written, self.count = lines, as_written, 0

    def value(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise ConfigError(f"{self.lines.where} holds more than {MAX_VALUES:,} values; write fewer.")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, path) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        if self.as_written:
            return None if node.style is None and node.value in _NULL else str(node.value)
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(node, deep=True)  # type: ignore[no-untyped-call]
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError):
            # PyYAML's constructors don't check the value if a tag gives the type: `!!bool foo`, `!!timestamp foo`,
            # `!!int ""`
            raise ConfigError(
                f"{self.lines.at(*path)}: '{node.value}' is not a plain value; write a text or a number."
            ) from None
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in values:
                raise ConfigError(
                    f"{self.lines.where}, line {line}: '{key}' appears a second time; remove one of the two."
                )
            inner = (*path, key)
            self.lines.lines[inner] = line
            values[key] = self.value(value_node, inner)
        return values
