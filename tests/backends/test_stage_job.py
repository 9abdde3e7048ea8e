"""The complete Job of a step: the expected manifest, and the schemas of the newest Kubernetes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from vasevqa.backends.base import Task
from vasevqa.backends.cluster import Cluster, SecretKey, Toleration
from vasevqa.backends.kubernetes.stage_job import Placement, artifact_hash, render_job, render_run, volume_id
from vasevqa.errors import ConfigError
from vasevqa.spec import Resources

PLAIN = Cluster(tag="1")
SITE = Cluster(
    registry="ghcr.io/museum",
    tag="1",
    claim="vases",
    claim_path="team/a",
    pull_policy="Always",
    pull_secrets=["registry"],
    secrets={"HF_TOKEN": SecretKey(secret="hub", key="token")},
    environment={"HF_ENDPOINT": "https://mirror.museum"},
    proxy={"https": "http://proxy:3128"},  # type: ignore[arg-type]
    node_selector={"pool": "gpu"},
    tolerations=[
        Toleration(key="gpu", operator="Exists", effect="NoSchedule"),
        Toleration(key="drain", value="x", effect="NoExecute", tolerationSeconds=60),
    ],
    priority_class="low",
    runtime_class="nvidia",
    queue="vases",
    labels={"team": "a", "app.kubernetes.io/name": "mine"},
    annotations={"sidecar.istio.io/inject": "false"},
    user=1234,
    group=2345,
)


def task(**given: Any) -> Task:
    fields: dict[str, Any] = {
        "run": "20261125-120000000-vases-ab12",
        "step": "clip-filter",
        "stage": "clip-filter",
        "key": "0123456789abcdef" * 2,
        "attempt": 2,
        "arguments": ("--input-dir", "/data/artifacts/classify/1", "--threshold=0.15"),
        "resources": Resources(cpus=1.5, memory="4Gi"),
        "volume": Path("/data"),
        "log": Path("/data/runs/20261125-120000000-vases-ab12/logs/clip-filter-2.log"),
    }
    return Task(**{**fields, **given})


GPU = Resources(
    cpus=8,
    memory="64Gi",
    gpus=2,
    gpu_memory="24G",
    gpu_product="NVIDIA-H100",
    ephemeral_storage="20Gi",
    shm="8Gi",
    run_deadline=3600,
)
CASES = {
    "plain": (task(), PLAIN, None),
    "site": (task(resources=GPU, offline=True), SITE, Placement({"name": "vase-run-x", "uid": "1-2-3"})),
    "one node": (task(), PLAIN, Placement(together=True, node="node-7")),
    "mig": (task(resources=Resources(gpus=1, gpu_resource="nvidia.com/mig-1g.10gb")), PLAIN, None),
    "by digest": (task(image="ghcr.io/museum/vasevqa/clip-filter@sha256:" + "0" * 64), SITE, None),
}


def test_the_complete_manifest_of_a_plain_job() -> None:
    assert render_job(task(), PLAIN) == yaml.safe_load(
        textwrap.dedent(f"""
        apiVersion: batch/v1
        kind: Job
        metadata:
          name: vase-clip-filter-0123456789-2
          labels: &labels
            app.kubernetes.io/name: vasevqa
            app.kubernetes.io/component: clip-filter
            app.kubernetes.io/part-of: vasevqa
            app.kubernetes.io/managed-by: vasevqa
            app.kubernetes.io/version: 0.1.0
            vasevqa/volume: {volume_id(PLAIN)}
            vasevqa/run: 20261125-120000000-vases-ab12
            vasevqa/step: clip-filter
            vasevqa/key: 0123456789abcdef0123456789abcdef
            vasevqa/attempt: "2"
            vasevqa/job: vase-clip-filter-0123456789-2
          annotations:
            vasevqa/artifact: {artifact_hash(task(), PLAIN)}
            vasevqa/log: runs/20261125-120000000-vases-ab12/logs/clip-filter-2.log
        spec:
          backoffLimit: 0
          ttlSecondsAfterFinished: 604800
          template:
            metadata:
              labels: *labels
              annotations: {{}}
            spec:
              restartPolicy: Never
              automountServiceAccountToken: false
              enableServiceLinks: false
              terminationGracePeriodSeconds: 60
              securityContext:
                runAsNonRoot: true
                runAsUser: 1000
                runAsGroup: 1000
                fsGroup: 1000
                fsGroupChangePolicy: OnRootMismatch
                seccompProfile: {{type: RuntimeDefault}}
              containers:
                - name: stage
                  image: vasevqa/clip-filter:1
                  imagePullPolicy: IfNotPresent
                  args: [--input-dir, /data/artifacts/classify/1, --threshold=0.15]
                  env:
                    - {{name: HF_HOME, value: /data/.cache/huggingface}}
                    - {{name: HF_HUB_DISABLE_TELEMETRY, value: "1"}}
                    - {{name: HOME, value: /tmp}}
                    - {{name: LOGNAME, value: vasevqa}}
                    - {{name: NVIDIA_VISIBLE_DEVICES, value: void}}
                    - {{name: OMP_NUM_THREADS, value: "2"}}
                    - {{name: OMP_WAIT_POLICY, value: PASSIVE}}
                    - {{name: PYTHONUNBUFFERED, value: "1"}}
                    - {{name: TORCH_HOME, value: /data/.cache/torch}}
                    - {{name: USER, value: vasevqa}}
                    - {{name: VASEVQA_GPUS, value: "0"}}
                    - {{name: VASEVQA_VOLUME, value: /data}}
                  resources:
                    requests: {{cpu: 1500m, memory: 4Gi}}
                    limits: {{memory: 4Gi}}
                  securityContext:
                    allowPrivilegeEscalation: false
                    capabilities: {{drop: [ALL]}}
                    readOnlyRootFilesystem: true
                  volumeMounts:
                    - {{name: volume, mountPath: /data}}
                    - {{name: tmp, mountPath: /tmp}}
                    - {{name: shm, mountPath: /dev/shm}}
              volumes:
                - {{name: volume, persistentVolumeClaim: {{claimName: vasevqa}}}}
                - {{name: tmp, emptyDir: {{}}}}
                - {{name: shm, emptyDir: {{medium: Memory, sizeLimit: 1Gi}}}}
        """)
    )


def test_site_settings_are_in_the_manifest() -> None:
    job = render_job(*CASES["site"])
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "vase-run-x", "uid": "1-2-3"}
    ]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "vases"
    assert job["metadata"]["labels"]["app.kubernetes.io/name"] == "vasevqa"  # a site can't change this label
    assert job["spec"]["activeDeadlineSeconds"] == 86400 + 1800 + 3600
    assert job["spec"]["template"]["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "drain", "operator": "Equal", "value": "x", "effect": "NoExecute", "tolerationSeconds": 60},
    ]
    assert (pod["priorityClassName"], pod["runtimeClassName"], pod["imagePullSecrets"]) == (
        "low",
        "nvidia",
        [{"name": "registry"}],
    )
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]) == (1234, 2345)
    [term] = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["22888"]},  # 24 GB are 22888.2 MiB
        {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H100"]},
    ]
    container = pod["containers"][0]
    assert container["image"] == "ghcr.io/museum/vasevqa/clip-filter:1"
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2", "ephemeral-storage": "20Gi"},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": "2", "ephemeral-storage": "20Gi"},
    }
    assert container["volumeMounts"][0] == {"name": "volume", "mountPath": "/data", "subPath": "team/a"}
    assert pod["volumes"][2] == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    environment = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
    assert "HF_TOKEN" not in environment  # the stage is offline
    assert environment["https_proxy"] == environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert environment["HF_ENDPOINT"] == "https://mirror.museum"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "NVIDIA_VISIBLE_DEVICES" not in environment


def test_gpus_can_have_another_resource_name() -> None:
    limits = render_job(*CASES["mig"])["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "4Gi", "nvidia.com/mig-1g.10gb": "1"}


def test_a_claim_for_one_node_keeps_the_steps_together() -> None:
    affinity = render_job(*CASES["one node"])["spec"]["template"]["spec"]["affinity"]
    assert affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]}
    ]
    assert (
        affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["topologyKey"]
        == "kubernetes.io/hostname"
    )


def test_no_secret_of_the_launcher_is_in_the_manifest() -> None:
    environ = {
        "HF_TOKEN": "hf_secret",
        "MODELSCOPE_API_TOKEN": "ms_secret",
        "https_proxy": "http://here:1",
        "HF_HOME": "/home/me",
        "PATH": "/bin",
    }
    text = yaml.safe_dump(render_job(task(), PLAIN, Placement(environ=environ)))
    assert "secret" not in text
    assert "http://here:1" in text
    assert "/home/me" not in text  # no pod can read this path


@pytest.mark.parametrize("offline", ["0", "1", "true"])
def test_only_a_stage_that_may_reach_a_hub_gets_the_token(offline: str) -> None:
    where = SecretKey(secret="hub", key="token")
    cluster = PLAIN.model_copy(update={"secrets": {"HF_TOKEN": where, "WANDB_API_KEY": where}})
    job = render_job(task(), cluster, Placement(environ={"HF_HUB_OFFLINE": offline}))
    [container] = job["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
    assert environment["WANDB_API_KEY"] == {"secretKeyRef": {"name": "hub", "key": "token", "optional": False}}
    assert ("HF_TOKEN" in environment) == (offline == "0")
    assert environment["VASEVQA_SECRETS"] == ("HF_TOKEN,WANDB_API_KEY" if offline == "0" else "WANDB_API_KEY")


def test_a_password_of_this_machine_is_never_written_into_a_manifest() -> None:
    environ = {"HTTPS_PROXY": "http://me:of_mine@proxy.example:3128"}
    with pytest.raises(ConfigError, match="HTTPS_PROXY of this machine contains a password") as caught:
        render_job(task(), PLAIN, Placement(environ=environ))
    assert "of_mine" not in str(caught.value)
    cluster = PLAIN.model_copy(update={"secrets": {"HTTPS_PROXY": SecretKey(secret="proxy", key="url")}})
    assert "of_mine" not in yaml.safe_dump(render_job(task(), cluster, Placement(environ=environ)))


def test_which_values_identify_equal_jobs() -> None:
    here = artifact_hash(task(), PLAIN)
    assert artifact_hash(task(run="another", attempt=7, resources=GPU, log=Path("/data/x")), PLAIN) == here
    others = [
        artifact_hash(task(key="0123456789" + "f" * 22), PLAIN),
        artifact_hash(task(), PLAIN.model_copy(update={"claim": "other"})),
        artifact_hash(task(), PLAIN.model_copy(update={"claim_path": "folder"})),
        artifact_hash(task(volume=Path("/elsewhere")), PLAIN),
    ]
    assert len({here, *others}) == 5
    assert (
        volume_id(PLAIN.model_copy(update={"claim_path": "a/"}))
        == volume_id(PLAIN.model_copy(update={"claim_path": "a"}))
        != volume_id(PLAIN)
    )


def test_an_input_outside_the_volume_is_refused() -> None:
    with pytest.raises(ConfigError, match="/home/me/photos lies outside the volume /data"):
        render_job(task(reads=(Path("/home/me/photos"),)), PLAIN)


def test_the_configmap_of_a_run() -> None:
    made = render_run(
        "20261125-120000000-vases-ab12", "name: vases\n", Path("/data"), PLAIN, {"name": "release", "uid": "7"}
    )
    assert made["metadata"]["name"] == "vase-run-20261125-120000000-vases-ab12"
    assert made["metadata"]["ownerReferences"][0]["name"] == "release"
    assert made["data"] == {"volume": "/data", "recipe.yaml": "name: vases\n"}
    kubernetes_validate.validate(made, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("case", CASES)
def test_the_newest_kubernetes_knows_every_field(case: str) -> None:
    kubernetes_validate.validate(render_job(*CASES[case]), kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("case", CASES)
def test_names_and_labels_satisfy_the_rules_of_kubernetes(case: str) -> None:
    metadata = render_job(*CASES[case])["metadata"]
    assert len(metadata["name"]) <= 63
    assert all(len(value) <= 63 for value in metadata["labels"].values())
