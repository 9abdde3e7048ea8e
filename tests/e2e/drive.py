"""The `vasevqa` command of a launcher in the cluster, on the pipeline of tests/pipeline/stages."""

from __future__ import annotations

import sys

from tests.pipeline.stages.copying import PIPELINE
from vasevqa import cli
from vasevqa.backends.kubernetes import checks
from vasevqa.cli.context import Context
from vasevqa.pipeline.backend import make_backend

if __name__ == "__main__":
    checks.PULL_SECONDS = 150.0  # a busy machine starts a pod late; the result of an unfinished check is "not checked"
    # doctor checks images, models and GPUs of the real stages, and the stages of the tests have none.
    cli.main(None if sys.argv[1:2] == ["doctor"] else Context(PIPELINE, make_backend))
