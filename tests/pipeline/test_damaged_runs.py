"""Damaged files of a run cost this run only: runs, status, clean and reports go on, and name the damaged run."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from tests.pipeline.drive import make_backend
from tests.pipeline.kit import Kit
from tests.pipeline.stages.copying import PIPELINE
from tests.pipeline.test_clean import made, recorded
from vasevqa.backends.base import State
from vasevqa.cli.clean import clean
from vasevqa.cli.context import Context
from vasevqa.cli.report import report
from vasevqa.cli.status import status
from vasevqa.pipeline.runs import Run


def no_text(run: Run) -> None:
    run.recipe.write_bytes(b"\xff\xfe\x00steps")


def no_recipe(run: Run) -> None:
    run.recipe.unlink()


def no_plan(run: Run) -> None:
    (run.path / "plan.json").write_text('{"step": ')


def log_is_a_folder(run: Run) -> None:
    run.events.path.unlink()
    run.events.path.mkdir()


def log_is_garbage(run: Run) -> None:
    run.events.path.write_bytes(bytes(range(256)) * 20)


DAMAGES: dict[Callable[[Run], None], str] = {
    no_text: "recipe.yaml is missing, or no text in UTF-8",
    no_recipe: "recipe.yaml is missing, or no text in UTF-8",
    no_plan: "plan.json is damaged",
    log_is_a_folder: "events.jsonl can't be read",
    log_is_garbage: "events.jsonl holds no event",
}


def said(kit: Kit, command: click.Command, *words: str) -> str:
    """Run a command in this process. It must not fail."""
    context = Context(PIPELINE, make_backend)
    result = CliRunner().invoke(command, [*words, "--volume", str(kit.volume.root)], obj=context)
    assert result.exception is None, result.output
    return result.output


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_status_clean_and_report_name_a_damaged_run_and_go_on(kit: Kit, damage: Callable[[Run], None]) -> None:
    bad = recorded(kit, "bad", made(kit, "first", "a" * 32))
    good = recorded(kit, "good", made(kit, "first", "b" * 32))
    orphan = made(kit, "first", "c" * 32)
    damage(bad)
    listed = said(kit, status)
    assert f"{good.name}: finished\n" in listed
    [line] = [line for line in listed.splitlines() if bad.name in line]
    assert line.endswith(f"({DAMAGES[damage]})")
    assert json.loads(said(kit, status, "--json"))["damaged"] == {bad.name: DAMAGES[damage]}
    assert DAMAGES[damage] in said(kit, status, bad.name)
    told = said(kit, clean, "--yes")
    assert f"Run {bad.name} is damaged: {DAMAGES[damage]}." in told
    assert not orphan.path.exists()
    assert {path.name for path in (kit.volume.artifacts / "first").iterdir() if len(path.name) == 32} == {
        "a" * 32,
        "b" * 32,
    }
    assert "Report: " in said(kit, report, good.name)
    assert "Report: " in said(kit, report, bad.name) or damage is log_is_a_folder
    said(kit, clean, bad.name, "--yes")
    assert [run.name for run in kit.runs()] == [good.name]
    assert len(kit.volume.complete("first")) == 1


def test_a_run_starts_and_ends_beside_damaged_runs_and_jobs(kit: Kit) -> None:
    for damage in DAMAGES:
        damage(recorded(kit, damage.__name__, made(kit, "left", damage.__name__.ljust(32, "0"))))
    [first] = kit.plan(selection=None).steps[:1]
    job = kit.volume.root / ".jobs" / f"vase-first-{first.artifact.key[:10]}-1"
    job.mkdir(parents=True)
    (job / "spec.json").write_text("{")
    assert kit.backend.state(job.name) is State.GONE
    assert kit.backend.owner(job.name) is None
    kit.run("--to", "first")
    [run] = [run for run in kit.runs() if run.recipe.exists() and "words" in run.name]
    assert run.state == "finished"
    assert first.artifact.complete
    assert kit.attempts() == {"first": 1}


def test_events_without_their_fields_are_tolerated(kit: Kit) -> None:
    run = recorded(kit, "odd", made(kit, "first", "a" * 32))
    odd = ["run-started", "step-started", "step-adopted", "attempt-failed", "step-refreshed", "run-image", "step-done"]
    with run.events.path.open("a") as stream:
        for kind in odd:
            stream.write(json.dumps({"event": kind, "step": "first", "key": "a" * 32}) + "\n")
    assert "first" in said(kit, status)
    said(kit, clean)
