"""The `vasevqa` command of a launcher in the cluster, on the pipeline of tests/pipeline/stages."""

from __future__ import annotations

from tests.pipeline.stages.copying import PIPELINE
from vasevqa import cli
from vasevqa.commands import running, submitting

if __name__ == "__main__":
    running.PIPELINE = submitting.PIPELINE = PIPELINE
    cli.main()
