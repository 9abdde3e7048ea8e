"""Tests of the project's conventions."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import generated
from vasevqa.cli import COMMANDS
from vasevqa.pipeline.catalog import PIPELINE

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "numpy", "PIL", "swift", "transformers", "sklearn", "matplotlib", "kubernetes", "docker", "rich")
MODULES = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__")


def test_every_stage_has_its_command() -> None:
    assert {name.replace("-", "_") for name in generated.stages()} == set(MODULES)


@pytest.mark.parametrize("module", [f"jobs.{name}" for name in MODULES] + ["vasevqa.cli"])
def test_help_loads_no_heavy_library(module: str) -> None:
    program = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        f"except SystemExit as end: assert not end.code, end.code\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        f"assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


def test_the_recorded_code_of_each_stage_is_up_to_date() -> None:
    assert generated.STAGE_SOURCES.read_text() == generated.stage_sources(), (
        "raise Stage.version if results change, then run `make generate`"
    )


def test_the_table_of_stages_in_the_readme_is_up_to_date() -> None:
    assert generated.README.read_text() == generated.readme()


@pytest.mark.parametrize("stage", generated.stages().values(), ids=list(generated.stages()))
def test_every_parameter_has_a_description(stage: object) -> None:
    for model in (stage.params, stage.options):  # type: ignore[attr-defined]
        for name, info in model.model_fields.items():
            assert info.description, f"{name} has no description"


def test_no_field_is_both_parameter_and_option() -> None:
    for stage in generated.stages().values():
        assert not set(stage.params.model_fields) & set(stage.options.model_fields), stage.name


def test_every_make_target_is_documented() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    documented = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    assert phony == documented


def test_catalog_steps_read_what_their_stages_declare() -> None:
    for step in PIPELINE.steps:
        declared = {given.name for given in step.stage.inputs}
        required = {given.name for given in step.stage.inputs if given.required}
        assert required <= set(step.inputs) <= declared, step.name
        assert importlib.import_module(step.stage.module).STAGE is step.stage


def test_every_command_has_a_module_with_its_name() -> None:
    modules = {path.stem for path in (ROOT / "vasevqa/cli").glob("*.py") if f"def {path.stem}(" in path.read_text()}
    assert modules == set(COMMANDS)
    for name in COMMANDS:
        assert getattr(importlib.import_module(f"vasevqa.cli.{name}"), name).name == name


def test_all_tables_are_written_in_the_same_dialect() -> None:
    """A stage with its own writer could use other quotes and line ends."""
    writers = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "vasevqa").rglob("*.py"))
        if re.search(r"csv\.(?:Dict)?[wW]riter", path.read_text(encoding="utf-8"))
    ]
    assert writers == ["vasevqa/files.py"]
