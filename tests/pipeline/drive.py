"""The `vasevqa` command on the pipeline of tests/pipeline/stages: what a crash drill kills and starts again."""

from __future__ import annotations

from tests.pipeline.stages.copying import MODULES, PIPELINE
from vasevqa import cli
from vasevqa.backends.local import LocalBackend
from vasevqa.commands import placing, repeating, running

if __name__ == "__main__":
    running.PIPELINE = repeating.PIPELINE = PIPELINE
    make_backend = placing.make_backend
    placing.make_backend = lambda name, volume, cluster: LocalBackend(volume.root, MODULES) if name == "local" else make_backend(name, volume, cluster)
    cli.main()
