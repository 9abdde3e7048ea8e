"""Read and check the site's settings in the Cluster file.

The file names the registry, proxies and secrets. For Kubernetes, the file also names the namespace, claim, GPUs,
tolerations and queue.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from vasevqa import __version__
from vasevqa.backends import cluster_names as names
from vasevqa.errors import ConfigError
from vasevqa.text import nearest
from vasevqa.yaml_files import FileKind, Lines, parse, read_text

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
Name = Annotated[str, Field(pattern=NAME, max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
KIND = FileKind("Cluster file", "give --cluster the YAML file with your site's settings")
HINT = "correct it (a value with a colon needs quotes)"
QUIET = ("environment", "proxy", "secrets")  # settings whose values are never shown in a message
# Names in Kubernetes for settings of the Cluster file.
SPELLINGS = {
    "imagePullSecrets": "pull_secrets",
    "imagePullPolicy": "pull_policy",
    "env": "environment",
    "envFrom": "secrets",
    "priorityClassName": "priority_class",
    "runtimeClassName": "runtime_class",
    "serviceAccountName": "service_account",
    "runAsUser": "user",
    "runAsGroup": "group",
    "fsGroup": "group",
    "pvc": "claim",
    "persistentVolumeClaim": "claim",
    "image": "images",
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(_Model):
    """A toleration, as in a pod's spec."""

    key: str | None = Field(None, description="the taint's key; without a key, the operator Exists covers all taints")
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
    """The proxies that every stage uses.

    Each proxy is set in two environment variables: one has an upper-case name, and one has a lower-case name.
    """

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
        """Return the environment variables of the proxies, with upper-case and with lower-case names."""
        named = {"HTTP_PROXY": self.http, "HTTPS_PROXY": self.https, "NO_PROXY": self.no}
        return {spelt: value for name, value in named.items() if value for spelt in (name, name.lower())}


class Cluster(_Model):
    """The settings of the Cluster file.

    Every setting has a default, so docker needs no Cluster file. For Kubernetes, the file needs only the settings that
    differ from their defaults.
    """

    # For docker and Kubernetes.
    registry: str = Field(
        "", description="registry and project before vasevqa/<stage>, such as ghcr.io/my-group; empty: local images"
    )
    tag: str = Field(
        default_factory=lambda: os.environ.get("VASEVQA_IMAGE_TAG", __version__),
        description="tag of every image; unset: this version's",
    )
    images: dict[str, str] = Field(
        default_factory=dict, description="stage -> image, for each image that is not <registry>/vasevqa/<stage>:<tag>"
    )
    environment: dict[Variable, str] = Field(default_factory=dict, description="environment variables of every stage")
    proxy: Proxy = Field(default_factory=Proxy, description="proxies of every stage")
    # For Kubernetes only.
    context: str | None = Field(
        None,
        description="context of the kubeconfig; unset: the current context, or the cluster that the launcher runs in",
    )
    namespace: str | None = Field(None, description="unset: the namespace of the context")
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

    @field_validator("user", "group", mode="before")
    @classmethod
    def _no_octal(cls, given: Any) -> Any:
        if isinstance(given, str) and re.fullmatch(r"0\d+", given):
            plain = given.lstrip("0")
            raise PydanticCustomError("octal", "write {plain} without the leading zero", {"plain": plain})
        return given

    def over(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return `environment` with the Cluster file's proxies and environment variables added.

        A variable in the Cluster file's setting `environment` replaces the same variable in its setting `proxy`.
        Variables in these two settings replace the same variables in the argument `environment`.
        """
        return {**environment, **self.proxy.variables(), **self.environment}

    def image(self, stage: str) -> str:
        """Return the name of the image for a stage; `stage` is the stage's name or 'launcher'."""
        prefix = f"{self.registry.rstrip('/')}/" if self.registry else ""
        return self.images.get(stage, f"{prefix}vasevqa/{stage}:{self.tag}")


def load_cluster(path: Path | None, stages: Collection[str] = ()) -> Cluster:
    """Read the Cluster file at `path`; return the defaults if `path` is None.

    In a setting that expects text, unquoted values such as `4`, `true` and `no` are read as text. If `stages` is given,
    the setting `images` may name only these stages and the launcher.

    Raise ConfigError for an invalid setting. The message names the setting and its line.
    """
    if path is None:
        return Cluster()
    lines = Lines(str(path))
    tree = parse(read_text(path, KIND), lines, aliases=True, as_written=True, hint=HINT)
    cluster = _checked(tree or {}, lines)
    for stage in cluster.images:
        if stages and stage not in (*stages, "launcher"):
            known = nearest(stage, [*stages, "launcher"])
            raise ConfigError(f"{lines.at('images', stage)}: images: there is no stage '{stage}'.{known}")
    return cluster


def parse_cluster(tree: Any, where: str) -> Cluster:
    """Return the settings in the mapping `tree`.

    Raise ConfigError for an invalid setting. The message names the setting, and begins with the text `where`, which
    says where the settings come from.
    """
    return _checked(tree, Lines(where))


def _checked(tree: Any, lines: Lines) -> Cluster:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{lines.where}: the Cluster file must consist of settings in the form `name: value`.")
    for key in tree:
        if key not in Cluster.model_fields:
            raise ConfigError(f"{lines.at(str(key))}: there is no setting '{key}'.{_meant(str(key))}")
    try:
        cluster = Cluster.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part != "[key]"]
        got = "" if path[0] in QUIET else f" (got {first['input']!r})"
        raise ConfigError(f"{lines.at(*path)}: {'.'.join(path)}: {_plain(first)}{got}.") from None
    _check_names(cluster, lines)
    return cluster


def _check_names(cluster: Cluster, lines: Lines) -> None:
    if cluster.claim_path.startswith("/") or ".." in Path(cluster.claim_path).parts:
        raise ConfigError(
            f"{lines.at('claim_path')}: claim_path: '{cluster.claim_path}' is outside the claim; give a folder inside"
            " it."
        )
    names.check_confidential("environment", cluster.environment, lines)
    names.check_confidential("proxy", cluster.proxy.variables(), lines)
    names.check_registry(cluster.registry, lines.at("registry"))
    names.check_tag(cluster.tag, lines.at("tag"))
    for stage, image in cluster.images.items():
        names.check_image(f"images.{stage}", image, lines.at("images", stage))
    names.check_namespace(cluster.namespace, lines.at("namespace"))
    names.check_labels("labels", cluster.labels, lines)
    names.check_labels("node_selector", cluster.node_selector, lines)
    if cluster.gpu_product is not None:
        names.check_label_value("gpu_product", cluster.gpu_product, lines.at("gpu_product"))
    names.check_labels("annotations", cluster.annotations, lines, values=False)


def _meant(key: str) -> str:
    known = list(Cluster.model_fields)
    other = SPELLINGS.get(key) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
    return f" Did you mean '{other}'?" if other in known else nearest(key, known)


def _plain(problem: ErrorDetails) -> str:
    """Explain in plain words why a value is invalid; pydantic's own message may contain a regular expression."""
    message = problem["msg"]
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] == NAME:
        return "Kubernetes allows lower-case letters, digits, '-' and '.' here"
    if problem["type"] == "string_type" and isinstance(problem["input"], Mapping) and "name" in problem["input"]:
        return "Write the name alone, without `name:`"
    return message


def cluster_of(path: Path | None, namespace: str | None, stages: Collection[str] = ()) -> Cluster:
    """Read the Cluster file as load_cluster does. If `namespace` is given, it replaces the namespace in the file."""
    cluster = load_cluster(path, stages)
    names.check_namespace(namespace, "--namespace")
    return cluster.model_copy(update={"namespace": namespace}) if namespace else cluster
