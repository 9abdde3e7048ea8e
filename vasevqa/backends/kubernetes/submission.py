"""Create the Job of one attempt, and the ConfigMap that owns the Jobs of its run."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from vasevqa.backends.base import Task
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.kubernetes.api import Api, ApiError
from vasevqa.backends.kubernetes.nodes import node_of_claim, one_node_only
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.backends.kubernetes.stage_job import HASH, Placement, artifact_hash, render_job, render_run
from vasevqa.backends.kubernetes.status import short
from vasevqa.errors import ClusterError, ConfigError

DELETED_SECONDS = 15.0  # seconds to wait for the removal of a Job with the same name
RECIPE_BYTES = 500_000  # maximum size in bytes of a recipe in a ConfigMap


def create(api: Api, cluster: Cluster, task: Task, owner: dict[str, str], closing: threading.Event) -> Manifest:
    """Create the Job of `task`, or return the existing Job with the same name, artifact and volume.

    Raise ConfigError if the task reads a file outside the volume. Raise ClusterUnreachable if the cluster does not
    answer. Raise ClusterError if the cluster refuses the Job, or if a Job with the same name makes another artifact or
    uses another volume.
    """
    manifest = render_job(task, cluster, _placement(api, cluster, owner))
    task.log.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + DELETED_SECONDS
    while True:
        try:
            return api.create("jobs", manifest)
        except ApiError as refusal:
            if refusal.status != 409:
                raise ClusterError(f"The cluster refuses the Job {task.name}: {short(str(refusal))}.") from None
        try:
            job = api.get(api.path("jobs", task.name))
        except ApiError:  # the existing Job was removed in the meantime
            continue
        if "deletionTimestamp" not in job["metadata"] or time.monotonic() > end:
            _check_same(api, cluster, job, task)
            return job
        closing.wait(0.5)


def _check_same(api: Api, cluster: Cluster, job: Manifest, task: Task) -> None:
    if job["metadata"].get("annotations", {}).get(HASH) != artifact_hash(task, cluster):
        raise ClusterError(
            f"The Job {task.name} in namespace {api.namespace} belongs to another volume or artifact; wait until it"
            f" ends, or remove it (`kubectl delete job {task.name}`)."
        )


def _placement(api: Api, cluster: Cluster, owner: dict[str, str]) -> Placement:
    together, node = False, None
    try:
        together = one_node_only(api.get(api.path("persistentvolumeclaims", cluster.claim)))
        node = node_of_claim(api, cluster.claim) if together else None
    except ApiError as refusal:
        if refusal.status not in (403, 404):  # without the claim the pod waits, and its events name the missing claim
            raise
    return Placement(owner, together, node, dict(os.environ))


def run_owner(api: Api, cluster: Cluster, volume: Path, run: str) -> dict[str, str]:
    """Return the name and uid of the ConfigMap that owns the run's Jobs; create the ConfigMap if it does not exist.

    The function is called before each Job is created, because somebody may have deleted the ConfigMap. If a Job's owner
    no longer exists, the cluster deletes the Job at once.
    """
    try:
        recipe = (volume / "runs" / run / "recipe.yaml").read_text(encoding="utf-8")[:RECIPE_BYTES]
    except OSError:
        recipe = ""
    manifest = render_run(run, recipe, volume, cluster, _release_owner(api))
    try:
        made = api.create("configmaps", manifest)
    except ApiError as refusal:
        if refusal.status != 409:
            raise ClusterError(f"The cluster refuses the ConfigMap of run {run}: {short(str(refusal))}.") from None
        made = api.get(api.path("configmaps", manifest["metadata"]["name"]))
    return {"name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}


def _release_owner(api: Api) -> dict[str, str] | None:
    """Return the name and UID of the ConfigMap that owns the run's ConfigMap; None if there is no owner.

    The environment variable VASEVQA_OWNER_CONFIGMAP names the owner. When the owner is deleted, for example with the
    Helm release, the cluster also deletes all objects of the run.

    Raise ConfigError if the owner can't be read.
    """
    name = os.environ.get("VASEVQA_OWNER_CONFIGMAP")
    if not name:
        return None
    try:
        config_map = api.get(api.path("configmaps", name))
    except ApiError as refusal:
        raise ConfigError(
            f"VASEVQA_OWNER_CONFIGMAP: the ConfigMap {name} can't be read ({short(str(refusal))})."
        ) from None
    return {"name": name, "uid": config_map["metadata"]["uid"]}
