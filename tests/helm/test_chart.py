"""The rendered chart: the effect of values, refused values, and the rules for every pod."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scripts import chart
from vasevqa import __version__
from vasevqa.backends.cluster import Cluster, parse_cluster
from vasevqa.backends.kubernetes.checks import LAUNCHER, USER

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "vasevqa/recipes/demo.yaml"
EVERYTHING = (
    "--set",
    "tensorboard.enabled=true,rbac.nodes=true",
    "--set-json",
    'rbac.users=[{"kind":"User","name":"ada","apiGroup":"rbac.authorization.k8s.io"}]',
)

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


def helm(*words: str | Path, binary: str = "helm") -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary, *map(str, words)], capture_output=True, text=True, cwd=ROOT)


def rendered(*words: str | Path, binary: str = "helm") -> list[dict[str, Any]]:
    done = helm("template", "it", chart.CHART, "--namespace", "here", *words, binary=binary)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(kind: str, name: str, *words: str | Path) -> dict[str, Any]:
    [found] = [
        document
        for document in rendered(*words)
        if document["kind"] == kind and document["metadata"]["name"].startswith(name)
    ]
    return found


def pod_specs(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {document["metadata"]["name"]: document["spec"] for document in documents if document["kind"] == "Pod"}
    return found | {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in documents
        if document["kind"] in ("Job", "Deployment")
    }


def assert_restricted(name: str, spec: dict[str, Any]) -> None:
    """Assert the requirements of Pod Security's profile "restricted"."""
    assert spec["securityContext"]["runAsNonRoot"] is True, name
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
    assert {key for volume in spec["volumes"] for key in volume if key != "name"} <= {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "secret",
    }, name
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["cpu"], name  # a namespace with a quota accepts the pod
        assert container["resources"]["limits"]["memory"], name


def test_chart_and_package_have_one_version() -> None:
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == __version__


def test_every_setting_of_a_cluster_file_has_a_value() -> None:
    assert {*chart.SETTINGS.values(), "proxy"} == set(Cluster.model_fields) - {"context", "namespace"}


def test_values_reach_the_cluster_file() -> None:
    values = {
        "registry": "r.example/p",
        "tag": "t",
        "images": {"sft": "other/sft:2"},
        "environment": {"A": "b"},
        "proxy": {"http": "http://p", "exclude": ".here"},
        "volume": {"existingClaim": "mine", "path": "a/b"},
        "pullPolicy": "Always",
        "pullSecrets": ["pull"],
        "secrets": {"HF_TOKEN": {"secret": "hub", "key": "token"}},
        "gpu": {"resource": "x.com/gpu", "product": "H200", "memoryLabel": "m", "productLabel": "p"},
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 3}],
        "priorityClass": "low",
        "runtimeClass": "nvidia",
        "queue": "q",
        "labels": {"team": "vases"},
        "annotations": {"note": "x"},
        "user": 2000,
        "group": 3000,
        "serviceAccount": {"create": False, "name": "theirs"},
    }
    words = [word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]
    settings = parse_cluster(
        yaml.safe_load(one("ConfigMap", "it-vasevqa", *words)["data"]["cluster.yaml"]), "the chart"
    )
    assert settings == parse_cluster(
        {
            **{
                name: values[name]
                for name in (
                    "registry",
                    "tag",
                    "images",
                    "environment",
                    "secrets",
                    "tolerations",
                    "queue",
                    "labels",
                    "annotations",
                    "user",
                    "group",
                )
            },
            "proxy": {"http": "http://p", "no": ".here"},
            "claim": "mine",
            "claim_path": "a/b",
            "pull_policy": "Always",
            "pull_secrets": ["pull"],
            "gpu_resource": "x.com/gpu",
            "gpu_product": "H200",
            "gpu_memory_label": "m",
            "gpu_product_label": "p",
            "node_selector": {"pool": "gpu"},
            "priority_class": "low",
            "runtime_class": "nvidia",
            "service_account": "theirs",
        },
        "here",
    )
    assert not {"ServiceAccount", "PersistentVolumeClaim"} & {document["kind"] for document in rendered(*words)}


def test_a_recipe_is_a_text_or_a_mapping() -> None:
    as_text = one("ConfigMap", "it-vasevqa", "--set-file", f"recipe={DEMO}")["data"]["recipe.yaml"]
    assert yaml.safe_load(as_text) == yaml.safe_load(DEMO.read_text())
    as_mapping = one("ConfigMap", "it-vasevqa", "--set-json", f"recipe={json.dumps(yaml.safe_load(DEMO.read_text()))}")[
        "data"
    ]["recipe.yaml"]
    assert yaml.safe_load(as_mapping) == yaml.safe_load(DEMO.read_text())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("gpu.prodct=A", "prodct"),
        ("volume.accessMode=RWX", "ReadWriteMany"),
        ("steps={nonsense}", "clip-filter"),
        ("recipe.steps.sft.learning_rat=1", "learning_rat"),
        ("recipe.stepps.sft=1", "stepps"),
        ("tolerations[0].kee=x", "kee"),
        ("tolerations[0].operator=Sometimes", "operator"),
        ("pullPolicy=Sometimes", "pullPolicy"),
        ("secrets.HF_TOKEN.secret=a", "key"),
        ("user=0", "user"),
        ("parallel=0", "parallel"),
        ("volume.size=much", "size"),
        ("set={learning_rate}", "set"),
        ("proxy.https=http://me:mine@proxy:3128", "proxy"),
        ("nonsense=1", "nonsense"),
        ("serviceAccount.create=false", "serviceAccount.name"),
    ],
)
def test_the_error_about_a_wrong_value_names_the_value(words: str, says: str) -> None:
    done = helm("template", "it", chart.CHART, "--set", words)
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize("binary", ["helm", "helm3"])
def test_both_versions_of_helm_lint_the_chart_and_render_the_same_objects(binary: str) -> None:
    if shutil.which(binary) is None:
        assert binary != "helm"
        return  # one version of Helm is enough if there is no other
    words = ("--set-file", f"recipe={DEMO}", *EVERYTHING)
    done = helm("lint", "--strict", chart.CHART, *words, binary=binary)
    assert done.returncode == 0, done.stdout
    assert rendered(*words, binary=binary) == rendered(*words)


def test_rendered_objects_satisfy_the_newest_schemas_and_the_restricted_profile() -> None:
    documents = rendered(
        "--set-file", f"recipe={DEMO}", *EVERYTHING, "--set-json", 'tolerations=[{"operator":"Exists"}]'
    )
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    specs = pod_specs(documents)
    assert len(specs) == 3  # launch, TensorBoard, doctor
    for name, spec in specs.items():
        assert_restricted(name, spec)
        assert spec["tolerations"] == [{"operator": "Exists"}]
    for document in documents:
        assert "helm.sh/chart" not in yaml.safe_dump(document)
    [board] = [spec for name, spec in specs.items() if "tensorboard" in name]
    assert board["automountServiceAccountToken"] is False
    assert board["containers"][0]["volumeMounts"][0]["readOnly"] is True


def test_the_name_of_the_launch_depends_on_its_settings() -> None:
    def name(*words: str) -> str:
        return str(one("Job", "it-vasevqa-launch", "--set-file", f"recipe={DEMO}", *words)["metadata"]["name"])

    assert name() == name()
    assert name() == name("--set", "tensorboard.enabled=true,volume.size=1Ti")
    others = {
        name(),
        name("--set", "set={sft.lora_rank=4}"),
        name("--set", "steps={sft}"),
        name("--set", "tag=x"),
        name("--set", "queue=q"),
    }
    assert len(others) == 5
    assert not [document for document in rendered() if document["kind"] == "Job"]


def test_selected_steps_and_changes_reach_the_launcher() -> None:
    job = one(
        "Job",
        "it-vasevqa-launch",
        "--set-file",
        f"recipe={DEMO}",
        "--set",
        "steps={clip-filter,select-views},set={clip-filter.threshold=0.3}",
    )
    words = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [words[at + 1] for at, word in enumerate(words) if word == "--only"] == ["clip-filter", "select-views"]
    assert words[words.index("--set") + 1] == "clip-filter.threshold=0.3"


def test_the_roles_contain_exactly_the_rights_that_are_used() -> None:
    def rules(role: dict[str, Any]) -> set[tuple[str, str, str]]:
        return {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    launcher = {(group, resource, verb) for group, resource, verbs in LAUNCHER for verb in verbs}
    assert rules(one("Role", "it-vasevqa-launcher")) == launcher
    assert rules(one("Role", "it-vasevqa-user")) == launcher | {
        (group, resource, verb) for group, resource, verbs in USER for verb in verbs
    }
    # the tests of the launcher use this Role
    assert rules(yaml.safe_load((ROOT / "tests/e2e/role.yaml").read_text())) == launcher
    assert {
        document["kind"]
        for document in rendered("--set", "rbac.create=false,serviceAccount.create=false,serviceAccount.name=x")
    } == {
        "ConfigMap",
        "PersistentVolumeClaim",
        "Pod",
    }


def test_the_claim_stays_after_uninstall() -> None:
    claim = one("PersistentVolumeClaim", "it-vasevqa")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "storageClassName" not in claim["spec"]
    assert one("PersistentVolumeClaim", "it-vasevqa", "--set", "volume.storageClass=")["spec"]["storageClassName"] == ""


def test_the_notes_name_the_next_commands() -> None:
    out = helm("install", "it", chart.CHART, "--dry-run=client", "--namespace", "here").stdout
    assert "vasevqa upload photos -n here" in out
    out = helm(
        "install", "it", chart.CHART, "--dry-run=client", "--namespace", "here", "--set-file", f"recipe={DEMO}"
    ).stdout
    assert "vasevqa attach -n here" in out
