"""What the tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.kit import Kit


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """A small recipe, its inputs and an empty volume."""
    return Kit(tmp_path / "kit")
