"""Check whether a recipe can run in a namespace.

If the user has no right to read the object that a check needs, the result is "not checked" instead of an error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping

from vasevqa.backends.checks import BAD, OK, UNKNOWN, WARNING, Finding, stage_of
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.kubernetes.api import SERVICE_ACCOUNT, ApiError
from vasevqa.backends.kubernetes.launcher_job import render_pod
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.backends.kubernetes.session import Session
from vasevqa.backends.kubernetes.status import IMAGE
from vasevqa.errors import ClusterError
from vasevqa.spec import Resources, quantity_bytes

CODE = ClusterError.exit_code
PULL_SECONDS = 90.0
# (group, resource, verbs): exactly the rights that a launcher needs.
LAUNCHER = (
    ("batch", "jobs", ("create", "get", "list", "watch", "delete")),
    ("", "configmaps", ("create", "get", "list", "watch", "delete")),
    ("", "pods", ("get", "list", "watch")),
    ("", "pods/log", ("get", "list", "watch")),
    ("", "events", ("get", "list", "watch")),
    ("", "persistentvolumeclaims", ("get", "list", "watch")),
)
USER = (
    ("", "pods", ("create", "delete")),
    ("", "pods/exec", ("get", "create")),
)  # further rights of a user without the volume on this machine: upload, download, doctor
CORDON: Manifest = {
    "key": "node.kubernetes.io/unschedulable",
    "effect": "NoSchedule",
}  # a pod that tolerates this taint may run on a cordoned node


def server(access: Session) -> Finding:
    """Return a Finding with the API server's address and version.

    Raise ClusterError if the server does not answer, or if the server refuses the user's login.
    """
    try:
        version = access.get("/version")["gitVersion"]
    except ApiError as refusal:
        if refusal.status == 401:
            raise
        version = "of an unknown version"
    return Finding("cluster", OK, f"Kubernetes {version} at {access.host}, namespace {access.namespace}")


def rights(access: Session, remote: bool) -> Iterator[Finding]:
    """Check the rights that a launcher needs.

    `remote` is True if the volume is not mounted on this machine. A user outside the cluster then needs further rights,
    which `USER` lists. These rights are checked too.
    """
    inside = SERVICE_ACCOUNT.is_dir() and "KUBECONFIG" not in os.environ
    for group, resource, verbs in (*LAUNCHER, *(USER if remote and not inside else ())):
        name, _, sub = resource.partition("/")
        answers = {verb: access.allowed(verb, group, name, sub) for verb in verbs}
        refused = [verb for verb, answer in answers.items() if answer is False]
        if refused:
            who = "the launcher's service account" if inside else "you"
            ask = "the chart's role `-launcher`" if inside else "the chart's role `-user`"
            yield Finding(
                f"rights: {resource}", BAD, f"{who} may not {', '.join(refused)} {resource}; ask for {ask}", CODE
            )
        elif None in answers.values():
            yield Finding(f"rights: {resource}", UNKNOWN, "the cluster does not report permissions")
        else:
            yield Finding(f"rights: {resource}", OK, ", ".join(verbs))


def account(access: Session) -> Finding:
    """Check that the launcher's service account exists."""
    name = access.cluster.service_account or "vasevqa"
    try:
        there = access.find("serviceaccounts", name)
    except ApiError:
        return Finding("service account", UNKNOWN, f"you have no permission to read {name}")
    if there is None:
        return Finding(
            "service account",
            BAD,
            f"there is no {name}; install the chart, or set `service_account` to an existing account",
            CODE,
        )
    return Finding("service account", OK, name)


def claim(access: Session) -> Iterator[Finding]:
    """Check that the claim exists and has a volume, and that its access mode suits the number of nodes."""
    name = access.cluster.claim
    try:
        there = access.find("persistentvolumeclaims", name)
    except ApiError:
        yield Finding("claim", UNKNOWN, f"you have no permission to read {name}")
        return
    if there is None:
        yield Finding(
            "claim",
            BAD,
            f"there is no claim {name}; install the chart, or set `claim` in the Cluster file to an existing claim",
            CODE,
        )
        return
    phase = there["status"].get("phase", "")
    size = str(there["status"].get("capacity", {}).get("storage", "")) or str(
        there["spec"]["resources"]["requests"]["storage"]
    )
    if phase == "Lost":
        yield Finding("claim", BAD, f"the volume of {name} no longer exists; restore it, or create another claim", CODE)
    elif phase == "Pending":
        yield Finding(
            "claim",
            WARNING,
            f"{name} has no volume yet; this is normal if its storage class waits for the first pod, otherwise see"
            f" `kubectl describe pvc {name}`",
        )
    else:
        yield Finding("claim", OK, f"{name}, {size}")
    modes = there["spec"].get("accessModes", [])
    nodes = _nodes(access)
    if "ReadWriteMany" in modes:
        yield Finding("access mode", OK, "ReadWriteMany: steps run on any node")
    elif nodes is None:
        yield Finding(
            "access mode",
            UNKNOWN,
            f"{', '.join(modes)}, and you have no permission to list the nodes; all steps will run on one node",
        )
    elif len(nodes) > 1:
        yield Finding(
            "access mode",
            WARNING,
            f"{', '.join(modes)} with {len(nodes)} nodes: all steps run on one node, which must have the GPUs; use"
            " ReadWriteMany if you can",
        )
    else:
        yield Finding("access mode", OK, f"{', '.join(modes)}, and there is one node")


def gpus(access: Session, steps: Mapping[str, Resources]) -> Iterator[Finding]:
    """For each step, check that at least one node has the GPUs that the step requests."""
    cluster = access.cluster
    asking = {step: resources for step, resources in steps.items() if resources.gpus}
    nodes = _nodes(access) if asking else []
    if nodes is None:
        yield Finding("GPUs", UNKNOWN, f"you have no permission to read nodes; {len(asking)} steps request GPUs")
        return
    for step, resources in asking.items():
        name = resources.gpu_resource or cluster.gpu_resource
        lacking = [(node["metadata"]["name"], _lack(cluster, node, resources)) for node in nodes]
        fit = [node for node, (_, why) in zip(nodes, lacking, strict=True) if not why]
        if any(not _taints(cluster, node) for node in fit):
            yield Finding(f"GPUs: {step}", OK, f"{resources.gpus} x {name}")
        elif fit:
            text = (
                f"{fit[0]['metadata']['name']} is tainted {_spelt(_taints(cluster, fit[0])[0])}, which `tolerations`"
                " doesn't cover"
            )
            yield Finding(
                f"GPUs: {step}",
                WARNING,
                f"{text}; add the toleration, unless the cluster adds it to pods with GPUs"
                " (ExtendedResourceToleration)",
            )
        else:
            nearest = sorted(lacking, key=lambda lack: lack[1].startswith("has 0 "))  # nodes without GPUs come last
            why = "; ".join(f"{node} {why}" for node, why in nearest[:4]) or "there are no nodes"
            text = (
                f"no node has {resources.gpus} GPUs{f' with {resources.gpu_memory}' if resources.gpu_memory else ''}"
                f" for this step: {why}"
            )
            yield Finding(
                f"GPUs: {step}",
                BAD,
                f"{text}; change the step's `resources` or the Cluster file, or ask the cluster's administrator",
                CODE,
            )


def _lack(cluster: Cluster, node: Manifest, resources: Resources) -> str:
    """Return why a node can't run a step; empty if the node can run it.

    A taint that repels only pods without GPUs is ignored.
    """
    labels = node["metadata"].get("labels", {})
    name = resources.gpu_resource or cluster.gpu_resource
    has = int(node["status"].get("allocatable", {}).get(name, 0))
    if has < resources.gpus:
        return f"has {has} {name}"
    memory = labels.get(cluster.gpu_memory_label, "")
    if resources.gpu_memory and (not memory.isdigit() or int(memory) < -(-quantity_bytes(resources.gpu_memory) >> 20)):
        return f"has GPUs with {memory or 'unknown'} MiB ({cluster.gpu_memory_label})"
    product = resources.gpu_product or cluster.gpu_product
    if product and labels.get(cluster.gpu_product_label) != product:
        return f"has {labels.get(cluster.gpu_product_label, 'GPUs without a label')}, not {product}"
    missing = [f"{key}={value}" for key, value in cluster.node_selector.items() if labels.get(key) != value]
    if missing:
        return f"lacks the label {missing[0]}"
    if node.get("spec", {}).get("unschedulable") and not _tolerated(cluster, CORDON):
        return "is cordoned"
    taints = [_spelt(taint) for taint in _taints(cluster, node) if not _of_gpus(taint, name)]
    return f"is tainted {taints[0]}, which `tolerations` doesn't cover" if taints else ""


def _taints(cluster: Cluster, node: Manifest) -> list[Manifest]:
    """Return the node's taints that a stage's pod does not tolerate."""
    taints = node.get("spec", {}).get("taints") or []
    return [
        taint for taint in taints if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerated(cluster, taint)
    ]


def _tolerated(cluster: Cluster, taint: Manifest) -> bool:
    """Return True if a toleration in the Cluster file covers the taint, by the scheduler's rules.

    A toleration without a key covers every key, and a toleration without an effect covers every effect.
    """
    return any(
        item.effect in (None, taint["effect"])
        and (item.key or taint["key"]) == taint["key"]
        and (item.operator == "Exists" or (item.value or "") == (taint.get("value") or ""))
        for item in cluster.tolerations
    )


def _of_gpus(taint: Manifest, resource: str) -> bool:
    """Return True if the taint is meant to repel only pods without GPUs.

    The admission plugin ExtendedResourceToleration gives pods that request `resource` a toleration of such a taint.
    """
    return bool(taint["key"] == resource and taint["effect"] == "NoSchedule")


def _spelt(taint: Manifest) -> str:
    """Return the taint in the notation of `kubectl taint`."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def secrets(access: Session) -> Iterator[Finding]:
    """Check that the Secrets for stages and for image pulls exist and contain the required keys."""
    wanted: dict[str, set[str]] = {name: set() for name in access.cluster.pull_secrets}
    for key in access.cluster.secrets.values():
        wanted.setdefault(key.secret, set()).add(key.key)
    for name, keys in wanted.items():
        try:
            there = access.find("secrets", name)
        except ApiError:
            yield Finding(f"secret {name}", UNKNOWN, "you have no permission to read Secrets")
            continue
        lacking = sorted(keys - set((there or {}).get("data") or {}))
        if there is None:
            yield Finding(
                f"secret {name}",
                BAD,
                f"there is no such Secret; create it with `kubectl create secret generic {name} …`",
                CODE,
            )
        elif lacking:
            yield Finding(f"secret {name}", BAD, f"the Secret has no key {', '.join(lacking)}; add it", CODE)
        else:
            yield Finding(f"secret {name}", OK, ", ".join(sorted(keys)) or "there")


def queue(access: Session) -> Iterator[Finding]:
    """Check that Kueue's local queue exists, if the Cluster file names a queue."""
    name = access.cluster.queue
    if name is None:
        return
    try:
        access.get(f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{access.namespace}/localqueues/{name}")
    except ApiError as refusal:
        if refusal.status == 404:
            yield Finding(
                "queue",
                BAD,
                f"there is no queue {name} in namespace {access.namespace} (or no Kueue); remove `queue`, or name an"
                " existing queue",
                CODE,
            )
        else:
            yield Finding("queue", UNKNOWN, f"you have no permission to read the queue {name}")
        return
    yield Finding("queue", OK, name)


def pulls(access: Session, images: Iterable[str]) -> Iterator[Finding]:
    """Check that each image can be pulled, by starting a small pod with the image.

    All these pods are deleted at the end.
    """
    names: dict[str, str] = {}
    try:
        for number, image in enumerate(dict.fromkeys(images)):
            name = f"vasevqa-pull-{os.urandom(4).hex()}-{number}"
            manifest = _pull_pod(access, name, image)
            try:
                access.create("pods", manifest)
            except ApiError as refusal:
                yield Finding(f"image {image}", UNKNOWN, f"not checked: no test pod can be created ({refusal})")
                continue
            names[image] = name
        end = time.monotonic() + PULL_SECONDS
        left = dict(names)
        while left:
            for image, name in list(left.items()):
                finding = _pulled(image, access.find("pods", name), time.monotonic() > end)
                if finding is not None:
                    del left[image]
                    yield finding
            time.sleep(0.5 if left else 0)
    finally:
        for name in names.values():
            access.delete("pods", name)


def _pull_pod(access: Session, name: str, image: str) -> Manifest:
    manifest = render_pod(name, "doctor", access.cluster, [], ["tini", "--version"])
    [container] = manifest["spec"]["containers"]
    container["image"] = image
    container["volumeMounts"] = [
        mount for mount in container["volumeMounts"] if mount["name"] != "volume"
    ]  # the check needs the image only, not the claim
    manifest["spec"]["volumes"] = [volume for volume in manifest["spec"]["volumes"] if volume["name"] != "volume"]
    container["resources"] = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
    return manifest


def _pulled(image: str, pod: Manifest | None, late: bool) -> Finding | None:
    """Return the finding about the image of `pod`; None while the pull is in progress.

    `late` is True once the time limit has passed.
    """
    statuses = (pod or {}).get("status", {}).get("containerStatuses") or []
    state = (statuses[0].get("state") or {}) if statuses else {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in IMAGE:
        why = " ".join(str(waiting.get("message") or waiting["reason"]).split())[:200]
        make = f"make image STAGE={stage_of(image)} PUSH=1"
        return Finding(
            f"image {image}",
            BAD,
            f"can't be pulled ({why}); build and push it with `{make}`, or check `registry`, `tag` and `pull_secrets`",
            CODE,
        )
    if "running" in state or "terminated" in state:
        return Finding(f"image {image}", OK, "there")
    if late:
        return Finding(f"image {image}", UNKNOWN, f"not pulled within {PULL_SECONDS:.0f} s; the pull may still succeed")
    return None


def _nodes(access: Session) -> list[Manifest] | None:
    try:
        return list(access.get("/api/v1/nodes")["items"])
    except ApiError:
        return None
