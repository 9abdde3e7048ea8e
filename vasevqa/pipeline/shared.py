"""The settings at the top of a recipe. Each setting applies to all steps that have the matching parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vasevqa.dataset.columns import read_columns
from vasevqa.errors import ConfigError
from vasevqa.spec import Stage
from vasevqa.yaml_files import Lines

SHARED = {
    "device": "device of every step: auto, cpu, cuda or cuda:N",
    "name_pattern": "how file names identify vases, for every step that reads names",
    "vase_column": "the heading of the table's column that names the vase",
    "columns": "headings of the table by field, such as `{shape: Object Name}`",
}


@dataclass(frozen=True)
class Shared:
    """The settings at the top of a recipe. `values` maps the name of a step's parameter to the setting.

    `keys` maps the name of a parameter to the recipe's key. The two may differ: the key `vase_column` sets a part of
    the parameter `columns`.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    def of(self, stage: Stage, own: Mapping[str, object], where: str) -> dict[str, object]:
        """Return the shared settings that a step uses. A step's `own` value replaces a shared setting.

        For `columns`, the step's own fields replace only the shared fields of the same name. Error messages about the
        step's own `columns` begin with `where`.
        """
        known = {*stage.params.model_fields, *stage.options.model_fields}
        taken = {name: value for name, value in self.values.items() if name in known and own.get(name) is None}
        if "columns" in known and own.get("columns") is not None:
            shared = self.values.get("columns")
            taken["columns"] = {**(shared if isinstance(shared, dict) else {}), **_columns(own["columns"], where)}
        return taken


def shared_settings(tree: Mapping[str, object], lines: Lines) -> Shared:
    """Return the shared settings of a recipe. Raise ConfigError with the line that is wrong."""
    values = {name: tree[name] for name in ("device", "name_pattern") if tree.get(name) is not None}
    keys = {name: name for name in values}
    columns: dict[str, str] = {}
    if tree.get("columns") is not None:
        columns = _columns(tree["columns"], lines.at("columns"))
        keys["columns"] = "columns"
    heading = tree.get("vase_column")
    if heading is not None:
        if not isinstance(heading, str) or not heading.strip():
            raise ConfigError(
                f"{lines.at('vase_column')}: `vase_column` must be the heading of a column, not {heading!r}."
            )
        if columns.setdefault("vase_id", heading.strip()) != heading.strip():
            raise ConfigError(
                f"{lines.at('vase_column')}: `vase_column` is '{heading}', but `vase_id` in `columns` is"
                f" '{columns['vase_id']}'; keep one of the two."
            )
        keys.setdefault("columns", "vase_column")
    return Shared({**values, **({"columns": columns} if columns else {})}, keys)


def _columns(given: object, where: str) -> dict[str, str]:
    texts = [given] if isinstance(given, str) else given
    try:
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return read_columns(texts)
        if isinstance(given, dict) and all(isinstance(text, str) for pair in given.items() for text in pair):
            return read_columns(given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    raise ConfigError(f"{where}: `columns` must be a mapping from field to heading, such as `{{shape: Object Name}}`.")
