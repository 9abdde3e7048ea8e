"""The `vasevqa` command of a launcher in the cluster, on the pipeline of tests/pipeline/stages."""

from __future__ import annotations

import sys

from tests.pipeline.stages.copying import PIPELINE
from vasevqa import cli
from vasevqa.backends.kubernetes import checks
from vasevqa.cli.context import Context
from vasevqa.pipeline.backend import make_backend

if __name__ == "__main__":
    checks.PULL_SECONDS = 150.0  # a busy machine starts a pod late; what is still open then is "not checked", as ever
    # doctor looks at a place for the real stages, which these have no images, models and GPUs for.
    cli.main(None if sys.argv[1:2] == ["doctor"] else Context(PIPELINE, make_backend))
