"""Vase and view from a file's name."""

from __future__ import annotations

import pytest

from vasevqa.curation.file_names import VaseView, name_pattern, parse_name, vase_group
from vasevqa.errors import ConfigError

UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"{UUID}_front_ac001001.jpg", VaseView(UUID, "front")),
        (f"berlin/F 123/{UUID}_side_left_ac001001.JPEG", VaseView(UUID, "side_left")),
        (f"{UUID.upper()}_1_ac7.png", VaseView(UUID, "1")),
        (f"{UUID}_ac001001.jpg", None),
        ("IMG_0001.jpg", None),
        (f"{UUID}_front.jpg", None),
    ],
)
def test_the_default_pattern(name: str, found: VaseView | None) -> None:
    assert parse_name(name, name_pattern(None)) == found
    assert vase_group(name, name_pattern(None)) == (found.vase if found else name)


@pytest.mark.parametrize("pattern", ["(", "(?P<vase>.*)", ".*", "(?P<vase>a"])
def test_wrong_patterns_are_named(pattern: str) -> None:
    with pytest.raises(ConfigError, match="--name-pattern"):
        name_pattern(pattern)
