"""The `vasevqa` command on the pipeline of tests/pipeline/stages: what a crash drill kills and starts again."""

from __future__ import annotations

from tests.pipeline.stages.copying import MODULES, PIPELINE
from vasevqa import cli
from vasevqa.backends.local import LocalBackend
from vasevqa.commands import running

if __name__ == "__main__":
    running.PIPELINE = PIPELINE
    running.make_backend = lambda name, volume: LocalBackend(volume.root, MODULES)
    cli.main()
