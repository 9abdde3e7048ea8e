"""Generate the chart's README and the schema of the chart's values.

The chart's values hold a recipe and the settings of a cluster. Their schema is therefore generated from the schemas of
`Cluster` and of recipes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from vasevqa.backends.cluster import Cluster
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import recipe_schema

CHART = Path(__file__).parent.parent / "helm/vasevqa"
VALUES, SCHEMA, README = CHART / "values.yaml", CHART / "values.schema.json", CHART / "README.md"

# Value of the chart -> setting of the Cluster file.
SETTINGS = {
    "registry": "registry",
    "tag": "tag",
    "images": "images",
    "environment": "environment",
    "volume.existingClaim": "claim",
    "volume.path": "claim_path",
    "pullPolicy": "pull_policy",
    "pullSecrets": "pull_secrets",
    "secrets": "secrets",
    "gpu.resource": "gpu_resource",
    "gpu.product": "gpu_product",
    "gpu.memoryLabel": "gpu_memory_label",
    "gpu.productLabel": "gpu_product_label",
    "nodeSelector": "node_selector",
    "tolerations": "tolerations",
    "priorityClass": "priority_class",
    "runtimeClass": "runtime_class",
    "queue": "queue",
    "labels": "labels",
    "annotations": "annotations",
    "user": "user",
    "group": "group",
    "serviceAccount.name": "service_account",
}
_TEXT: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_QUANTITIES: dict[str, Any] = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
_QUANTITY: dict[str, Any] = {
    "type": ["string", "integer"],
    "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
}
# The values that belong to the chart alone.
_OWN: dict[str, dict[str, Any]] = {
    "set": {"type": "array", "items": {"type": "string", "pattern": "^[a-z-]+\\.[^=]+="}},
    "parallel": {"type": "integer", "minimum": 1},
    "volume.storageClass": {"type": ["string", "null"]},
    "volume.size": _QUANTITY,
    "volume.accessMode": {"enum": ["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]},
    "serviceAccount.create": _FLAG,
    # The release and the launcher's ConfigMap would show a password in a proxy's URL. Put such a URL into a Secret, and
    # name the Secret under `secrets`.
    **{f"proxy.{name}": {"type": ["string", "null"], "pattern": "^[^@]*$"} for name in ("http", "https", "exclude")},
    "rbac.create": _FLAG,
    "rbac.nodes": _FLAG,
    "rbac.users": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["kind", "name"],
            "additionalProperties": False,
            "properties": {
                "kind": {"enum": ["User", "Group", "ServiceAccount"]},
                "name": _TEXT,
                "namespace": _TEXT,
                "apiGroup": _TEXT,
            },
        },
    },
    "tensorboard.enabled": _FLAG,
    "tensorboard.stage": {"enum": sorted({step.stage.name for step in PIPELINE.steps})},
    "tensorboard.resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"requests": _QUANTITIES, "limits": _QUANTITIES},
    },
    "nameOverride": {"type": "string", "maxLength": 40},
    "fullnameOverride": {"type": "string", "maxLength": 40},
}


def schema() -> str:
    """Return the text of values.schema.json. The schema checks every value, including the parameters of each step."""
    recipe, cluster = recipe_schema(PIPELINE), Cluster.model_json_schema(by_alias=True)
    texts = comments()
    properties: dict[str, Any] = {}
    recipe_object = _sets_are_texts({key: recipe[key] for key in ("type", "additionalProperties", "properties")})
    flat: dict[str, dict[str, Any]] = {
        "recipe": {"if": {"type": ["string", "null"]}, "else": recipe_object},
        "steps": {"type": "array", "items": {"enum": list(PIPELINE.names)}},
        **{value: _empty_too(cluster["properties"][setting]) for value, setting in SETTINGS.items()},
        **_OWN,
    }
    for path, found in flat.items():
        *groups, name = path.split(".")
        at = properties
        for group in groups:
            at = at.setdefault(group, {"type": "object", "additionalProperties": False, "properties": {}})["properties"]
        at[name] = {
            **{key: value for key, value in found.items() if key not in ("title", "default")},
            "description": texts.get(path) or found.get("description", ""),
        }
    properties["global"] = {
        "type": "object",
        "description": "Helm sets this for charts inside a chart.",
    }
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart vasevqa",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": {**cluster["$defs"], **_sets_are_texts(recipe.get("$defs", {}))},
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _empty_too(found: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting, changed so that it also allows the empty text.

    The chart leaves out settings that are empty.
    """
    if "pattern" in found:
        return {**found, "pattern": f"^$|{found['pattern']}"}
    if "anyOf" in found:
        return {**found, "anyOf": [*found["anyOf"], {"const": ""}]}
    return found


def _sets_are_texts(tree: Any) -> Any:
    """Return the schema `tree`, changed so that it also allows text in place of each number.

    `helm --set` passes a fraction as text. The launcher converts the text to a number.
    """
    if isinstance(tree, list):
        return [_sets_are_texts(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    changed = {key: _sets_are_texts(value) for key, value in tree.items()}
    if tree.get("type") == "number":
        changed["type"] = ["number", "string"]
    return changed


def comments() -> dict[str, str]:
    """Return a mapping from each value to the comment above the value in values.yaml.

    A value without a comment gets the comment of the value before it.
    """
    found: dict[str, str] = {}
    said: list[str] = []
    last, groups = "", []
    for line in VALUES.read_text(encoding="utf-8").splitlines():
        comment, key = re.match(r"\s*# (.*)", line), re.match(r"( *)([A-Za-z]+):(.*)", line)
        if comment:
            said.append(comment[1])
        elif key:
            groups = [*groups[: len(key[1]) // 2], key[2]]
            last = " ".join(said) or ("" if not key[3].strip() else last)
            found[".".join(groups)] = last
            said = []
    return found


def readme() -> str:
    """Return README.md of the chart, with a table of the chart's values."""
    values, texts = yaml.safe_load(VALUES.read_text(encoding="utf-8")), comments()
    rows = ["| value | default | meaning |", "|---|---|---|"]

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict) and value and path != "tensorboard.resources":
            for name, inner in value.items():
                add(f"{path}.{name}", inner)
        else:
            rows.append(f"| `{path}` | `{json.dumps(value)}` | {texts[path].replace('|', chr(92) + '|')} |")

    for name, value in values.items():
        add(name, value)
    return (CHART / "README.md.in").read_text(encoding="utf-8").replace("{{values}}", "\n".join(rows))
