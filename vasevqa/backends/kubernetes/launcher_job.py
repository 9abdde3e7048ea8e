"""Renders the launcher's Job and the pods for moving files, as plain mappings; `stage_job.py` renders stages.

Helm's chart starts the same Job.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from vasevqa.backends.cluster import Cluster
from vasevqa.backends.kubernetes.pod_template import (
    Manifest,
    container_security,
    mounts,
    owned_by,
    pod_security,
    site_settings,
    standard_labels,
    volumes,
)

VOLUME = "/data"  # where the launcher sees the volume, and with it every stage
SETTINGS = "/etc/vasevqa"
LAUNCH_LABEL = "vasevqa/launch"
# How often the Job restarts a launcher that was killed. The new one adopts the running jobs. If its run has failed for
# good, it only reports that again and starts nothing.
RESTARTS = 4
# Small, and with limits, so that a namespace with a quota takes it. Digesting inputs is the launcher's hardest work.
LAUNCHER_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


@dataclass(frozen=True)
class Launch:
    """A recipe that is to run in the cluster.

    Its name depends on recipe, options, images and settings: the same values again give the same launch.
    """

    recipe: str  # its text
    title: str
    cluster: Cluster
    arguments: tuple[str, ...] = ()  # further options of `vasevqa run`

    @property
    def settings(self) -> str:
        """The Cluster file for the launcher.

        It names no context and no namespace, because the launcher runs inside both. It fixes the tag that holds here,
        whatever the launcher's environment says.
        """
        kept = self.cluster.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"context", "namespace"}
        )
        return yaml.safe_dump({**kept, "tag": self.cluster.tag}, sort_keys=True, allow_unicode=True)

    @property
    def name(self) -> str:
        """The name of its ConfigMap and of its Job: vasevqa-<recipe>-<hash>."""
        word = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:30].strip("-") or "run"
        said = json.dumps([self.recipe, self.settings, self.arguments, self.cluster.image("launcher")])
        return f"vasevqa-{word}-{hashlib.sha256(said.encode()).hexdigest()[:10]}"


def named(text: str, title: str) -> str:
    """Return a recipe's text with `name: <title>` added, if it has no name and the name can be added.

    In the cluster each recipe file is called recipe.yaml, and without a name each run would get that name.
    """
    try:
        tree = yaml.safe_load(text)
        added = f"{text.rstrip()}\nname: {json.dumps(title)}\n"
        if isinstance(tree, dict) and "name" not in tree and yaml.safe_load(added) == {**tree, "name": title}:
            return added
    except yaml.YAMLError:  # in braces, or with an end mark: it goes as it is
        pass
    return text


def render_settings(launch: Launch, owner: Manifest | None = None) -> Manifest:
    """Return the ConfigMap that the launcher reads.

    It is immutable, so a restart reads the same settings.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(launch.name, "launch", launch.cluster, owner, {LAUNCH_LABEL: launch.name}),
        "data": {"recipe.yaml": launch.recipe, "cluster.yaml": launch.settings},
        "immutable": True,
    }


def render_launcher(launch: Launch, owner: Manifest) -> Manifest:
    """Return the Job of the launcher.

    The ConfigMap of `render_settings` owns it.
    """
    arguments = ["run", f"{SETTINGS}/recipe.yaml", "--backend", "kubernetes", "--cluster", f"{SETTINGS}/cluster.yaml"]
    arguments += ["--volume", VOLUME, "--inputs-from", VOLUME, "--detach", *launch.arguments]
    environment: list[dict[str, Any]] = [
        {"name": "VASEVQA_OWNER_CONFIGMAP", "value": launch.name},
        {"name": "VASEVQA_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        # The Job's own uid: with it a restarted launcher knows what became of the same launch.
        {"name": "VASEVQA_LAUNCH", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['controller-uid']"}}},
    ]
    container = {**_container(launch.cluster, "launcher", arguments, environment), "resources": LAUNCHER_RESOURCES}
    container["volumeMounts"].append({"name": "settings", "mountPath": SETTINGS, "readOnly": True})
    # A restart in the same pod finds the lease of the one before and takes it over at once.
    spec = _pod(launch.cluster, container, "OnFailure")
    spec |= {"serviceAccountName": launch.cluster.service_account or "vasevqa", "automountServiceAccountToken": True}
    spec["volumes"].append({"name": "settings", "configMap": {"name": launch.name}})
    labels = {LAUNCH_LABEL: launch.name}
    meta = _metadata(launch.name, "launcher", launch.cluster, None, labels)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(launch.name, "launcher", launch.cluster, owner, labels),
        "spec": {
            "backoffLimit": RESTARTS,
            "template": {"metadata": {"labels": meta["labels"], **_annotations(launch.cluster)}, "spec": spec},
        },
    }


def render_pod(
    name: str, component: str, cluster: Cluster, arguments: Sequence[str], command: Sequence[str] = ()
) -> Manifest:
    """Return a bare pod of the launcher's image with the volume and no rights, for moving files and checks."""
    container = {**_container(cluster, component, arguments, []), "resources": LAUNCHER_RESOURCES}
    if command:
        container["command"] = list(command)
    meta = _metadata(name, component, cluster, None, {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**meta, **_annotations(cluster)},
        "spec": _pod(cluster, container, "Never"),
    }


def _metadata(
    name: str, component: str, cluster: Cluster, owner: Manifest | None, labels: Mapping[str, str]
) -> Manifest:
    return {"name": name, "labels": {**standard_labels(cluster, component), **labels}, **owned_by(owner)}


def _annotations(cluster: Cluster) -> Manifest:
    return {"annotations": dict(cluster.annotations)} if cluster.annotations else {}


def _container(cluster: Cluster, name: str, arguments: Sequence[str], environment: Sequence[Manifest]) -> Manifest:
    return {
        "name": name,
        "image": cluster.image("launcher"),
        "imagePullPolicy": cluster.pull_policy,
        "args": list(arguments),
        "env": [{"name": "VASEVQA_VOLUME", "value": VOLUME}, *environment],
        "securityContext": container_security(),
        "volumeMounts": mounts(cluster, VOLUME),
    }


def _pod(cluster: Cluster, container: Manifest, restart: str) -> Manifest:
    return {
        "restartPolicy": restart,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(cluster),
        "containers": [dict(container)],
        "volumes": volumes(cluster),
        **site_settings(cluster),
    }
