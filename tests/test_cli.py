"""The `vasevqa` command on a command line."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.pipeline.kit import ROOT, STEPS, Kit, wait_for
from vasevqa.artifacts.lease import process_start
from vasevqa.faults import FaultPoint


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """A small recipe, its inputs and an empty volume."""
    made = Kit(tmp_path / "kit")
    yield made
    made.close()


def fails(kit: Kit, *words: str | Path, code: int = 2) -> str:
    """Run a command that fails, and return its one sentence."""
    result = kit.call(*words, check=code)
    errors = result.stderr.splitlines()
    assert len(errors) == 1, result.stderr
    assert errors[0].startswith("error: ")
    assert errors[0].endswith((".", "?")), errors[0]
    return errors[0]


def test_run_prints_plain_lines_into_a_pipe(kit: Kit) -> None:
    out = kit.run().stdout
    lines = out.splitlines()
    assert re.fullmatch(r"run \d{8}-\d{9}-words-[0-9a-f]{4}", lines[0])
    assert "first: started" in lines
    assert any(re.fullmatch(r"last: done in .*: 4 words", line) for line in lines)
    assert lines[-2:] == ["All 4 steps are done.", f"Report: {kit.runs()[0].report}"]
    assert kit.runs()[0].report.is_file()
    assert "\x1b" not in out


def test_the_same_command_again_does_nothing(kit: Kit) -> None:
    kit.run()
    before = sorted(str(path) for path in kit.volume.root.rglob("*") if ".cache" not in path.parts)
    out = kit.run().stdout
    assert out.startswith("Nothing to do: all 4 steps are up to date.")
    assert str(kit.runs()[0].report) in out
    assert sorted(str(path) for path in kit.volume.root.rglob("*") if ".cache" not in path.parts) == before
    again = json.loads(kit.run("--json").stdout)
    assert (again["event"], again["run"]) == ("nothing-to-do", kit.runs()[0].name)


def test_json_lines_are_the_event_log_and_progress(kit: Kit) -> None:
    events = [json.loads(line) for line in kit.run("--json").stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "run-started"
    assert kinds[-1] == "run-finished"
    assert kinds.count("step-done") == 4
    assert "stage-progress" in kinds
    kept = list(kit.runs()[0].events.read())
    assert [event for event in events if event["event"] in {"run-started", "step-done", "run-finished"}] == [
        event for event in kept if event["event"] in {"run-started", "step-done", "run-finished"}
    ]


def test_a_terminal_shows_progress_bars_and_is_restored(kit: Kit) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.drive", "run", str(kit.recipe)],
        cwd=ROOT,
        env={**os.environ, "VASEVQA_VOLUME": str(kit.volume.root), "TERM": "xterm", "COLUMNS": "100"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    try:
        while block := os.read(ours, 4096):
            text += block
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    assert "last: done" in text.decode()
    assert text.count(b"\x1b[?25l") <= text.count(b"\x1b[?25h")  # the cursor is shown again


def test_plan_shows_the_steps_that_would_run_and_the_reasons(kit: Kit) -> None:
    out = kit.call("plan", kit.recipe).stdout
    assert [line.split()[:2] for line in out.splitlines()] == [[step, "run"] for step in STEPS]
    assert not kit.volume.runs.exists()
    kit.run()
    out = kit.call("plan", kit.recipe, "--set", "left.ending=-other").stdout
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["first", "hit"],
        ["left", "run"],
        ["right", "hit"],
        ["last", "run"],
    ]
    assert "ending is '-other', was '-left'" in out
    rows = [
        json.loads(line) for line in kit.call("plan", kit.recipe, "--json", "--refresh", "first").stdout.splitlines()
    ]
    assert [(row["step"], row["hit"]) for row in rows] == [
        ("first", False),
        ("left", True),
        ("right", True),
        ("last", True),
    ]


def test_steps_can_be_chosen_and_skipped_and_inputs_given(kit: Kit) -> None:
    kit.run("--to", "left")
    assert kit.attempts() == {"first": 1, "left": 1}
    kit.run("--from", "right", "--to", "right")
    assert kit.attempts()["right"] == 1
    other = kit.root / "other words"
    other.mkdir()
    (other / "één.txt").write_text("één")
    kit.run("--only", "first", "--input", f"words={other}")
    assert kit.attempts() == {"first": 2, "left": 1, "right": 1}
    newest = kit.volume.complete("first")[-1]
    assert [path.name for path in newest.path.glob("*.txt")] == ["words-één.txt"]
    kit.run("--input", f"first={other}", "--to", "left")
    assert kit.attempts() == {"first": 2, "left": 2, "right": 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "left.endng=x"], "Did you mean 'ending'"),
        (["--set", "left"], "step.parameter=value"),
        (["--to", "lefft"], "Did you mean 'left'"),
        (["--only", "left"], "first has no finished artifact"),
        (["--input", "words=/no/such/folder"], "/no/such/folder"),
        (["--input", "wrds=."], "Did you mean 'words'"),
    ],
)
def test_a_wrong_name_is_reported_in_one_sentence_before_anything_runs(kit: Kit, words: list[str], says: str) -> None:
    assert says in fails(kit, "run", kit.recipe, *words)
    assert kit.attempts() == {}
    assert not kit.volume.runs.exists()


def test_an_unknown_option_shows_the_usage(kit: Kit) -> None:
    result = kit.call("run", kit.recipe, "--paralel", "2", check=2)
    assert "Usage: vasevqa run" in result.stderr
    assert "--parallel" in result.stderr
    assert "Usage: vasevqa" in kit.call("rn", check=2).stderr


def test_commands_on_an_empty_volume_print_one_sentence(kit: Kit) -> None:
    for words in (["status"], ["logs"], ["cancel"], ["report"]):
        assert "There is no run on the volume" in fails(kit, *words)
    assert kit.call("clean").stdout == "Nothing to clean.\n"
    assert not kit.volume.root.exists()


def test_a_failed_step_decides_the_exit_code_of_the_command(kit: Kit) -> None:
    kit.wish("left", "data")
    result = kit.run("--parallel", "1", check=3)
    assert "error: No word can be read." in result.stderr.splitlines()
    log = kit.runs()[0].log("left", 1)
    assert f"left: failed; its log is {log}" in result.stdout
    assert "No word can be read" in log.read_text()
    status = kit.call("status").stdout
    assert "failed" in status.splitlines()[0]
    assert re.search(r"left +failed +No word can be read\.", status)
    assert re.search(r"right +waiting", status)
    assert kit.runs()[0].report.is_file()


def test_status_shows_runs_and_steps(kit: Kit) -> None:
    kit.run()
    kit.run("--set", "last.ending=x")
    one, two = kit.runs()
    out = kit.call("status").stdout
    assert out.startswith(f"{two.name}: finished\n")
    assert re.search(r"first +up to date", out)
    assert re.search(r"last +done", out)
    assert f"{one.name}: finished" in out
    whole = json.loads(kit.call("status", one.name, "--json").stdout)
    assert (whole["run"], whole["state"], set(whole["steps"])) == (one.name, "finished", set(STEPS))
    assert whole["steps"]["last"]["state"] == "done"
    assert "There is no run 'nonsense'" in fails(kit, "status", "nonsense")
    assert "several runs" in fails(kit, "status", one.name[:6])


def test_status_follows_a_run_from_another_terminal(kit: Kit) -> None:
    held = kit.hold("left")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("left")
    out = kit.call("status").stdout
    assert ": running" in out.splitlines()[0]
    assert re.search(r"left +running", out)
    assert re.search(r"last +waiting", out)
    held.unlink()
    process.communicate()
    assert process.returncode == 0
    killed = kit.run("--set", "last.ending=x", check=None, env={"VASEVQA_FAULT": FaultPoint.AFTER_SUBMIT.value})
    assert killed.returncode == -signal.SIGKILL
    assert ": interrupted" in kit.call("status").stdout.splitlines()[0]


def test_logs_are_readable_text_without_raw(kit: Kit) -> None:
    kit.wish("left", "again")
    kit.run()
    run = kit.runs()[0].name
    out = kit.call("logs", run).stdout
    assert "first: 2 words" in out.splitlines()
    assert "left: error: The machine is needed for other work." in out.splitlines()
    assert "{" not in out
    raw = kit.call("logs", run, "first", "--raw").stdout
    assert raw == kit.runs()[0].log("first", 1).read_text()
    assert "has no step 'frist'" in fails(kit, "logs", run, "frist")


def test_logs_can_be_followed_to_the_end(kit: Kit) -> None:
    held = kit.hold("left")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("left")
    follower = kit.command("logs", "--follow")
    held.unlink()
    out, _ = follower.communicate(timeout=60)
    process.communicate(timeout=60)
    assert follower.returncode == process.returncode == 0
    assert out.splitlines()[-1] == "last: 4 words"


def test_cancel_stops_a_run_from_another_terminal(kit: Kit) -> None:
    kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    pid = kit.pid("first")
    assert "cancelled" in kit.call("cancel").stdout
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: The run was cancelled" in errors
    assert process_start(pid) is None
    assert "there is nothing to cancel" in fails(kit, "cancel")


def test_cancel_stops_the_jobs_of_a_killed_launcher(kit: Kit) -> None:
    kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    pid = kit.pid("first")
    process.kill()
    process.communicate()
    other = kit.call("run", kit.recipe, "--input", f"first={kit.root / 'words'}", "--to", "left")
    assert re.search(
        r"vase-first-\S+ of the interrupted run \S+ is still running; stop it with `vasevqa cancel", other.stderr
    )
    interrupted = kit.runs()[0]
    assert "cancelled" in kit.call("cancel", interrupted.name).stdout
    assert process_start(pid) is None
    assert interrupted.state == "cancelled"


def test_ctrl_c_stops_the_stage_and_the_same_command_resumes(kit: Kit) -> None:
    held = kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    pid = kit.pid("first")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: Stopped; run the same command again to resume." in errors
    assert "first: stopping" in out
    assert process_start(pid) is None
    assert kit.runs()[0].state == "cancelled"
    held.unlink()
    kit.run()
    assert kit.attempts("wrote:words-alpha.txt")["first"] == 1


def test_a_second_ctrl_c_stops_at_once(kit: Kit) -> None:
    (kit.control / "first.stubborn").touch()
    kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    pid = kit.pid("first")
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "step-cancelled" in kit.runs()[0].events.path.read_text(), "the first Ctrl-C to be handled")
    assert process_start(pid) is not None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)  # less than the grace of 30 seconds
    assert process.returncode == 130
    assert process_start(pid) is None


def test_clean_keeps_the_artifacts_of_runs(kit: Kit) -> None:
    kit.run()
    kit.run("--set", "last.ending=x")
    before = kit.contents()
    assert kit.call("clean", "--yes").stdout == "Nothing to clean.\n"
    one, two = kit.runs()
    listed = kit.call("clean", one.name).stdout
    assert re.search(f"would remove .* run: runs/{one.name}", listed)
    assert "artifacts/last/" in listed
    assert "artifacts/left/" not in listed
    assert one.path.exists()
    assert kit.contents() == before
    kit.call("clean", one.name, "--yes")
    assert [run.name for run in kit.runs()] == [two.name]
    assert len(kit.volume.complete("last")) == 1
    assert {artifact.step for artifact in kit.artifacts()} == set(STEPS)
    kit.call("clean", two.name, "--yes")
    assert kit.artifacts() == []
    assert sorted(path.name for path in (kit.root / "words").iterdir()) == ["alpha.txt", "beta.txt"]


def test_clean_keeps_a_running_run_and_removes_the_files_of_a_cancelled_run(kit: Kit) -> None:
    kit.hold("left")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("left")
    run = kit.runs()[0]
    assert "is running; cancel it first" in fails(kit, "clean", run.name)
    assert kit.call("clean", "--yes").stdout == "Nothing to clean.\n"
    process.kill()
    process.communicate()
    assert "is still running" in fails(kit, "clean", run.name)
    assert kit.call("clean", "--yes").stdout == "Nothing to clean.\n"
    kit.call("cancel")
    assert re.search(r"kept .*artifacts/left/\w+\.partial: unfinished work", kit.call("clean", "--yes").stdout)
    assert list(kit.volume.artifacts.glob("left/*.partial/*"))
    assert re.search(r"removed .*artifacts/left/\w+\.partial", kit.call("clean", "--partial", "--yes").stdout)
    assert not list(kit.volume.artifacts.glob("*/*.partial"))
    assert kit.backend.existing("vase-") == []
    assert [artifact.step for artifact in kit.artifacts()] == ["first", "right"]


def test_clean_removes_a_job_that_ended_without_its_launcher_and_keeps_its_artifact(kit: Kit) -> None:
    killed = kit.run(check=None, env={"VASEVQA_FAULT": "after-submit:left"})
    assert killed.returncode == -signal.SIGKILL
    [job] = kit.backend.existing("vase-left-")
    wait_for(lambda: kit.backend.state(job).is_terminal, "the stage to end by itself")
    assert f"would remove  finished job: {job}" in kit.call("clean").stdout
    assert kit.backend.existing("vase-left-") == [job]
    assert f"removed  finished job: {job}" in kit.call("clean", "--yes").stdout
    assert kit.backend.existing("vase-left-") == []
    kit.run()
    assert kit.attempts() == dict.fromkeys(STEPS, 1)


def test_clean_removes_a_job_that_a_killed_launcher_did_not_complete(kit: Kit) -> None:
    kit.run("--to", "first")
    old, new = (kit.volume.root / f".jobs/.vase-first-0123456789-1.{age}" for age in ("old", "new"))
    for path in (old, new):
        path.mkdir()
    past = old.stat().st_mtime - 7200
    os.utime(old, (past, past))
    assert "job that never began: .jobs/.vase-first-0123456789-1.old" in kit.call("clean", "--yes").stdout
    assert not old.exists()
    assert new.exists()


def test_the_report_is_written_again(kit: Kit) -> None:
    kit.run()
    report = kit.runs()[0].report
    report.unlink()
    assert kit.call("report").stdout == f"Report: {report}\n"
    assert "<html" in report.read_text()


def test_recipe_describes_the_steps_and_prints_the_schema(kit: Kit) -> None:
    assert "first: Copies words." in kit.call("recipe").stdout
    schema = json.loads(kit.call("recipe", "--schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(kit.recipe.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"inputs": {}, "steps": {"frist": {}}}, schema)


def test_option_or_environment_give_the_volume(kit: Kit, tmp_path: Path) -> None:
    kit.run("--volume", tmp_path / "another")
    assert (tmp_path / "another/artifacts/first").is_dir()
    assert not kit.volume.root.exists()


def test_help_lists_every_command_with_a_short_line(kit: Kit) -> None:
    out = kit.call("--help").stdout
    for name in ("cancel", "clean", "logs", "plan", "recipe", "report", "run", "sample", "status"):
        [line] = [line for line in out.splitlines() if line.startswith(f"  {name} ")]
        assert not line.endswith("...")
    assert kit.call("--version").stdout.startswith("vasevqa, version ")
