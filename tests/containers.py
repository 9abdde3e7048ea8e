"""The pipeline of tests/pipeline/stages in a container image, for tests of docker and of clusters."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("vasevqa", "tests/__init__.py", "tests/pipeline/__init__.py", "tests/pipeline/stages")
DOCKERFILE = """
FROM vasevqa/base:latest
COPY . /app
USER 1000:1000
ENTRYPOINT ["tini", "--", "python", "-m", "tests.pipeline.stages.copying"]
CMD ["--help"]
"""


def engine() -> Any:
    """A client of the docker engine.

    Without an engine, tests that need it fail. With VASEVQA_NO_DOCKER=1, they are skipped.
    """
    if os.environ.get("VASEVQA_NO_DOCKER") == "1":
        pytest.skip("VASEVQA_NO_DOCKER=1: tests with Docker are switched off")
    import docker

    client = docker.from_env()
    client.ping()
    return client


@lru_cache
def copying_image() -> str:
    """Build the image of the copying stage from the present code, once, and return its tag."""
    client = engine()
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        for part in PARTS:
            target = context / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, target)
        digest = hashlib.sha256(DOCKERFILE.encode())
        for path in sorted(context.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(context)}\0".encode() + path.read_bytes())
        tag = f"vasevqa-test/copying:{digest.hexdigest()[:12]}"
        if not client.images.list(tag):
            if not client.images.list("vasevqa/base:latest"):
                subprocess.run([sys.executable, "-m", "images.build", "--stage", "launcher"], cwd=ROOT, check=True)
            (context / "Dockerfile").write_text(DOCKERFILE)
            client.images.build(path=str(context), tag=tag, rm=True)
    return tag
