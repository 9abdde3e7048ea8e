"""Fixtures of the pipeline's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.kit import Kit


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """A small recipe, its inputs and an empty volume."""
    made = Kit(tmp_path / "kit")
    yield made
    made.close()
