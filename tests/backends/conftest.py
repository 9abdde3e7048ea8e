"""Fixtures of the tests that need a Docker engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import containers
from tests.backends.docker_kit import DockerKit
from tests.pipeline.kit import Kit


@pytest.fixture(scope="module")
def engine() -> Any:
    return containers.engine()


@pytest.fixture
def kit(engine: Any, tmp_path: Path) -> Iterator[DockerKit]:
    made = DockerKit(tmp_path / "kit")
    yield made
    made.close()
    for container in engine.containers.list(all=True, filters={"label": "vasevqa"}):
        if container.labels["vasevqa.log"].startswith(str(tmp_path)):
            container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The artifacts of a run with local processes."""
    kit = Kit(tmp_path_factory.mktemp("local") / "kit")
    kit.run()
    return kit.contents()
