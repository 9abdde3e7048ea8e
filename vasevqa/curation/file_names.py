"""What a photograph's file name says: which vase, which view."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from vasevqa.errors import ConfigError

# 0a1b2c3d-..._front_ac001001.jpg: the vase's UUID, the view, and the museum's image number
DEFAULT_PATTERN = r"(?P<vase>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})_(?P<view>.+?)_ac\d+"


@dataclass(frozen=True)
class VaseView:
    """One view of one vase."""

    vase: str
    view: str


def name_pattern(pattern: str | None) -> re.Pattern[str]:
    """The compiled pattern for a file's stem (DEFAULT_PATTERN if None);

    ConfigError unless it has the groups vase and view.
    """
    try:
        compiled = re.compile(pattern or DEFAULT_PATTERN)
    except re.error as error:
        raise ConfigError(f"--name-pattern is not a regular expression ({error}); see the default in --help.") from None
    if not {"vase", "view"} <= set(compiled.groupindex):
        raise ConfigError("--name-pattern needs the named groups (?P<vase>...) and (?P<view>...).")
    return compiled


def parse_name(name: str, pattern: re.Pattern[str]) -> VaseView | None:
    """The vase and view in the relative path `name` (its suffix doesn't count), or None if the name doesn't match."""
    match = pattern.fullmatch(PurePosixPath(name).stem)
    return VaseView(match["vase"].lower(), match["view"]) if match and match["vase"] and match["view"] else None


def vase_group(name: str, pattern: re.Pattern[str]) -> str:
    """Return the group of a file in a split: the vase's id, or the name itself if it does not match the pattern."""
    parsed = parse_name(name, pattern)
    return parsed.vase if parsed else name
