"""The `vasevqa` command with the pipeline of tests/pipeline/stages. The crash tests kill and restart it."""

from __future__ import annotations

import sys

from tests.pipeline.stages.copying import MODULES, PIPELINE
from vasevqa import cli
from vasevqa.artifacts.volume import Volume
from vasevqa.backends.base import Backend
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.local.backend import LocalBackend
from vasevqa.cli.context import Context
from vasevqa.pipeline import backend


def make_backend(name: str, volume: Volume, cluster: Cluster) -> Backend:
    """Return a local backend that knows the test's stages, or one of the other backends unchanged."""
    return LocalBackend(volume.root, MODULES) if name == "local" else backend.make_backend(name, volume, cluster)


if __name__ == "__main__":
    # doctor checks images, models and GPUs of the real stages, and the stages of the tests have none.
    cli.main(None if sys.argv[1:2] == ["doctor"] else Context(PIPELINE, make_backend))
