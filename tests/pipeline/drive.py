"""The `vasevqa` command on the pipeline of tests/pipeline/stages: what a crash drill kills and starts again."""

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
    """Processes that know the test's stages; containers and Jobs as ever."""
    return LocalBackend(volume.root, MODULES) if name == "local" else backend.make_backend(name, volume, cluster)


if __name__ == "__main__":
    # doctor looks at a place for the real stages, which these have no images, models and GPUs for.
    cli.main(None if sys.argv[1:2] == ["doctor"] else Context(PIPELINE, make_backend))
