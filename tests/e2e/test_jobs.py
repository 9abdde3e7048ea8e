"""Jobs on a real server: every field, folders of a claim, claims for one node, GPUs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.backends.test_stage_job import CASES
from tests.e2e.kit import ClusterKit, cluster_kit, kubectl
from tests.pipeline.kit import wait_for
from vasevqa.backends.kubernetes.stage_job import render_job, render_run


def missing(sent: Any, kept: Any, where: str = "") -> list[str]:
    """Return the parts of `sent` that are missing in `kept`."""
    if isinstance(sent, dict):
        return (
            [line for key, value in sent.items() for line in missing(value, (kept or {}).get(key), f"{where}.{key}")]
            if kept or sent
            else []
        )
    if isinstance(sent, list):
        if len(sent) != len(kept or []):
            return [f"{where}: {sent} became {kept}"]
        return [
            line for number, value in enumerate(sent) for line in missing(value, kept[number], f"{where}[{number}]")
        ]
    return [] if sent == kept else [f"{where}: {sent!r} became {kept!r}"]


@pytest.mark.parametrize("case", CASES)
def test_the_server_keeps_every_field(kit: ClusterKit, case: str) -> None:
    manifest = render_job(*CASES[case])
    manifest["metadata"]["namespace"] = kit.namespace.name
    kept = json.loads(kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", given=[manifest]))
    assert missing(manifest, kept) == []


def test_the_server_keeps_the_configmap(kit: ClusterKit) -> None:
    manifest = render_run("a-run", "name: x\n", Path("/data"), kit.cluster)
    manifest["metadata"]["namespace"] = kit.namespace.name
    assert (
        missing(manifest, json.loads(kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", given=[manifest])))
        == []
    )


def test_a_folder_of_a_claim_is_the_volume(image: str, place: Path) -> None:
    (place / "claimed").mkdir()
    with cluster_kit(place / "claimed", image, claimed=place / "claimed") as kit:
        kit.set_cluster(claim_path="volume")
        kit.run("--to", "first")
        assert len(kit.contents()) == 1


def test_a_claim_for_one_node_holds_all_steps(image: str, place: Path) -> None:
    with cluster_kit(place, image, access="ReadWriteOnce") as kit:
        held = kit.hold("left")
        process = kit.command("run", kit.recipe)
        kit.wait_until_held("left")
        [pod] = kit.pods("-l", "vasevqa/step=left")
        assert "podAffinity" in pod["spec"]["affinity"]
        held.unlink()
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, out + errors
        # Another pod that uses the claim decides the node.
        user = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "viewer", "namespace": kit.namespace.name},
            "spec": {
                "containers": [
                    {
                        "name": "sleep",
                        "image": image,
                        "command": ["sleep", "600"],
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    }
                ],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "vasevqa"}}],
                "terminationGracePeriodSeconds": 0,
            },
        }
        kubectl("apply", "-f", "-", given=[user])
        wait_for(
            lambda: (
                kubectl("get", "pod", "viewer", "-n", kit.namespace.name, "-o", "jsonpath={.status.phase}") == "Running"
            ),
            "the viewer",
        )
        node = kubectl("get", "pod", "viewer", "-n", kit.namespace.name, "-o", "jsonpath={.spec.nodeName}")
        held = kit.hold("first")
        process = kit.command("run", kit.recipe, "--to", "first", "--refresh", "first")
        kit.wait_until_held("first")
        [pod] = kit.pods("-l", "vasevqa/step=first")
        [term] = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        assert term["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": [node]}]
        held.unlink()
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, out + errors


def test_gpus_are_scheduled(kit: ClusterKit) -> None:
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    gpus = max(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in nodes)
    if gpus < 2:
        pytest.skip("no node of this cluster has two GPUs")
    labels = next(
        node["metadata"]["labels"] for node in nodes if int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) >= 2
    )
    wanted = {
        "gpus": 2,
        "gpu_memory": f"{labels['nvidia.com/gpu.memory']}Mi",
        "gpu_product": labels["nvidia.com/gpu.product"],
    }
    kit.write_recipe(first={"resources": wanted})
    held = kit.hold("first")
    process = kit.command("run", kit.recipe, "--to", "first")
    kit.wait_until_held("first")
    [pod] = kit.pods("-l", "vasevqa/step=first")
    seen = kubectl(
        "exec",
        pod["metadata"]["name"],
        "-n",
        kit.namespace.name,
        "--",
        "sh",
        "-c",
        "echo $NVIDIA_VISIBLE_DEVICES $VASEVQA_GPUS; id -u; touch /x || echo read-only",
    )
    devices, *rest = seen.split("\n")[0].split() + seen.split("\n")[1:]
    assert len(devices.split(",")) == 2
    assert rest[:2] == ["2", "1000"]
    assert "read-only" in seen
    held.unlink()
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, out + errors
    assert os.environ.get("HF_TOKEN", "no token") not in json.dumps(pod)
