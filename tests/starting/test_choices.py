"""`vasevqa models`: the details of each model, and the commands that fetch it."""

from __future__ import annotations

import json
import re

from click.testing import CliRunner

from vasevqa.cli import cli
from vasevqa.models import HUB_ID
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.starting.choices import choices, first_choice


def test_each_model_is_listed_with_all_details() -> None:
    out = CliRunner().invoke(cli, ["models"]).output
    for choice in choices():
        about = out[out.index(choice.id) :].split("\n\n")[0]
        assert (
            f"licence     {choice.licence} (as of {choice.as_of}, {choice.source or 'not checked'}); before you use the"
            f" model, read https://huggingface.co/{choice.id}" in about
        )
        assert "(an estimate)" in about
        assert ("run here    yes" in about) == choice.run_here
        assert f"hf download {choice.id} " in about
        assert "without a hub" in about
        assert ("modelscope download --model" in about) == (choice.modelscope is not None)
    research = next(choice for choice in choices() if "2.5-VL-3B" in choice.id)
    assert "Research" in research.licence


def test_ids_and_inputs_of_the_models_are_valid() -> None:
    inputs = {source.name for step in PIPELINE.steps for source in step.sources().values() if source.recipe}
    for choice in choices():
        assert HUB_ID.fullmatch(choice.id)
        assert choice.input in inputs
        assert re.fullmatch(r"[A-Z][a-z]+ 20\d\d", choice.as_of)
    assert first_choice("model").millions == min(one.millions for one in choices() if one.input == "model")


def test_with_json_each_line_is_a_model() -> None:
    lines = CliRunner().invoke(cli, ["models", "--json"]).output.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [choice.id for choice in choices()]
