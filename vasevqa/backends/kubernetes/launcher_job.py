"""Build the manifests of the launcher's Job and of pods for short tasks, such as file transfers.

The manifests are plain mappings. The Helm chart starts its launcher with the same manifest. The Jobs of stages are
built in `stage_job.py`.
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

VOLUME = "/data"  # where the launcher and every stage mount the volume
SETTINGS = "/etc/vasevqa"
LAUNCH_LABEL = "vasevqa/launch"
# How often the Job restarts a launcher that was killed. The new launcher adopts the running jobs. If the run has failed
# for good, the new launcher only reports the failure again.
RESTARTS = 4
# The requests are small. The limits are set because a namespace with a quota may refuse pods without limits. The
# launcher needs most of its resources when it computes the digests of inputs.
LAUNCHER_RESOURCES: Manifest = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


@dataclass(frozen=True)
class Launch:
    """A recipe, with the settings and options for its run in the cluster.

    The name of the launch contains a digest of the recipe, the settings, the options and the launcher's image. So the
    same launch always has the same name.
    """

    recipe: str  # the text of the recipe
    title: str
    cluster: Cluster
    arguments: tuple[str, ...] = ()  # further options of `vasevqa run`

    @property
    def settings(self) -> str:
        """The text of the Cluster file for the launcher.

        The file names no context and no namespace, because the launcher already runs in the right cluster and
        namespace. The file names the image tag that is used on this machine, so the launcher's environment can't change
        the tag.
        """
        kept = self.cluster.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"context", "namespace"}
        )
        return yaml.safe_dump({**kept, "tag": self.cluster.tag}, sort_keys=True, allow_unicode=True)

    @property
    def name(self) -> str:
        """The name of the launch's ConfigMap and Job, in the form `vasevqa-<recipe>-<hash>`."""
        word = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:30].strip("-") or "run"
        said = json.dumps([self.recipe, self.settings, self.arguments, self.cluster.image("launcher")])
        return f"vasevqa-{word}-{hashlib.sha256(said.encode()).hexdigest()[:10]}"


def named(text: str, title: str) -> str:
    """Return a recipe's text, with `name: <title>` added if the recipe has no name.

    In the cluster each recipe file is called recipe.yaml. Without the added name, each run would be called `recipe`. If
    the name can't be added, the text is returned unchanged.
    """
    try:
        tree = yaml.safe_load(text)
        added = f"{text.rstrip()}\nname: {json.dumps(title)}\n"
        if isinstance(tree, dict) and "name" not in tree and yaml.safe_load(added) == {**tree, "name": title}:
            return added
    except yaml.YAMLError:  # YAML in braces or with an end mark: return the text unchanged
        pass
    return text


def render_settings(launch: Launch, owner: Manifest | None = None) -> Manifest:
    """Return the ConfigMap with the launcher's settings.

    The ConfigMap is immutable, so a restarted launcher reads the same settings.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(launch.name, "launch", launch.cluster, owner, {LAUNCH_LABEL: launch.name}),
        "data": {"recipe.yaml": launch.recipe, "cluster.yaml": launch.settings},
        "immutable": True,
    }


def render_launcher(launch: Launch, owner: Manifest) -> Manifest:
    """Return the manifest of the launcher's Job.

    `owner` holds the name and UID of the ConfigMap from `render_settings`. This ConfigMap owns the Job.
    """
    arguments = ["run", f"{SETTINGS}/recipe.yaml", "--backend", "kubernetes", "--cluster", f"{SETTINGS}/cluster.yaml"]
    arguments += ["--volume", VOLUME, "--inputs-from", VOLUME, "--detach", *launch.arguments]
    environment: list[dict[str, Any]] = [
        {"name": "VASEVQA_OWNER_CONFIGMAP", "value": launch.name},
        {"name": "VASEVQA_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        # The Job's uid names the launch. With the uid, a restarted launcher finds out how the launch ended before.
        {"name": "VASEVQA_LAUNCH", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['controller-uid']"}}},
    ]
    container = {**_container(launch.cluster, "launcher", arguments, environment), "resources": LAUNCHER_RESOURCES}
    container["volumeMounts"].append({"name": "settings", "mountPath": SETTINGS, "readOnly": True})
    # A launcher that restarts in the same pod takes over the lease of the previous launcher at once.
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
    name: str,
    component: str,
    cluster: Cluster,
    arguments: Sequence[str],
    command: Sequence[str] = (),
    *,
    image: str = "launcher",
    resources: Manifest = LAUNCHER_RESOURCES,
) -> Manifest:
    """Return the manifest of a pod that mounts the volume and has no rights in the cluster.

    File transfers, checks and reviews use such pods. `image` is the name of a stage or 'launcher'. The pod runs the
    image of this stage or of the launcher.
    """
    container = {**_container(cluster, component, arguments, []), "resources": resources}
    container["image"] = cluster.image(image)
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
