"""The `vasevqa` command of a launcher in the cluster, on the pipeline of tests/pipeline/stages."""

from __future__ import annotations

from tests.pipeline.stages.copying import PIPELINE
from vasevqa import cli
from vasevqa.backends import kubernetes_checks
from vasevqa.commands import running, submitting

if __name__ == "__main__":
    running.PIPELINE = submitting.PIPELINE = PIPELINE
    kubernetes_checks.PULL_SECONDS = 150.0  # a busy machine starts a pod late; what is still open then is "not checked", as ever
    cli.main()
