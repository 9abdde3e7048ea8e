"""The common parts of all pods: labels, owner, security, mounts and placement.

Pods of stages, launchers and transfers use these parts. All parts are plain mappings. Every pod satisfies the
"restricted" level of Pod Security.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vasevqa import __version__
from vasevqa.backends.cluster import Cluster

Manifest = dict[str, Any]
TMP = "/tmp"  # noqa: S108 - the pod's own /tmp


def standard_labels(cluster: Cluster, component: str) -> dict[str, str]:
    """Return the labels of all objects that this project creates.

    The site's labels can't replace the project's own labels.
    """
    return {
        **cluster.labels,
        "app.kubernetes.io/name": "vasevqa",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "vasevqa",
        "app.kubernetes.io/managed-by": "vasevqa",
        "app.kubernetes.io/version": __version__,
    }


def owned_by(owner: Mapping[str, str] | None) -> Manifest:
    """Return the metadata that makes a ConfigMap the owner of an object; empty without an owner.

    `owner` holds the ConfigMap's name and UID. When the ConfigMap is deleted, the cluster deletes the object too.
    """
    if not owner:
        return {}
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
    return {"ownerReferences": [reference]}


def claim_folder(cluster: Cluster) -> str:
    """Return the claim's folder that serves as the volume's root; empty if the volume is the whole claim."""
    return str(Path(cluster.claim_path)) if cluster.claim_path.strip("/.") else ""


def mounts(cluster: Cluster, path: str) -> list[Manifest]:
    """Return a container's two mounts, which are the volume at `path` and a temporary folder at /tmp."""
    folder = {"subPath": claim_folder(cluster)} if claim_folder(cluster) else {}
    return [{"name": "volume", "mountPath": path, **folder}, {"name": "tmp", "mountPath": TMP}]


def volumes(cluster: Cluster) -> list[Manifest]:
    """Return the pod's volumes to which the result of `mounts` refers."""
    return [
        {"name": "volume", "persistentVolumeClaim": {"claimName": cluster.claim}},
        {"name": "tmp", "emptyDir": {}},
    ]


def container_security() -> Manifest:
    """Return a container's security context, which gives no privileges and makes only mounts writable."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def pod_security(cluster: Cluster) -> Manifest:
    """Return a pod's security context, with the Cluster file's user and group; the user is never root."""
    return {
        "runAsNonRoot": True,
        "runAsUser": cluster.user,
        "runAsGroup": cluster.group,
        "fsGroup": cluster.group,
        "fsGroupChangePolicy": "OnRootMismatch",  # avoid changing the owner of a million images at each start
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def site_settings(cluster: Cluster) -> Manifest:
    """Return the fields that the Cluster file sets in every pod, such as tolerations and pull secrets.

    Settings without a value are omitted.
    """
    settings = {
        "nodeSelector": dict(cluster.node_selector),
        "tolerations": [item.model_dump(by_alias=True, exclude_none=True) for item in cluster.tolerations],
        "imagePullSecrets": [{"name": name} for name in cluster.pull_secrets],
        "priorityClassName": cluster.priority_class,
    }
    return {name: value for name, value in settings.items() if value}
