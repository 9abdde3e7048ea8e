"""Which backend a run's steps go to, now and for whoever looks at the run later."""

from __future__ import annotations

from vasevqa import files
from vasevqa.backends.base import Backend
from vasevqa.backends.cluster import Cluster, parse_cluster
from vasevqa.backends.local import LocalBackend
from vasevqa.pipeline.artifacts import Volume
from vasevqa.pipeline.runs import Run

BACKENDS = ("local", "docker", "kubernetes")


def make_backend(name: str, volume: Volume, cluster: Cluster) -> Backend:
    """The backend called `name` for the artifacts on `volume`; VaseError if its engine or cluster doesn't answer."""
    if name == "docker":
        from vasevqa.backends.docker import DockerBackend

        return DockerBackend(volume.root, cluster)
    if name == "kubernetes":
        from vasevqa.backends.kubernetes import KubernetesBackend

        return KubernetesBackend(volume.root, cluster)
    assert name == "local", name
    return LocalBackend(volume.root)


def remember(run: Run, name: str, cluster: Cluster) -> None:
    """Write down where the run's steps go: `cancel` and `clean` look there too."""
    files.write_json(run.path / "place.json", {"backend": name, "cluster": cluster.model_dump(mode="json", exclude_defaults=True, by_alias=True)})


def backend_of(run: Run) -> Backend:
    """The backend that the run's steps were given to."""
    place = run.place
    cluster = parse_cluster(place.get("cluster", {}), str(run.path / "place.json"))
    return make_backend(str(place.get("backend", "local")), run.volume, cluster)
