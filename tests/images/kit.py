"""The images that `make images` builds, for tests:

`from tests.images.kit import images` gives the fixture to any folder of tests.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from images import build, names
from images.engine import BuildError, Engine, EngineError

UID = 12345
NAMES = [name for name in names.image_names() if name != names.MEGATRON]
# As strict as a cluster: a read-only root, a user without a name, and no network.
STRICT = ("--read-only", "--tmpfs", "/tmp", "--user", f"{UID}:0", "--network", "none")
NO_DOCKER = "VASEVQA_NO_DOCKER=1: tests with Docker are switched off"


@dataclass
class Images:
    """The images under one tag, and containers made of them."""

    engine: Engine
    tag: str
    containers: list[str] = field(default_factory=list)

    def reference(self, name: str) -> str:
        return f"vasevqa/{name}:{self.tag}"

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker WORDS` to its end."""
        result = subprocess.run([self.engine.binary, *words], capture_output=True, text=True, timeout=280)
        assert not check or result.returncode == 0, f"docker {' '.join(words)}\n{result.stdout}{result.stderr}"
        return result

    def run(
        self, name: str, *words: str, options: tuple[str, ...] = STRICT, volume: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the image's command with WORDS. `volume` is mounted at /data."""
        mount = ("--volume", f"{volume}:/data") if volume else ()
        return self.docker("run", "--rm", *options, *mount, self.reference(name), *words, check=check)

    def start(self, name: str, *words: str, volume: Path) -> str:
        """Start the same command in the background, and return the container's name."""
        container = f"vasevqa-test-{uuid.uuid4().hex[:12]}"
        self.containers.append(container)
        self.docker(
            "run", "--detach", "--name", container, *STRICT, "--volume", f"{volume}:/data", self.reference(name), *words
        )
        return container

    def close(self) -> None:
        """Remove all containers."""
        for container in self.containers:
            self.docker("rm", "--force", container, check=False)


def engine() -> Engine:
    """The Docker engine. Without an engine, the test fails unless VASEVQA_NO_DOCKER=1."""
    if os.environ.get("VASEVQA_NO_DOCKER") == "1":
        pytest.skip(NO_DOCKER)
    try:
        return Engine()
    except EngineError as error:
        pytest.fail(f"{error} (VASEVQA_NO_DOCKER=1 skips the tests that need it.)", pytrace=False)


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    """The images with the tag VASEVQA_IMAGE_TAG, or the images of the working tree. Missing images of the working tree
    are built.
    """
    docker = engine()
    wanted = os.environ.get("VASEVQA_IMAGE_TAG")
    found = Images(docker, wanted or names.source().tag)
    missing = tuple(name for name in NAMES if not docker.inspect(found.reference(name)))
    if missing and wanted:
        pytest.fail(
            f"There is no image {found.reference(missing[0])}; build it, or unset VASEVQA_IMAGE_TAG.", pytrace=False
        )
    if missing:
        order = build.Order(missing, "", build.DEFAULT_BASE, names.TRAINING_LOCK, False, names.source())
        try:
            build.make(docker, order)
        except BuildError as error:
            pytest.fail(str(error), pytrace=False)
    yield found
    found.close()
