"""Choose the backend of a run, and save the choice for `cancel` and `clean`."""

from __future__ import annotations

from collections.abc import Callable

from vasevqa import files
from vasevqa.artifacts.volume import Volume
from vasevqa.backends.base import Backend, job_prefix
from vasevqa.backends.cluster import Cluster, parse_cluster
from vasevqa.backends.local.backend import LocalBackend
from vasevqa.pipeline.plan import Plan
from vasevqa.pipeline.runs import Run

MakeBackend = Callable[[str, Volume, Cluster], Backend]


def make_backend(name: str, volume: Volume, cluster: Cluster) -> Backend:
    """Return the backend with this `name` for the artifacts on `volume`.

    Raise VaseError if the backend's container engine or cluster doesn't answer.
    """
    if name == "docker":
        from vasevqa.backends.docker.backend import DockerBackend

        return DockerBackend(volume.root, cluster)
    if name == "kubernetes":
        from vasevqa.backends.kubernetes.backend import KubernetesBackend

        return KubernetesBackend(volume.root, cluster)
    assert name == "local", name
    return LocalBackend(volume.root)


def remember(run: Run, name: str, cluster: Cluster) -> None:
    """Save the run's backend and Cluster settings for `cancel` and `clean`."""
    files.write_json(
        run.path / "place.json",
        {"backend": name, "cluster": cluster.model_dump(mode="json", exclude_defaults=True, by_alias=True)},
    )


def backend_of(run: Run, make: MakeBackend) -> Backend:
    """Return the backend that runs the steps of the run."""
    settings = run.backend_settings
    cluster = parse_cluster(settings.get("cluster", {}), str(run.path / "place.json"))
    return make(str(settings.get("backend", "local")), run.volume, cluster)


def left_running(planned: Plan, record: Run, backend: Backend) -> list[str]:
    """Return a sentence for each job that an interrupted run left running.

    Jobs of the run `record`, and jobs for the steps of `planned`, are left out.
    """
    ours = tuple(job_prefix(step.name, step.artifact.key) for step in planned.steps)
    lines = []
    for job in backend.existing("vase-"):
        owner = backend.owner(job)
        if job.startswith(ours) or owner is None or owner == record.name or backend.state(job).is_terminal:
            continue
        if Run(planned.volume, owner).state == "interrupted":
            lines.append(
                f"{job} of the interrupted run {owner} is still running; stop it with `vasevqa cancel {owner}`."
            )
    return lines
