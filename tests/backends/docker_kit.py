"""Shared by the tests of the docker backend: the copying pipeline in containers, and a task."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests import containers
from tests.pipeline.kit import Kit
from vasevqa.backends.base import Task
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.docker.backend import DockerBackend
from vasevqa.spec import Resources


class DockerKit(Kit):
    """A kit for containers. The control folder is on the volume, which containers mount. The Cluster file names the
    image.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.use_image(containers.copying_image())

    @property
    def control(self) -> Path:
        return self.root / "volume/control"

    @property
    def cluster_file(self) -> Path:
        return self.root / "cluster.yaml"

    def use_image(self, image: str) -> None:
        self.cluster_file.write_text(yaml.safe_dump({"images": {"copying": image}}))

    @property
    def backend(self) -> DockerBackend:  # type: ignore[override]
        return DockerBackend(self.volume.root, Cluster(images={"copying": containers.copying_image()}))

    def docker(self, *words: str | Path, **given: Any) -> subprocess.CompletedProcess[str]:
        """Run `vasevqa run words.yaml --backend docker ...` to its end."""
        return self.run("--backend", "docker", "--cluster", self.cluster_file, *words, **given)

    def start(self, *words: str | Path, **given: Any) -> subprocess.Popen[str]:
        """Start the same command in the background."""
        return self.command("run", self.recipe, "--backend", "docker", "--cluster", self.cluster_file, *words, **given)

    def assert_none_running(self) -> None:
        backend = self.backend
        assert [job for job in backend.existing("vase-") if not backend.state(job).is_terminal] == []

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [event for run in self.runs() for event in run.events.read() if event["event"] == kind]


def small_task(kit: Kit) -> Task:
    """Return a task that is not part of a plan."""
    return Task("run-1", "first", "copying", "0123456789abcdef", 1, (), Resources(), kit.volume.root, kit.root / "log")
