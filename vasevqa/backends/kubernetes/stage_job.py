"""Renders the Kubernetes objects of a run: a Job for each attempt of a step, and a ConfigMap that owns the Jobs.

The objects are plain mappings, and rendering is pure: the same task, settings and placement give the same manifest.

Only fields of batch/v1 and v1 that every server since 1.20 knows are used. An older server drops a field that it does
not know without a message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa import files
from vasevqa.backends.base import Task
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.environment import SECRETS, container_environment, stage_environment
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
from vasevqa.errors import ConfigError
from vasevqa.spec import Resources, quantity_bytes

PREFIX = "vasevqa/"  # of our own labels and annotations
VOLUME, RUN, STEP, KEY, ATTEMPT, JOB = (
    f"{PREFIX}{word}" for word in ("volume", "run", "step", "key", "attempt", "job")
)
HASH, LOG = f"{PREFIX}artifact", f"{PREFIX}log"  # annotations
CONTAINER = "stage"
GRACE = 60  # seconds from SIGTERM to SIGKILL: time for a checkpoint, and more than any launcher waits
KEPT = 7 * 86400  # seconds that a finished Job stays if no launcher ever comes back for it
SHM = "/dev/shm"  # noqa: S108 - what data loaders share


@dataclass(frozen=True)
class Placement:
    """What only the cluster at hand can tell: who owns the Job, and which node holds the claim.

    `together` puts all pods of the volume on one node, for a claim that only one node at a time can mount. `node` names
    that node once a pod there uses the claim; else it is None.

    `environ` is the launcher's environment. Its proxies and hub settings are passed on.
    """

    owner: Mapping[str, str] | None = None  # name and uid of the run's ConfigMap
    together: bool = False
    node: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


def volume_id(cluster: Cluster) -> str:
    """Return the label value of everything that belongs to one volume: 16 hexadecimal digits.

    It is a digest of the claim and of the folder in it.
    """
    return files.digest_json([cluster.claim, claim_folder(cluster)])[:16]


def artifact_hash(task: Task, cluster: Cluster) -> str:
    """Return a digest of the artifact and its volume: 32 hexadecimal digits.

    Two Jobs of one name with the same digest make the same artifact on the same volume, whichever run submitted them.
    The digest does not cover the whole spec, because two runs share a Job even if their log folders, deadlines and
    resources differ.
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
    """Return the labels that everything of a volume has."""
    return {**standard_labels(cluster, component), VOLUME: volume_id(cluster)}


def render_run(
    run: str, recipe: str, volume: Path, cluster: Cluster, owner: Mapping[str, str] | None = None
) -> Manifest:
    """Return the ConfigMap that owns a run's Jobs.

    When it is deleted, the cluster deletes the Jobs too.
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

    Raise ConfigError if the task reads something that no pod can see.
    """
    if task.reads:
        raise ConfigError(
            f"The input {task.reads[0]} lies outside the volume {task.volume}, where pods can't read it; copy it to the"
            " volume (`vasevqa upload`)."
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
        "backoffLimit": 0,  # one Job is one attempt: the remedy for a failure often changes the Job
        "ttlSecondsAfterFinished": KEPT,
        "template": {
            "metadata": {"labels": labels, "annotations": dict(cluster.annotations)},
            "spec": _pod(task, cluster, placement),
        },
    }
    if asked.run_deadline is not None:
        # The launcher minds the deadline. This is for one that never comes back: a stage that hangs mustn't keep its
        # GPUs.
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
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": task.resources.shm}},  # 64 MiB without it
        ],
        **site_settings(cluster),
    }
    optional = {"runtimeClassName": cluster.runtime_class, "affinity": _affinity(task.resources, cluster, placement)}
    return {**pod, **{name: value for name, value in optional.items() if value}}


def _resources(asked: Resources, cluster: Cluster) -> Manifest:
    """Return the container's requests and limits.

    Memory, GPUs and ephemeral storage have equal requests and limits, so what the step asks for is available to it.
    CPUs have only a request, which the step may exceed.
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
        # The first pod may go anywhere, for a pod that matches its own rule needs no other.
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
    """Return the container's environment.

    Secrets are references, so no manifest, event or log ever holds a value.
    """
    caches = ("HF_HOME", "TORCH_HOME")  # only the volume is there in a pod
    passed = {
        name: value for name, value in environ.items() if name not in caches or Path(value).is_relative_to(task.volume)
    }
    plain = {
        "HOME": TMP,
        "USER": "vasevqa",  # for libraries that ask who we are: the uid has no entry in the image's passwd
        "LOGNAME": "vasevqa",
        **cluster.over(container_environment(task, math.ceil(task.resources.cpus), passed)),
        **stage_environment(task),
    }
    if not task.resources.gpus:
        plain["NVIDIA_VISIBLE_DEVICES"] = "void"  # an image that says `all` would see GPUs it has no claim to
    secret = set(SECRETS) | set(cluster.secrets)
    references = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": where.secret, "key": where.key, "optional": False}}}
        for name, where in sorted(cluster.secrets.items())
    ]
    return [{"name": name, "value": value} for name, value in sorted(plain.items()) if name not in secret] + references
