"""Find the node that uses the claim, and count the free GPUs of each node.

The number of free GPUs may explain why a pod waits for a long time. Only a user with the right to read nodes gets this
number.
"""

from __future__ import annotations

from vasevqa.backends.cluster import Cluster
from vasevqa.backends.kubernetes.api import Api
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.errors import ClusterError

MOST = 4  # maximum number of nodes in one sentence


def one_node_only(claim: Manifest) -> bool:
    """Return True if only one node at a time can write to the claim, according to its access modes."""
    return "ReadWriteMany" not in claim["spec"].get("accessModes", [])


def node_of_claim(api: Api, claim: str) -> str | None:
    """Return the node of a running pod that uses the claim; None if no such pod is in the namespace."""
    for pod in api.get(api.path("pods"), fieldSelector="status.phase=Running")["items"]:
        used = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["spec"].get("volumes", [])]
        if claim in used and pod["spec"].get("nodeName"):
            return str(pod["spec"]["nodeName"])
    return None


def free_gpus(api: Api, resource: str, cluster: Cluster) -> str:
    """Return a text with each node's GPUs and how many of them are free: "vase-node 4 (1 free, NVIDIA-H200)".

    If the user has no right to read the pods of all namespaces, the text says how many GPUs this namespace uses. Return
    an empty text if the nodes or the pods can't be read.
    """
    try:
        nodes = api.get("/api/v1/nodes")["items"]
    except ClusterError:
        return ""
    try:
        running = "status.phase!=Succeeded,status.phase!=Failed"
        try:
            pods, everywhere = api.get("/api/v1/pods", fieldSelector=running)["items"], True
        except ClusterError:  # count only the pods of this namespace
            pods, everywhere = api.get(api.path("pods"), fieldSelector=running)["items"], False
    except ClusterError:
        return ""
    said = []
    for node in nodes:
        total = int(node["status"].get("allocatable", {}).get(resource, 0))
        if total:
            used = sum(_asks(pod, resource) for pod in pods if pod["spec"].get("nodeName") == node["metadata"]["name"])
            free = f"{max(0, total - used)} free" if everywhere else f"{used} used in this namespace"
            product = node["metadata"].get("labels", {}).get(cluster.gpu_product_label)
            said.append(f"{node['metadata']['name']} {total} ({free}{f', {product}' if product else ''})")
    if not said:
        return f"no {resource} at all"
    return f"{', '.join(said[:MOST])}{f' and {len(said) - MOST} more' if len(said) > MOST else ''}"


def _asks(pod: Manifest, resource: str) -> int:
    return sum(
        int(container.get("resources", {}).get("requests", {}).get(resource, 0))
        for container in pod["spec"]["containers"]
    )
