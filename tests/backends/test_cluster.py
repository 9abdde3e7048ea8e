"""A site's settings: defaults, names of images, and mistakes that are said before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vasevqa import __version__
from vasevqa.backends.cluster import Cluster, load_cluster, parse_cluster
from vasevqa.errors import ConfigError


def test_without_a_file_images_are_local_and_of_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VASEVQA_IMAGE_TAG", raising=False)
    assert load_cluster(None).image("clip-filter") == f"vasevqa/clip-filter:{__version__}"
    monkeypatch.setenv("VASEVQA_IMAGE_TAG", "0.1.0-abc")
    assert load_cluster(None).image("sft") == "vasevqa/sft:0.1.0-abc"


def test_a_registry_and_single_images_are_named() -> None:
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


def test_a_proxy_is_said_in_both_spellings() -> None:
    cluster = parse_cluster({"proxy": {"https": "http://proxy:3128", "no": "localhost"}}, "c.yaml")
    assert cluster.proxy.variables() == {
        "HTTPS_PROXY": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
    }


def test_settings_survive_being_written_down() -> None:
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
        ("- a\n- b", "is a mapping from setting to value"),
        ("claim: [", "is not valid YAML"),
        ("claim: Not_A_Name", "claim: String should match pattern"),
        ("claim_path: ../elsewhere", "is outside the claim"),
        ("claim_path: /absolute", "is outside the claim"),
        ("user: 0", "user: Input should be greater than 0"),
        ("user: someone", "user: Input should be a valid integer"),
        ("images: {sft: 'a; rm -rf /'}", "is not the name of an image"),
        ("secrets: {'BAD NAME': {secret: a, key: b}}", "secrets.BAD NAME"),
        ("tolerations: [{operator: Perhaps}]", "tolerations.0.operator"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cluster\.yaml") as caught:
        load_cluster(path)
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
    ],
)
def test_nothing_confidential_is_taken_or_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="put it into a Secret") as caught:
        parse_cluster(yaml.safe_load(text), "cluster.yaml")
    assert "of_mine" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["secrets: {HF_TOKEN: of_mine}", "proxy: 'http://me:of_mine@proxy'", "environment: {HF_TOKEN: [of_mine]}"]
)
def test_a_mistake_with_something_confidential_doesnt_repeat_it(text: str) -> None:
    with pytest.raises(ConfigError, match="should be") as caught:
        parse_cluster(yaml.safe_load(text), "cluster.yaml")
    assert "of_mine" not in str(caught.value)


def test_what_only_looks_confidential_is_taken() -> None:
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_TOKEN_PATH": "/data/token",
        "WHO": "me@example.org",
        "PAGE": "https://example.org/a@b",
    }
    assert parse_cluster({"environment": environment}, "cluster.yaml").environment == environment


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no Cluster file"):
        load_cluster(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="not a YAML file"):
        load_cluster(tmp_path)
    (tmp_path / "huge.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="is not a Cluster file"):
        load_cluster(tmp_path / "huge.yaml")
