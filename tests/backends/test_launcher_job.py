"""The launcher's Job and the pods for transfers, as plain data."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.helm.test_chart import assert_restricted
from vasevqa.backends.cluster import Cluster, parse_cluster
from vasevqa.backends.kubernetes.launcher_job import (
    Launch,
    named,
    render_launcher,
    render_pod,
    render_settings,
)

SETTINGS: dict[str, Any] = {
    "namespace": "here",
    "context": "laptop",
    "claim": "mine",
    "claim_path": "a",
    "tag": "1",
    "pull_secrets": ["pull"],
    "tolerations": [{"operator": "Exists"}],
    "node_selector": {"pool": "gpu"},
    "priority_class": "low",
    "labels": {"team": "vases"},
    "annotations": {"note": "x"},
    "service_account": "theirs",
}
LAUNCH = Launch("name: Vases, old\n", "Vases, old", parse_cluster(SETTINGS, "the test"), ("--parallel", "2"))
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "above", "uid": "uid-1"}


def test_the_name_of_a_launch_depends_on_all_its_settings() -> None:
    assert LAUNCH.name.startswith("vasevqa-vases-old-")
    same = Launch(
        LAUNCH.recipe, LAUNCH.title, parse_cluster({**SETTINGS, "context": "other"}, "the test"), LAUNCH.arguments
    )
    assert same.name == LAUNCH.name
    others = [
        Launch("name: x\n", LAUNCH.title, LAUNCH.cluster, LAUNCH.arguments),
        Launch(LAUNCH.recipe, LAUNCH.title, LAUNCH.cluster),
        Launch(LAUNCH.recipe, LAUNCH.title, parse_cluster({**SETTINGS, "tag": "2"}, "the test"), LAUNCH.arguments),
    ]
    assert len({LAUNCH.name, *(other.name for other in others)}) == 4
    assert Launch("", "ÄÖÜ", Cluster()).name.startswith("vasevqa-run-")
    assert len(Launch("", "x" * 200, Cluster()).name) <= 63


def test_a_recipe_without_a_name_gets_the_name_of_its_file() -> None:
    assert yaml.safe_load(named("inputs: {images: photos}\n# the end", "my vases")) == {
        "inputs": {"images": "photos"},
        "name": "my vases",
    }
    for text in ("name: mine\n", "{inputs: {}}", "inputs: {}\n...\n", "- no recipe\n", "{"):
        assert named(text, "my vases") == text


def test_the_settings_can_be_loaded_in_the_cluster() -> None:
    manifest = render_settings(LAUNCH, OWNER)
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    inside = parse_cluster(yaml.safe_load(manifest["data"]["cluster.yaml"]), "inside")
    assert inside == LAUNCH.cluster.model_copy(update={"namespace": None, "context": None})
    assert manifest["metadata"]["ownerReferences"] == [OWNER]
    assert manifest["immutable"] is True


def test_the_tag_in_the_cluster_equals_the_tag_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASEVQA_IMAGE_TAG", "here")
    launch = Launch("", "x", Cluster())
    monkeypatch.setenv("VASEVQA_IMAGE_TAG", "there")
    assert parse_cluster(yaml.safe_load(launch.settings), "inside").tag == "here"


def test_the_launcher_is_restarted_after_a_crash_and_mounts_the_claim() -> None:
    manifest = render_launcher(LAUNCH, OWNER)
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    spec = manifest["spec"]["template"]["spec"]
    assert_restricted("launcher", spec)
    assert (manifest["spec"]["backoffLimit"], spec["restartPolicy"]) == (4, "OnFailure")
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("theirs", True)
    assert (spec["nodeSelector"], spec["priorityClassName"], spec["imagePullSecrets"]) == (
        {"pool": "gpu"},
        "low",
        [{"name": "pull"}],
    )
    [container] = spec["containers"]
    words = (
        "run /etc/vasevqa/recipe.yaml --backend kubernetes --cluster /etc/vasevqa/cluster.yaml --volume /data"
        " --inputs-from /data --detach --parallel 2"
    )
    assert container["args"] == words.split()
    assert container["image"] == "vasevqa/launcher:1"
    assert {item["name"] for item in container["env"]} == {
        "VASEVQA_VOLUME",
        "VASEVQA_OWNER_CONFIGMAP",
        "VASEVQA_POD_UID",
        "VASEVQA_LAUNCH",
    }
    assert container["volumeMounts"][0] == {"name": "volume", "mountPath": "/data", "subPath": "a"}
    assert manifest["spec"]["template"]["metadata"]["labels"]["team"] == "vases"


def test_a_pod_for_transfers_has_no_rights() -> None:
    manifest = render_pod("vasevqa-move-1", "move", LAUNCH.cluster, [], ["tini", "--", "python"])
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    assert_restricted("move", manifest["spec"])
    assert manifest["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in manifest["spec"]


def test_a_pod_of_a_stage_s_image_has_no_rights_either() -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}
    manifest = render_pod("x", "review", LAUNCH.cluster, [], ["tini"], image="select-views", resources=resources)
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    assert_restricted("review", manifest["spec"])
    [container] = manifest["spec"]["containers"]
    assert (container["image"], container["resources"]) == ("vasevqa/select-views:1", resources)
    assert manifest["spec"]["automountServiceAccountToken"] is False
