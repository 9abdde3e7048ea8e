"""The site's settings (Cluster file).

They name the registry, proxies and secrets, and for Kubernetes the namespace, claim, GPUs, tolerations and queue.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vasevqa import __version__
from vasevqa.errors import ConfigError, invalid_yaml
from vasevqa.text import nearest

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
MAX_BYTES = 1 << 20
# Only at the end of a name: HF_TOKEN_PATH, for example, is no secret.
CONFIDENTIAL = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|_KEY)$", re.IGNORECASE)
QUIET = ("environment", "proxy", "secrets")  # settings whose values are never part of a message


def has_password(name: str, value: str) -> bool:
    """True if the variable's value is a URL that contains a user name or password."""
    return "@" in value if name.upper().endswith("_PROXY") else re.search(r"://[^/?#\s]*@", value) is not None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(_Model):
    """As in a pod's spec."""

    key: str | None = Field(None, description="the taint's key; unset with operator Exists: all taints")
    operator: str = Field("Equal", pattern=r"^(Equal|Exists)$", description="Equal or Exists")
    value: str | None = Field(None, description="the taint's value")
    effect: str | None = Field(
        None, pattern=r"^(NoSchedule|PreferNoSchedule|NoExecute)$", description="unset: every effect"
    )
    toleration_seconds: int | None = Field(
        None, alias="tolerationSeconds", description="how long a NoExecute taint is tolerated"
    )


class SecretKey(_Model):
    """One value in a Secret of the namespace."""

    secret: Name = Field(description="name of the Secret")
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", description="key in it")


class Proxy(_Model):
    """Set in every stage, in both spellings of each variable."""

    http: str | None = Field(None, description="HTTP_PROXY")
    https: str | None = Field(None, description="HTTPS_PROXY")
    no: str | None = Field(None, description="NO_PROXY")

    @model_validator(mode="before")
    @classmethod
    def _no_is_a_word(cls, given: Any) -> Any:
        # YAML 1.1 reads an unquoted `no` as false, also as a key.
        return (
            {"no" if key is False else key: value for key, value in given.items()}
            if isinstance(given, Mapping)
            else given
        )

    def variables(self) -> dict[str, str]:
        """Return the environment variables, in upper and lower case."""
        named = {"HTTP_PROXY": self.http, "HTTPS_PROXY": self.https, "NO_PROXY": self.no}
        return {spelt: value for name, value in named.items() if value for spelt in (name, name.lower())}


class Cluster(_Model):
    """The Cluster file. Everything has a default, so that docker needs no file and Kubernetes only what differs."""

    # For docker and Kubernetes.
    registry: str = Field(
        "", description="registry and project before vasevqa/<stage>, such as ghcr.io/my-group; empty: local images"
    )
    tag: str = Field(
        default_factory=lambda: os.environ.get("VASEVQA_IMAGE_TAG", __version__),
        description="tag of every image; unset: this version's",
    )
    images: dict[str, str] = Field(
        default_factory=dict, description="stage -> image, where it differs from <registry>/vasevqa/<stage>:<tag>"
    )
    environment: dict[Variable, str] = Field(default_factory=dict, description="variables of every stage")
    proxy: Proxy = Field(default_factory=Proxy, description="proxies of every stage")
    # For Kubernetes only.
    context: str | None = Field(
        None,
        description="context of the kubeconfig; unset: the current context, or the cluster that the launcher runs in",
    )
    namespace: str | None = Field(None, description="unset: the context's")
    claim: Name = Field("vasevqa", description="the PersistentVolumeClaim that holds the volume")
    claim_path: str = Field(
        "", description="folder of the claim that is the volume's root; empty: the claim's own root"
    )
    pull_policy: str = Field("IfNotPresent", pattern=r"^(IfNotPresent|Always|Never)$", description="imagePullPolicy")
    pull_secrets: list[Name] = Field(default_factory=list, description="Secrets that hold the registry's credentials")
    secrets: dict[Variable, SecretKey] = Field(
        default_factory=dict,
        description="variables whose values are in Secrets, such as HF_TOKEN, or HTTPS_PROXY with a password in it",
    )
    gpu_resource: str = Field(
        "nvidia.com/gpu",
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="the cluster's resource name of a GPU, or of a MIG slice",
    )
    gpu_product: str | None = Field(
        None, description="GPU model, as in the node's label, for each step that requests GPUs and names no model"
    )
    gpu_memory_label: str = Field("nvidia.com/gpu.memory", description="node label with a GPU's memory in MiB")
    gpu_product_label: str = Field("nvidia.com/gpu.product", description="node label with the GPU's model")
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels that a node must have")
    tolerations: list[Toleration] = Field(default_factory=list, description="taints that stages tolerate")
    priority_class: Name | None = Field(None, description="priorityClassName")
    runtime_class: Name | None = Field(None, description="runtimeClassName, such as nvidia")
    queue: Name | None = Field(None, description="Kueue's local queue")
    labels: dict[str, str] = Field(default_factory=dict, description="further labels of Jobs and pods")
    annotations: dict[str, str] = Field(default_factory=dict, description="further annotations of pods")
    user: int = Field(1000, gt=0, description="uid that stages run as")
    group: int = Field(1000, gt=0, description="gid that stages run as, and fsGroup of the volume")
    service_account: Name | None = Field(
        None, description="service account of the launcher, for `submit`; stages get no token"
    )

    def over(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return `environment`, overridden by the site's proxies and then by the site's variables."""
        return {**environment, **self.proxy.variables(), **self.environment}

    def image(self, stage: str) -> str:
        """Return the image of `stage`, which may also be 'launcher'."""
        prefix = f"{self.registry.rstrip('/')}/" if self.registry else ""
        return self.images.get(stage, f"{prefix}vasevqa/{stage}:{self.tag}")


def load_cluster(path: Path | None) -> Cluster:
    """Read the settings in `path`; defaults if it is None. ConfigError names the wrong key."""
    if path is None:
        return Cluster()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES >> 20} MiB, so it is not a Cluster file.")
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no Cluster file {path}; give --cluster the YAML file with your site's settings."
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not a YAML file; give a Cluster file.") from None
    except yaml.YAMLError as error:
        raise invalid_yaml(path, error) from None
    return parse_cluster(tree or {}, str(path))


def parse_cluster(tree: Any, where: str) -> Cluster:
    """Check the settings in `tree`, which was read from `where`. ConfigError names the wrong key."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: the Cluster file is a mapping from setting to value.")
    for key in tree:
        if key not in Cluster.model_fields:
            raise ConfigError(f"{where}: there is no setting '{key}'.{nearest(str(key), list(Cluster.model_fields))}")
    try:
        cluster = Cluster.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        got = "" if first["loc"][0] in QUIET else f" (got {first['input']!r})"
        raise ConfigError(f"{where}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}{got}.") from None
    if cluster.claim_path.startswith("/") or ".." in Path(cluster.claim_path).parts:
        raise ConfigError(f"{where}: claim_path: '{cluster.claim_path}' is outside the claim; give a folder inside it.")
    # These values are written to the volume and to manifests, where everybody in the namespace can read them.
    for name, value in {**cluster.environment, **cluster.proxy.variables()}.items():
        if CONFIDENTIAL.search(name) or has_password(name, value):
            raise ConfigError(
                f"{where}: the value of {name} is confidential and must not be written here; put it into a Secret, and"
                " name that under `secrets`."
            )
    for stage, image in cluster.images.items():
        if not re.fullmatch(r"[A-Za-z0-9][\w.:/@-]*", image):
            raise ConfigError(f"{where}: images.{stage}: '{image}' is not the name of an image.")
    return cluster


def cluster_of(path: Path | None, namespace: str | None) -> Cluster:
    """Read the Cluster file; `namespace` replaces the file's namespace if it is given."""
    cluster = load_cluster(path)
    return cluster.model_copy(update={"namespace": namespace}) if namespace else cluster
