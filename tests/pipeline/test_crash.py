"""Crash tests: after any kill at any time, the same command finishes with the result of an undisturbed run."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.kit import DRILL, STEPS, Kit, wait_for
from vasevqa.artifacts.lease import process_start
from vasevqa.backends.base import State
from vasevqa.faults import FaultPoint

Contents = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """The artifacts of an undisturbed run."""
    kit = Kit(tmp_path_factory.mktemp("undisturbed") / "kit")
    kit.run()
    contents = kit.contents()
    assert len(contents) == 4
    return contents


def assert_whole(kit: Kit, undisturbed: Contents) -> None:
    """Assert that the result is that of an undisturbed run, that no event is repeated, and that nothing is left
    over.
    """
    assert kit.contents() == undisturbed
    assert set(kit.attempts("wrote:words-alpha.txt").values()) <= {1}
    assert kit.attempts("ends") == dict.fromkeys(STEPS, 1)
    kit.assert_tidy()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", FaultPoint, ids=lambda point: point.value)
def test_a_restarted_launcher_finishes_the_run_after_a_kill(kit: Kit, undisturbed: Contents, point: FaultPoint) -> None:
    step, begun = DRILL[point]
    if point is FaultPoint.DURING_RETRY:
        kit.wish(step, "kill")
    killed = kit.run(check=None, env={"VASEVQA_FAULT": f"{point.value}:{step}" if step else point.value})
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stdout}{killed.stderr}"
    assert kit.runs()[0].state == "interrupted"
    kit.run()
    assert_whole(kit, undisturbed)
    if step:
        assert kit.attempts()[step] == begun
    assert [run.state for run in kit.runs()] == ["finished"]
    assert "Nothing to do" in kit.run().stdout


def test_a_run_finishes_after_many_kills_of_the_launcher(kit: Kit, undisturbed: Contents) -> None:
    for point in (FaultPoint.AFTER_SUBMIT, FaultPoint.BEFORE_COMMIT):
        for step in ("first", "right", "last"):
            killed = kit.run(check=None, env={"VASEVQA_FAULT": f"{point.value}:{step}"})
            assert killed.returncode in (-signal.SIGKILL, 0)
    kit.run()
    assert_whole(kit, undisturbed)


@pytest.mark.parametrize("where", ["hold-begin", "hold"])
def test_a_running_stage_is_adopted(kit: Kit, undisturbed: Contents, where: str) -> None:
    held = kit.hold("first", where)
    kit_process = kit.command("run", kit.recipe)
    kit.wait_until_held("first", where)
    pid = kit.pid("first")
    kill(kit_process)
    assert process_start(pid) is not None
    again = kit.command("run", kit.recipe)
    wait_for(lambda: "step-adopted" in kit.runs()[0].events.path.read_text(), "the job to be adopted")
    held.unlink()
    out, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert "found running" in out
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert_whole(kit, undisturbed)


@pytest.mark.parametrize("where", ["hold-begin", "hold"])
def test_the_launcher_retries_a_killed_stage(kit: Kit, undisturbed: Contents, where: str) -> None:
    held = kit.hold("left", where)
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("left", where)
    held.unlink()
    os.kill(kit.pid("left"), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert_whole(kit, undisturbed)


@pytest.mark.parametrize("whole_job", [False, True], ids=["stage", "stage-and-supervisor"])
def test_a_run_finishes_after_launcher_and_stage_were_killed(kit: Kit, undisturbed: Contents, whole_job: bool) -> None:
    held = kit.hold("left")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("left")
    kill(process)
    if whole_job:
        [job] = kit.backend.existing("vase-left-")
        os.kill(json.loads((kit.volume.root / ".jobs" / job / "claim.json").read_text())["pid"], signal.SIGKILL)
    else:
        os.kill(kit.pid("left"), signal.SIGKILL)
    wait_for(lambda: process_start(kit.pid("left")) is None, "the stage to end")
    held.unlink()
    kit.run()
    assert_whole(kit, undisturbed)
    assert len(kit.runs()) == 1


def test_two_simultaneous_launchers_make_each_artifact_once(kit: Kit, undisturbed: Contents) -> None:
    processes = [kit.command("run", kit.recipe) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert_whole(kit, undisturbed)
    assert {run.state for run in kit.runs()} == {"finished"}


def test_two_recipes_share_the_artifacts_that_both_need(kit: Kit) -> None:
    held = kit.hold("first")
    one = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    two = kit.command("run", kit.recipe, "--set", "left.ending=-two", "--set", "last.ending=x")
    wait_for(
        lambda: any("step-adopted" in run.events.path.read_text() for run in kit.runs() if run.events.path.exists()),
        "the second to attach",
    )
    held.unlink()
    for process in (one, two):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert kit.attempts() == {"first": 1, "left": 2, "right": 1, "last": 2}
    assert len(kit.contents()) == 6
    kit.assert_tidy()


def elsewhere(path: Path) -> None:
    """Change a claim or lease, as if its holder ran on another machine that has been silent for a long time.

    The file keeps its inode.
    """
    path.write_text(path.read_text().replace('"boot": "', '"boot": "elsewhere-'))
    stat = path.stat()
    os.utime(path, (stat.st_atime - 1000, stat.st_mtime - 1000))


def test_a_suspended_writer_changes_nothing_after_it_resumes(kit: Kit, undisturbed: Contents) -> None:
    held = kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    kill(process)
    late = kit.pid("first")
    [job] = kit.backend.existing("vase-first-")
    claim = kit.volume.root / ".jobs" / job / "claim.json"
    supervisor = json.loads(claim.read_text())["pid"]
    for pid in (supervisor, late):
        os.kill(pid, signal.SIGSTOP)
    try:
        elsewhere(claim)
        [lease] = (kit.volume.artifacts / "first").glob("*.lease")
        elsewhere(lease)
        held.unlink()
        kit.run()
        assert kit.attempts()["first"] == 2
        assert kit.contents() == undisturbed
        inodes = {path: path.stat().st_ino for path in sorted(kit.volume.artifacts.rglob("*"))}
    finally:
        os.kill(late, signal.SIGCONT)
    wait_for(lambda: process_start(late) is None, "the late writer to end")
    os.kill(supervisor, signal.SIGCONT)
    wait_for(lambda: process_start(supervisor) is None, "its supervisor to end")
    said = [json.loads(line) for line in kit.runs()[0].log("first", 1).read_text().splitlines() if line.startswith("{")]
    assert [(event["class"], event["exit_code"]) for event in said if event["event"] == "error"] == [("LeaseLost", 75)]
    assert {path: path.stat().st_ino for path in sorted(kit.volume.artifacts.rglob("*"))} == inodes
    assert_whole(kit, undisturbed)


def test_a_suspended_launcher_stops_after_another_launcher_took_over(kit: Kit, undisturbed: Contents) -> None:
    held = kit.hold("first")
    frozen = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    frozen.send_signal(signal.SIGSTOP)
    run = kit.runs()[0]
    elsewhere(run.lease)
    held.unlink()
    kit.run()
    assert_whole(kit, undisturbed)
    before = run.events.path.read_text()
    frozen.send_signal(signal.SIGCONT)
    _, errors = frozen.communicate(timeout=60)
    assert frozen.returncode == 75
    assert "Another launcher has taken over" in errors
    assert run.events.path.read_text() == before


# Failures of the volume itself.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with a size of one mebibyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode != 0
    ):
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def on_disk(disk: Path, tmp_path: Path) -> Kit:
    """A kit whose volume is the small disk."""
    kit = Kit(tmp_path / "kit")
    (kit.root / "volume").symlink_to(disk)
    return kit


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"), open(ballast, "ab", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)
    return ballast


def assert_clear(result: subprocess.CompletedProcess[str], says: str) -> None:
    assert result.returncode == 74, result.stdout + result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]


def test_a_full_disk_is_reported_and_existing_artifacts_stay(
    small_disk: Path, tmp_path: Path, undisturbed: Contents
) -> None:
    kit = on_disk(small_disk, tmp_path)
    kit.run("--to", "left")
    before = kit.contents()
    ballast = fill(small_disk)
    assert_clear(kit.run(check=None), "full")
    assert kit.contents() == before
    ballast.unlink()
    kit.run()
    assert kit.contents() == undisturbed


def test_a_disk_that_fills_up_while_a_stage_writes_is_reported(small_disk: Path, tmp_path: Path) -> None:
    kit = on_disk(small_disk, tmp_path)
    kit.run("--to", "first")
    before = kit.contents()
    (kit.root / "words" / "long.txt").write_text("x" * 2_000_000)
    assert_clear(kit.run("--to", "first", check=None), "full")
    assert kit.contents() == before
    (kit.root / "words" / "long.txt").unlink()
    kit.run("--to", "first")
    assert kit.contents() == before
    assert [run.state for run in kit.runs()][-2:] == ["finished", "failed"]


def test_a_disk_that_fills_up_while_the_launcher_writes_is_reported(
    small_disk: Path, tmp_path: Path, undisturbed: Contents
) -> None:
    kit = on_disk(small_disk, tmp_path)
    held = kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    ballast = fill(small_disk)
    held.unlink()
    out, errors = process.communicate(timeout=60)
    assert_clear(subprocess.CompletedProcess([], process.returncode, out, errors), "full")
    ballast.unlink()
    kit.run()
    assert kit.contents() == undisturbed
    kit.assert_tidy()


def test_a_read_only_volume_is_reported(small_disk: Path, tmp_path: Path) -> None:
    kit = on_disk(small_disk, tmp_path)
    kit.run("--to", "left")
    before = kit.contents()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert_clear(kit.run(check=None), "read-only")
    assert "right" in kit.call("plan", kit.recipe).stdout
    assert "finished" in kit.call("status").stdout
    assert kit.contents() == before
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def without_privilege() -> None:
    """Make permissions apply to root too (called in the child process)."""
    if os.geteuid() == 0:
        # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: it takes effect when the next program starts
        ctypes.CDLL(None).prctl(24, 1)


@pytest.mark.parametrize("folder", ["runs", "artifacts", "."])
def test_missing_permission_is_reported(kit: Kit, undisturbed: Contents, folder: str) -> None:
    kit.run("--to", "left")
    before = kit.contents()
    place = kit.volume.root / folder
    folders = [place, *(path for path in place.glob("*") if path.is_dir())] if folder == "artifacts" else [place]
    for path in folders:
        path.chmod(0o555)
    if folder == ".":
        shutil.rmtree(kit.volume.root / "runs")
    try:
        result = kit.run(check=None, before=without_privilege)
    finally:
        for path in folders:
            path.chmod(0o755)
    assert_clear(result, "permission is missing")
    assert kit.contents() == before
    kit.run()
    assert kit.contents() == undisturbed


def test_no_job_is_left_when_a_run_is_stopped(kit: Kit) -> None:
    kit.hold("left")
    process = kit.command("run", kit.recipe, "--parallel", "2")
    kit.wait_until_held("left")
    pid = kit.pid("left")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert process_start(pid) is None
    assert all(kit.backend.state(job) is State.GONE for job in kit.backend.existing("vase-"))
