"""The keys of artifacts: which values change a key, and which values don't."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import Field, create_model

from scripts import generated
from vasevqa.artifacts import keys
from vasevqa.spec import Params, Stage

STAGES = generated.stages()


def later(stage: Stage, default: Any = 3, **changes: Any) -> Stage:
    """Return the stage with an additional, later parameter."""
    field = (int | None, Field(default, description="came later"))
    params: type[Params] = create_model("Later", __base__=stage.params, came_later=field)  # type: ignore[call-overload]
    return dataclasses.replace(stage, params=params, **changes)


def test_keys_of_default_parameters_match_the_recorded_keys() -> None:
    assert generated.KEYS.read_text() == generated.keys(STAGES, generated.known_keys())
    assert set(keys.FIRST_PARAMETERS) == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_later_parameter_with_its_default_value_is_not_in_the_key(name: str) -> None:
    before, after = STAGES[name], later(STAGES[name])
    assert keys.artifact_key(after, after.params(), {}) == keys.artifact_key(before, before.params(), {})
    other = keys.artifact_key(after, after.params.model_validate({"came_later": 4}), {})
    assert other != keys.artifact_key(before, before.params(), {})
    assert other != keys.artifact_key(after, after.params.model_validate({"came_later": None}), {})


@pytest.mark.parametrize("name", STAGES)
def test_every_original_parameter_is_in_the_key_with_any_value(name: str) -> None:
    stage = STAGES[name]
    assert keys.FIRST_PARAMETERS[name] <= set(stage.params.model_fields)
    assert set(keys.key_parameters(stage, stage.params())) == keys.FIRST_PARAMETERS[name]


def test_parameters_and_inputs_are_in_the_key_and_options_are_not() -> None:
    stage = STAGES["clip-filter"]
    key = keys.artifact_key(stage, stage.params(), {"images": "a"})
    assert keys.artifact_key(stage, stage.params(threshold=0.2), {"images": "a"}) != key
    assert keys.artifact_key(stage, stage.params(), {"images": "b"}) != key
    assert (
        keys.artifact_key(dataclasses.replace(stage, version=stage.version + 1), stage.params(), {"images": "a"}) != key
    )
    assert keys.artifact_key(dataclasses.replace(stage, summary="other words"), stage.params(), {"images": "a"}) == key


def test_a_changed_default_or_key_without_a_raised_version_is_refused() -> None:
    known = generated.known_keys()
    table = {"merge": later(STAGES["merge"])}
    with_it = generated.json.loads(generated.keys(table, known))
    assert with_it["merge"]["key"] == known["merge"]["key"]
    assert with_it["merge"]["defaults"]["came_later"] == 3
    # No key contains the parameter, so an artifact of the old default would be used for the new default.
    with pytest.raises(ValueError, match=r"merge: the default of came_later was 3; increase Stage\.version"):
        generated.keys({"merge": later(STAGES["merge"], default=5)}, with_it)
    generated.keys({"merge": later(STAGES["merge"], default=5, version=2)}, with_it)
    with pytest.raises(ValueError, match="the default of tolerance was"):
        params = create_model("Stricter", __base__=STAGES["merge"].params, tolerance=(float, 1e-9))
        generated.keys({"merge": dataclasses.replace(STAGES["merge"], params=params)}, known)
    with pytest.raises(ValueError, match="merge: the key of its default parameters changed"):
        generated.keys({"merge": dataclasses.replace(STAGES["merge"], name="Merge")}, known)
