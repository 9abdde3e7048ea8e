"""Check the names and values in a Cluster file.

Registries and Kubernetes refuse some names. The file must not contain passwords, because all values in the file are
written to the volume.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from vasevqa.confidential import TOKEN, is_confidential
from vasevqa.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vasevqa.yaml_files import Lines

# https://github.com/distribution/reference: host[:port]/path, a tag, a digest
HOST = r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?"
PATH = r"[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*"
TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
REGISTRY = re.compile(rf"{HOST}(/{PATH})*/*")
IMAGE = re.compile(rf"({HOST}/)?{PATH}(/{PATH})*(:{TAG})?(@[a-z0-9]+([.+_-][a-z0-9]+)*:[0-9a-fA-F]+)?")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check_confidential(setting: str, variables: Mapping[str, str], lines: Lines) -> None:
    """Raise ConfigError for a variable that looks like a password, token or key.

    The variables are written to the volume and to Kubernetes manifests, and everybody in the namespace can read both.
    """
    for name, value in variables.items():
        if is_confidential(name, value):
            raise ConfigError(
                f"{lines.at(setting, name)}: the value of {name} is confidential and must not be written here; put it"
                " into a Secret, and name the Secret under `secrets`."
            )


def check_registry(registry: str, where: str) -> None:
    """Raise ConfigError unless `registry` is empty or has the form HOST or HOST/PATH.

    A registry with a scheme such as https://, or with a password, is also an error.
    """
    _check_no_password("registry", registry, where)
    scheme, slashes, rest = registry.partition("://")
    if slashes:
        raise ConfigError(
            f"{where}: registry: '{registry}' begins with {scheme}://, which is not part of an image's name; write"
            f" {rest.rstrip('/')}."
        )
    if registry and not REGISTRY.fullmatch(registry):
        lower = registry.lower()
        write = f"write {lower}" if REGISTRY.fullmatch(lower) else "write host/project, such as ghcr.io/my-group"
        raise ConfigError(f"{where}: registry: '{registry}' is not the name of a registry; {write}.")


def check_tag(tag: str, where: str) -> None:
    """Raise ConfigError unless `tag` is a valid tag of an image."""
    if not re.fullmatch(TAG, tag):
        raise ConfigError(
            f"{where}: tag: '{tag}' is not a tag; write at most 128 letters, digits, '_', '.' and '-', and begin with a"
            " letter or digit."
        )


def check_image(setting: str, image: str, where: str) -> None:
    """Raise ConfigError unless `image` is a valid name of an image."""
    _check_no_password(setting, image, where)
    if not IMAGE.fullmatch(image):
        raise ConfigError(
            f"{where}: {setting}: '{image}' is not the name of an image; write host/project/name:tag, without https://."
        )


def _check_no_password(setting: str, value: str, where: str) -> None:
    before, at, _ = value.partition("@")
    if (at and ("/" not in before or "://" in before)) or TOKEN.search(value):
        raise ConfigError(
            f"{where}: {setting} contains a user name or password; remove them, and name a Secret with the registry's"
            " credentials under `pull_secrets`."
        )


def check_namespace(namespace: str | None, where: str) -> None:
    """Raise ConfigError unless `namespace` is None or a valid name of a namespace."""
    if namespace is not None and not NAMESPACE.fullmatch(namespace):
        raise ConfigError(
            f"{where}: namespace: '{namespace}' is not the name of a namespace; write at most 63 lower-case letters,"
            " digits and '-'."
        )


def check_labels(setting: str, given: Mapping[str, str], lines: Lines, values: bool = True) -> None:
    """Raise ConfigError for a key that Kubernetes does not allow, or for a value that looks like a token.

    If `values` is True, also raise ConfigError for a value that Kubernetes does not allow in a label.
    """
    for key, value in given.items():
        prefix, slash, name = key.rpartition("/")
        if not LABEL_NAME.fullmatch(name) or (slash and not LABEL_PREFIX.fullmatch(prefix)):
            raise ConfigError(
                f"{lines.at(setting, key)}: {setting}: Kubernetes does not allow the key '{key}'; write letters,"
                f" digits, '-', '_' and '.', such as '{_allowed(name) or 'team'}'."
            )
        if TOKEN.search(value):
            check_confidential(setting, {key: value}, lines)
        if values:
            check_label_value(f"{setting}.{key}", value, lines.at(setting, key))


def check_label_value(setting: str, value: str, where: str) -> None:
    """Raise ConfigError unless `value` is a valid value of a label in Kubernetes."""
    if value and not LABEL_NAME.fullmatch(value):
        raise ConfigError(
            f"{where}: {setting}: Kubernetes does not allow the value '{value}'; write at most 63 letters, digits, '-',"
            f" '_' and '.', such as '{_allowed(value) or 'vases'}'."
        )


def _allowed(text: str) -> str:
    """Return `text` changed so that it is valid in a label; empty if no valid character is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", plain)[:63].strip("-_.")
