"""Build the Kubernetes objects of a run: a Job for each attempt of a step, and a ConfigMap that owns the Jobs.

The objects are plain mappings. The same task, settings and placement always give the same manifest.

The objects use only fields of batch/v1 and v1 that every Kubernetes server since version 1.20 knows. This is important
because a server silently ignores a field that it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa import files
from vasevqa.backends.base import Task
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.environment import container_environment, reaches_hub, stage_environment
from vasevqa.backends.kubernetes.pod_template import (
    TMP,
    Manifest,
    claim_folder,
    container_security,
    mounts,
    owned_by,
    pod_security,
    site_settings,
    standard_labels,
    volumes,
)
from vasevqa.confidential import HUB_TOKENS, NAMED, is_confidential
from vasevqa.errors import ConfigError
from vasevqa.spec import Resources, quantity_bytes

PREFIX = "vasevqa/"  # prefix of the project's labels and annotations
VOLUME, RUN, STEP, KEY, ATTEMPT, JOB = (
    f"{PREFIX}{word}" for word in ("volume", "run", "step", "key", "attempt", "job")
)
HASH, LOG = f"{PREFIX}artifact", f"{PREFIX}log"  # annotations
CONTAINER = "stage"
GRACE = 60  # seconds from SIGTERM to SIGKILL: enough for a checkpoint, and longer than any launcher waits
KEPT = 7 * 86400  # seconds that a finished Job stays if no launcher removes it
SHM = "/dev/shm"  # noqa: S108 - the shared memory of data loaders


@dataclass(frozen=True)
class Placement:
    """Values for the manifest of a Job that the launcher knows only at run time.

    `owner` is the ConfigMap that owns the Job. `together` is True if only one node at a time can mount the claim, so
    that all pods of the volume must run on one node. `node` is the name of this node; None if no running pod uses the
    claim yet. `environ` is the launcher's environment, from which the stage gets its proxies and its hub settings.
    """

    owner: Mapping[str, str] | None = None  # name and uid of the run's ConfigMap
    together: bool = False
    node: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


def volume_id(cluster: Cluster) -> str:
    """Return the identifier of the volume, which consists of 16 hexadecimal digits.

    It is a digest of the claim's name and of the volume's folder in the claim. The objects of all runs on the volume
    have the identifier as a label.
    """
    return files.digest_json([cluster.claim, claim_folder(cluster)])[:16]


def artifact_hash(task: Task, cluster: Cluster) -> str:
    """Return a digest of the artifact and its volume: 32 hexadecimal digits.

    Two Jobs with the same name and the same digest make the same artifact on the same volume, even if different runs
    submitted the Jobs. Log folders, deadlines and resources do not change the digest, so runs that differ in these
    values can share a Job.
    """
    return files.digest_json(
        {
            "claim": cluster.claim,
            "path": claim_folder(cluster),
            "volume": str(task.volume),
            "step": task.step,
            "key": task.key,
        }
    )[:32]


def _labels(cluster: Cluster, component: str) -> dict[str, str]:
    """Return the labels that all objects of the volume have; one of them identifies the volume."""
    return {**standard_labels(cluster, component), VOLUME: volume_id(cluster)}


def render_run(
    run: str, recipe: str, volume: Path, cluster: Cluster, owner: Mapping[str, str] | None = None
) -> Manifest:
    """Return the ConfigMap that owns a run's Jobs.

    When the ConfigMap is deleted, the cluster deletes the Jobs too.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"vase-run-{run}",
            "labels": {**_labels(cluster, "run"), RUN: run},
            **owned_by(owner),
        },
        "data": {"volume": str(volume), "recipe.yaml": recipe},
    }


def render_job(task: Task, cluster: Cluster, placement: Placement | None = None) -> Manifest:
    """Return the Job of one attempt.

    Raise ConfigError if the task reads a file outside the volume, because no pod can read such a file.
    """
    if task.reads:
        raise ConfigError(
            f"The input {task.reads[0]} lies outside the volume {task.volume}, where pods can't read it; copy it"
            " to the volume with `vasevqa upload`."
        )
    placement = placement or Placement()
    labels = {
        **_labels(cluster, task.stage),
        RUN: task.run,
        STEP: task.step,
        KEY: task.key[:63],
        ATTEMPT: str(task.attempt),
        JOB: task.name,
    }
    log = str(task.log.relative_to(task.volume)) if task.log.is_relative_to(task.volume) else str(task.log)
    asked = task.resources
    spec: Manifest = {
        "backoffLimit": 0,  # one Job is one attempt, because the remedy for a failure often changes the Job
        "ttlSecondsAfterFinished": KEPT,
        "template": {
            "metadata": {"labels": labels, "annotations": dict(cluster.annotations)},
            "spec": _pod(task, cluster, placement),
        },
    }
    if asked.run_deadline is not None:
        # The launcher enforces the deadlines. This limit works even if the launcher never returns: a stage that hangs
        # must not keep its GPUs.
        spec["activeDeadlineSeconds"] = asked.queue_deadline + asked.start_deadline + asked.run_deadline
    queue = {"kueue.x-k8s.io/queue-name": cluster.queue} if cluster.queue else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": task.name,
            "labels": {**labels, **queue},
            "annotations": {HASH: artifact_hash(task, cluster), LOG: log},
            **owned_by(placement.owner),
        },
        "spec": spec,
    }


def _pod(task: Task, cluster: Cluster, placement: Placement) -> Manifest:
    container = {
        "name": CONTAINER,
        "image": task.image or cluster.image(task.stage),
        "imagePullPolicy": cluster.pull_policy,
        "args": list(task.arguments),
        "env": _variables(task, cluster, placement.environ),
        "resources": _resources(task.resources, cluster),
        "securityContext": container_security(),
        "volumeMounts": [*mounts(cluster, str(task.volume)), {"name": "shm", "mountPath": SHM}],
    }
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": pod_security(cluster),
        "containers": [container],
        "volumes": [
            *volumes(cluster),
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": task.resources.shm}},  # the default is 64 MiB
        ],
        **site_settings(cluster),
    }
    optional = {"runtimeClassName": cluster.runtime_class, "affinity": _affinity(task.resources, cluster, placement)}
    return {**pod, **{name: value for name, value in optional.items() if value}}


def _resources(asked: Resources, cluster: Cluster) -> Manifest:
    """Return the container's requests and limits.

    Memory, GPUs and ephemeral storage have equal requests and limits, so the node reserves the full amount for the
    step. CPUs have only a request, and the step may use more.
    """
    both: dict[str, str] = {"memory": asked.memory}
    if asked.gpus:
        both[asked.gpu_resource or cluster.gpu_resource] = str(asked.gpus)
    if asked.ephemeral_storage:
        both["ephemeral-storage"] = asked.ephemeral_storage
    return {
        "requests": {"cpu": f"{round(asked.cpus * 1000)}m" if asked.cpus % 1 else str(int(asked.cpus)), **both},
        "limits": dict(both),
    }


def _affinity(asked: Resources, cluster: Cluster, placement: Placement) -> Manifest:
    term: Manifest = {}
    wanted = []
    if asked.gpus and asked.gpu_memory:
        least = math.ceil(quantity_bytes(asked.gpu_memory) / 2**20)
        wanted.append({"key": cluster.gpu_memory_label, "operator": "Gt", "values": [str(least - 1)]})
    if asked.gpus and asked.gpu_product:
        wanted.append({"key": cluster.gpu_product_label, "operator": "In", "values": [asked.gpu_product]})
    if wanted:
        term["matchExpressions"] = wanted
    if placement.node:
        term["matchFields"] = [{"key": "metadata.name", "operator": "In", "values": [placement.node]}]
    affinity: Manifest = {}
    if term:
        affinity["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    if placement.together:
        # The first pod may run on any node: a pod that matches its own rule needs no other pod.
        affinity["podAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": {VOLUME: volume_id(cluster)}},
                    "topologyKey": "kubernetes.io/hostname",
                }
            ]
        }
    return affinity


def _variables(task: Task, cluster: Cluster, environ: Mapping[str, str]) -> list[Manifest]:
    """Return the container's environment variables.

    A confidential variable refers to a key of a Secret, so its value is never in a manifest, event or log. Only a stage
    that may reach a hub gets the hub's token. Raise ConfigError if a variable of this machine contains a password.
    """
    caches = ("HF_HOME", "TORCH_HOME")  # a pod mounts only the volume
    passed = {
        name: value for name, value in environ.items() if name not in caches or Path(value).is_relative_to(task.volume)
    }
    plain = {
        "HOME": TMP,
        "USER": "vasevqa",  # for libraries that ask for the user's name: the uid has no entry in the image's passwd
        "LOGNAME": "vasevqa",
        **cluster.over(container_environment(task, math.ceil(task.resources.cpus), passed)),
        **stage_environment(task),
    }
    if not task.resources.gpus:
        plain["NVIDIA_VISIBLE_DEVICES"] = (
            "void"  # an image with the value `all` would use GPUs that the pod did not request
        )
    secret = {
        name: where for name, where in sorted(cluster.secrets.items()) if name not in HUB_TOKENS or reaches_hub(plain)
    }
    plain = {name: value for name, value in sorted(plain.items()) if name not in cluster.secrets}
    for name, value in plain.items():
        if is_confidential(name, value):
            raise ConfigError(
                f"The variable {name} of this machine contains a password or token, which everybody in the namespace"
                " could read in the step's Job; put it into a Secret and name the Secret under `secrets` in the Cluster"
                " file, or unset the variable."
            )
    if secret:
        plain[NAMED] = ",".join(secret)
    references = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": where.secret, "key": where.key, "optional": False}}}
        for name, where in secret.items()
    ]
    return [{"name": name, "value": value} for name, value in plain.items()] + references
