"""What the pods of stages, launchers and transfers have in common: labels, owner, security, mounts and placement.

Plain mappings; every pod passes Pod Security's "restricted".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vasevqa import __version__
from vasevqa.backends.cluster import Cluster

Manifest = dict[str, Any]
TMP = "/tmp"  # noqa: S108 - the pod's own


def standard_labels(cluster: Cluster, component: str) -> dict[str, str]:
    """The labels of everything that is ours; the site's own first, so that none replaces them."""
    return {
        **cluster.labels,
        "app.kubernetes.io/name": "vasevqa",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "vasevqa",
        "app.kubernetes.io/managed-by": "vasevqa",
        "app.kubernetes.io/version": __version__,
    }


def owned_by(owner: Mapping[str, str] | None) -> Manifest:
    """Metadata that ties an object's life to that of the ConfigMap with this `name` and `uid`; nothing without one."""
    if not owner:
        return {}
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
    return {"ownerReferences": [reference]}


def claim_folder(cluster: Cluster) -> str:
    """The folder of the claim that is the volume's root; empty for the claim's own root."""
    return str(Path(cluster.claim_path)) if cluster.claim_path.strip("/.") else ""


def mounts(cluster: Cluster, path: str) -> list[Manifest]:
    """A container's mounts: the volume at `path`, and /tmp."""
    folder = {"subPath": claim_folder(cluster)} if claim_folder(cluster) else {}
    return [{"name": "volume", "mountPath": path, **folder}, {"name": "tmp", "mountPath": TMP}]


def volumes(cluster: Cluster) -> list[Manifest]:
    """The pod's volumes for `mounts`."""
    return [
        {"name": "volume", "persistentVolumeClaim": {"claimName": cluster.claim}},
        {"name": "tmp", "emptyDir": {}},
    ]


def container_security() -> Manifest:
    """No privileges, and nothing to write but mounts."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def pod_security(cluster: Cluster) -> Manifest:
    """The site's user and group, never root."""
    return {
        "runAsNonRoot": True,
        "runAsUser": cluster.user,
        "runAsGroup": cluster.group,
        "fsGroup": cluster.group,
        "fsGroupChangePolicy": "OnRootMismatch",  # a volume of a million images isn't walked through at each start
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def site_settings(cluster: Cluster) -> Manifest:
    """What the site says of every pod: where it may run, and how its images are pulled; only what is set."""
    settings = {
        "nodeSelector": dict(cluster.node_selector),
        "tolerations": [item.model_dump(by_alias=True, exclude_none=True) for item in cluster.tolerations],
        "imagePullSecrets": [{"name": name} for name in cluster.pull_secrets],
        "priorityClassName": cluster.priority_class,
    }
    return {name: value for name, value in settings.items() if value}
