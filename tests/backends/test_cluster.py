"""The site's settings: defaults, names of images, and mistakes, which are reported before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vasevqa import __version__
from vasevqa.backends.cluster import Cluster, load_cluster, parse_cluster
from vasevqa.errors import ConfigError
from vasevqa.pipeline.catalog import PIPELINE


def test_without_a_cluster_file_images_are_local_and_have_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VASEVQA_IMAGE_TAG", raising=False)
    assert load_cluster(None).image("clip-filter") == f"vasevqa/clip-filter:{__version__}"
    monkeypatch.setenv("VASEVQA_IMAGE_TAG", "0.1.0-abc")
    assert load_cluster(None).image("sft") == "vasevqa/sft:0.1.0-abc"


def test_registry_and_single_images_come_from_the_cluster_file() -> None:
    cluster = parse_cluster(
        {
            "registry": "registry.example.org/me/",
            "tag": "7",
            "images": {"sft": "registry.example.org/me/vasevqa/sft@sha256:12"},
        },
        "c.yaml",
    )
    assert cluster.image("merge") == "registry.example.org/me/vasevqa/merge:7"
    assert cluster.image("sft") == "registry.example.org/me/vasevqa/sft@sha256:12"


def test_each_proxy_variable_is_set_in_upper_and_lower_case() -> None:
    cluster = parse_cluster({"proxy": {"https": "http://proxy:3128", "no": "localhost"}}, "c.yaml")
    assert cluster.proxy.variables() == {
        "HTTPS_PROXY": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
    }


def test_settings_are_the_same_after_writing_and_reading() -> None:
    tree = {
        "claim": "vases",
        "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}],
        "secrets": {"HF_TOKEN": {"secret": "hub", "key": "t"}},
    }
    cluster = parse_cluster(tree, "c.yaml")
    assert parse_cluster(cluster.model_dump(mode="json", exclude_defaults=True, by_alias=True), "again") == cluster


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("namespase: x", "there is no setting 'namespase'. Did you mean 'namespace'?"),
        ("- a\n- b", "must consist of settings in the form `name: value`"),
        ("claim: [", "is not valid YAML"),
        (
            "claim: Not_A_Name",
            "line 1: claim: Kubernetes allows lower-case letters, digits, '-' and '.' here (got 'Not_A_Name')",
        ),
        ("claim_path: ../elsewhere", "is outside the claim"),
        ("claim_path: /absolute", "is outside the claim"),
        ("user: 0", "user: Input should be greater than 0"),
        ("user: someone", "user: Input should be a valid integer"),
        ("images: {sft: 'a; rm -rf /'}", "is not the name of an image"),
        ("secrets: {'BAD NAME': {secret: a, key: b}}", "secrets.BAD NAME"),
        ("tolerations: [{operator: Perhaps}]", "tolerations.0.operator"),
        ("claim: a\nregistry: https://ghcr.io/my-group/", "line 2: registry: 'https://ghcr.io/my-group/' begins with"),
        ("registry: https://ghcr.io/my-group/", "write ghcr.io/my-group."),
        ("registry: GHCR.io/My-Group", "write ghcr.io/my-group"),
        ("registry: ghcr.io my-group", "write host/project"),
        ("tag: 'version 1'", "is not a tag"),
        ("images: {sfd: a/b:1}", "there is no stage 'sfd'. Did you mean 'sft'?"),
        ("images: {sft: 'https://ghcr.io/me/sft:1'}", "without https://"),
        (
            "claim: a\nlabels:\n  team: 'Vase Group (Zürich)'",
            "line 3: labels.team: Kubernetes does not allow the value",
        ),
        ("labels: {team: 'Vase Group (Zürich)'}", "such as 'Vase-Group-Zurich'"),
        ("labels: {'Cost Center': x}", "does not allow the key 'Cost Center'"),
        ("annotations: {'my notes': x}", "does not allow the key 'my notes'"),
        ("node_selector: {gpu: 'NVIDIA A100'}", "such as 'NVIDIA-A100'"),
        ("gpu_product: NVIDIA A100", "such as 'NVIDIA-A100'"),
        ("namespace: My_NS", "is not the name of a namespace"),
        ("queue: Team Queue", "queue: Kubernetes allows lower-case letters"),
        ("claim: a..b", "claim: Kubernetes allows lower-case letters"),
        ("user: 01000", "user: write 1000 without the leading zero"),
        ("pull_secrets: [{name: regcred}]", "Write the name alone"),
        ("imagePullSecrets: [{name: regcred}]", "Did you mean 'pull_secrets'?"),
        ("envFrom: []", "Did you mean 'secrets'?"),
        ("nodeSelector: {}", "Did you mean 'node_selector'?"),
        ("claim: a\nclaim: b", "line 2: 'claim' appears a second time"),
        ("gpu_resource: nvidia.com/gpu: 1", "a value with a colon needs quotes"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
            "holds more than 100,000 values",
        ),
    ],
)
def test_each_mistake_in_a_cluster_file_is_reported_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cluster\.yaml") as caught:
        load_cluster(path, PIPELINE.stages)
    assert says in str(caught.value)
    assert isinstance(parse_cluster({}, "x"), Cluster)


@pytest.mark.parametrize(
    "text",
    [
        "proxy: {https: 'http://me:of_mine@proxy.example:3128'}",
        "proxy: {http: 'me:of_mine@proxy.example:3128'}",
        "proxy: {http: 'http://me:of/of_mine@proxy.example:3128'}",
        "environment: {HF_TOKEN: of_mine}",
        "environment: {http_proxy: 'http://me:of_mine@proxy/'}",
        "environment: {DATABASE: 'postgres://me:of_mine@host/vases'}",
        "environment: {DB_PASS: of_mine}",
        "environment: {GITHUB_PAT: of_mine}",
        "environment: {APIKEY: of_mine}",
        "environment: {OPENAI_API_KEY: of_mine}",
        "environment: {NPM_AUTH: of_mine}",
        "environment: {MODEL: hf_of_mineof_mineof_mine}",
        "annotations: {note: ghp_of_mineof_mineof_mine}",
    ],
)
def test_a_confidential_value_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="put it into a Secret") as caught:
        parse_cluster(yaml.safe_load(text), "cluster.yaml")
    assert "of_mine" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["secrets: {HF_TOKEN: of_mine}", "proxy: 'http://me:of_mine@proxy'", "environment: {HF_TOKEN: [of_mine]}"]
)
def test_an_error_about_a_wrong_setting_does_not_repeat_a_confidential_value(text: str) -> None:
    with pytest.raises(ConfigError, match="should be") as caught:
        parse_cluster(yaml.safe_load(text), "cluster.yaml")
    assert "of_mine" not in str(caught.value)


def test_a_value_that_only_looks_confidential_is_accepted() -> None:
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_TOKEN_PATH": "/data/token",
        "WHO": "me@example.org",
        "PAGE": "https://example.org/a@b",
        "COMPAT": "1",
        "BYPASS": "1",
        "AWS_ACCESS_KEY_ID_FILE": "/data/key",
    }
    assert parse_cluster({"environment": environment}, "cluster.yaml").environment == environment


def test_a_path_that_is_no_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no Cluster file"):
        load_cluster(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder; give a Cluster file"):
        load_cluster(tmp_path)
    (tmp_path / "huge.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="give a Cluster file"):
        load_cluster(tmp_path / "huge.yaml")


def test_values_keep_the_form_in_which_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "environment: {OMP_NUM_THREADS: 4, WANDB_DISABLED: true, EMPTY: '', VERSION: 1.10}\n"
        "labels: {cost-center: 4711}\nannotations: {sidecar.istio.io/inject: false}\n"
        "node_selector: {gpu: true, zone: 3, flag: no}\nproxy: {no: localhost}\n"
        "tolerations: [{key: gpu, value: true, tolerationSeconds: 30}]\nuser: 1001\nqueue:\n"
    )
    cluster = load_cluster(path)
    assert cluster.environment == {"OMP_NUM_THREADS": "4", "WANDB_DISABLED": "true", "EMPTY": "", "VERSION": "1.10"}
    assert cluster.labels == {"cost-center": "4711"}
    assert cluster.annotations == {"sidecar.istio.io/inject": "false"}
    assert cluster.node_selector == {"gpu": "true", "zone": "3", "flag": "no"}
    assert cluster.proxy.no == "localhost"
    assert cluster.tolerations[0].value == "true"
    assert (cluster.tolerations[0].toleration_seconds, cluster.user, cluster.queue) == (30, 1001, None)


@pytest.mark.parametrize(
    "text",
    [
        "registry: me:of_mine@ghcr.io",
        "registry: https://me:of_mine@ghcr.io/group",
        "images: {sft: 'me:of_mine@ghcr.io/group/sft:1'}",
        "registry: ghcr.io/ghp_of_mineof_mineof_mine",
    ],
)
def test_a_password_in_a_registry_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"line 1: .*under `pull_secrets`") as caught:
        load_cluster(path)
    assert "of_mine" not in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        "sft",
        "me/sft:1",
        "127.0.0.1:5000/me/sft:1",
        "[::1]:5000/sft",
        "ghcr.io/me/sft:1@sha256:00ff",
        "a.b-c/d__e/f:T_1",
    ],
)
def test_image_names_that_engines_accept_are_accepted(image: str) -> None:
    assert parse_cluster({"images": {"sft": image}}, "cluster.yaml").image("sft") == image
