"""A launcher finds jobs, sealed results and other launchers; and a run is stopped."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.kit import FIRST, STEPS, Background, Kit, of, wait_for
from vasevqa.artifacts.lease import Lease, LeaseHeld
from vasevqa.backends.base import State
from vasevqa.errors import Interrupted
from vasevqa.pipeline import executor
from vasevqa.pipeline.launcher import Cancelled, Launcher, StepFailed
from vasevqa.pipeline.selection import Selection


class Gone(BaseException):
    """Simulates the end of a launcher at this point."""


def forget_after(launcher: Launcher, kind: str) -> None:
    """End the launcher once it has logged such an event."""

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == kind:
            raise Gone

    launcher._listen = listen


def leave_behind(kit: Kit) -> None:
    """Start the first step, and end the launcher."""
    launcher = kit.launcher(selection=FIRST)
    forget_after(launcher, "step-started")
    with pytest.raises(Gone):
        launcher.execute()


def end_alone(kit: Kit, held: Path) -> str:
    """Let the waiting job end while no launcher runs, and return the job's name."""
    held.unlink()
    [job] = kit.backend.existing("vase-first-")
    wait_for(lambda: kit.backend.state(job) is State.FINISHED, "the job to end")
    return job


def test_the_next_launcher_detects_a_failure_that_no_launcher_saw(kit: Kit) -> None:
    kit.wish("first", "data")
    held = kit.hold("first", "hold-begin")
    leave_behind(kit)
    end_alone(kit, held)
    with pytest.raises(StepFailed, match="No word can be read"):
        kit.execute(selection=FIRST)
    assert kit.attempts() == {"first": 1}


def test_a_sealed_result_is_committed_without_another_attempt(kit: Kit) -> None:
    held = kit.hold("first")
    leave_behind(kit)
    kit.backend.remove(end_alone(kit, held))
    kit.execute(selection=FIRST)
    assert kit.attempts()["first"] == 1
    assert len(kit.contents()) == 1


def test_a_damaged_sealed_result_is_not_committed(kit: Kit) -> None:
    kit.execute()
    [left] = kit.volume.complete("left")
    left.path.rename(left.partial)
    (left.partial / "words-words-alpha.txt").write_text("alphx-left")
    with pytest.raises(StepFailed, match="differs from what its step wrote"):
        kit.execute()
    assert kit.volume.complete("left") == []


def test_a_result_is_discarded_if_an_input_changes_during_the_step(kit: Kit) -> None:
    held = kit.hold("first")
    background = Background(kit.launcher(selection=FIRST))
    kit.wait_until_held("first")
    (kit.root / "words" / "beta.txt").write_text("changed")
    held.unlink()
    error = background.join()
    assert isinstance(error, StepFailed)
    assert error.code == 3
    assert "words of first changed" in str(error)
    assert kit.artifacts() == []
    kit.assert_tidy()
    (kit.root / "words" / "beta.txt").write_text("beta")
    kit.execute(selection=FIRST)
    [first] = kit.volume.complete("first")
    assert (first.path / "words-beta.txt").read_text() == "beta"


def test_a_result_from_an_input_that_changed_unnoticed_is_made_again(kit: Kit) -> None:
    """The launcher was killed, and the input was changed and restored. The key is unchanged, but the result may mix old
    and new content.
    """
    held = kit.hold("first")
    leave_behind(kit)
    kit.wait_until_held("first")
    (kit.root / "words" / "beta.txt").write_text("changed")
    end_alone(kit, held)
    (kit.root / "words" / "beta.txt").write_text("beta")
    kit.execute(selection=FIRST)
    assert kit.attempts()["first"] == 2
    [first] = kit.volume.complete("first")
    assert (first.path / "words-beta.txt").read_text() == "beta"


def test_two_launchers_share_one_job(kit: Kit) -> None:
    held = kit.hold("first")
    one = Background(kit.launcher())
    kit.wait_until_held("first")
    other = copy.copy(kit)
    other.events = []
    two = Background(other.launcher())
    wait_for(lambda: of(other, "step-adopted", "first"), "the second launcher to attach")
    held.unlink()
    assert one.join() is None
    assert two.join() is None
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert len(kit.runs()) == 2
    logs = [run.log("first", 1).read_text() for run in kit.runs()]
    assert logs[0] == logs[1] != ""
    assert [run.state for run in kit.runs()] == ["finished", "finished"]
    kit.assert_tidy()


def test_the_launcher_waits_for_another_writer(kit: Kit) -> None:
    plan = kit.plan()
    artifact = plan.steps[0].artifact
    lease = Lease.acquire(artifact.lease, "by-hand")
    background = Background(kit.launcher(selection=FIRST))
    wait_for(lambda: of(kit, "step-elsewhere", "first"), "the launcher to wait")
    assert kit.attempts() == {}
    lease.release()
    assert background.join() is None
    assert kit.attempts() == {"first": 1}


def test_one_run_has_one_launcher(kit: Kit) -> None:
    held = kit.hold("first")
    launcher = kit.launcher(selection=FIRST)
    background = Background(launcher)
    kit.wait_until_held("first")
    with pytest.raises(LeaseHeld):
        Launcher(launcher.plan, launcher.run, kit.backend, 1, lambda event: None).execute()
    held.unlink()
    assert background.join() is None


def test_a_launcher_that_lost_its_run_writes_nothing_more_to_it(kit: Kit) -> None:
    held = kit.hold("first")
    launcher = kit.launcher(selection=FIRST)
    background = Background(launcher)
    kit.wait_until_held("first")
    launcher.run.lease.unlink()
    successor = Lease.acquire(launcher.run.lease, "successor")
    before = launcher.run.events.path.read_text()
    held.unlink()
    error = background.join()
    assert isinstance(error, Interrupted)
    assert "Another launcher has taken over" in str(error)
    assert launcher.run.events.path.read_text() == before
    successor.release()
    kit.execute(selection=FIRST)
    assert kit.attempts() == {"first": 1}


def test_a_launcher_that_can_not_touch_its_lease_names_the_storage(kit: Kit) -> None:
    held = kit.hold("first")
    launcher = kit.launcher(selection=FIRST)
    background = Background(launcher)
    kit.wait_until_held("first")
    lease = launcher._lease
    assert lease is not None
    descriptor, lease._descriptor = lease._descriptor, -1  # every touch fails from now on
    lease._touched -= lease.ttl
    before = launcher.run.events.path.read_text()
    held.unlink()
    error = background.join()
    assert isinstance(error, Interrupted)
    assert "could not touch" in str(error)
    assert "check the volume or its server" in str(error)
    assert launcher.run.events.path.read_text() == before
    os.close(descriptor)
    kit.execute(selection=FIRST)
    assert kit.attempts() == {"first": 1}


def test_the_cancel_file_stops_the_run_and_its_stages(kit: Kit) -> None:
    kit.hold("first")
    launcher = kit.launcher(selection=FIRST)
    background = Background(launcher)
    kit.wait_until_held("first")
    launcher.run.cancel_file.touch()
    assert isinstance(background.join(), Cancelled)
    assert of(kit, "step-cancelled", "first")
    assert launcher.run.state == "cancelled"
    assert kit.backend.existing("vase-") == []
    assert not launcher.run.cancel_file.exists()
    shutil.rmtree(kit.control)
    kit.control.mkdir()
    kit.execute(selection=FIRST)
    assert kit.attempts("wrote:words-alpha.txt")["first"] == 0  # the artifact existed already


def test_a_job_of_another_active_run_is_not_stopped(kit: Kit) -> None:
    held = kit.hold("first")
    one = Background(kit.launcher(selection=FIRST))
    kit.wait_until_held("first")
    other = copy.copy(kit)
    other.events = []
    launcher = other.launcher(selection=FIRST)
    two = Background(launcher)
    wait_for(lambda: of(other, "step-adopted", "first"), "the second launcher to attach")
    launcher.run.cancel_file.touch()
    assert isinstance(two.join(), Cancelled)
    held.unlink()
    assert one.join() is None
    assert kit.attempts() == {"first": 1}


def test_a_step_past_its_deadline_is_stopped(kit: Kit) -> None:
    kit.write_recipe(first={"resources": {"run_deadline": 1}})
    kit.hold("first")
    with pytest.raises(StepFailed, match="run_deadline of 1 s"):
        kit.execute(selection=FIRST)
    assert kit.backend.existing("vase-") == []


def test_a_job_that_is_deleted_by_hand_is_replaced(kit: Kit) -> None:
    held = kit.hold("first")
    background = Background(kit.launcher(selection=FIRST))
    kit.wait_until_held("first")
    pid = kit.pid("first")
    [job] = kit.backend.existing("vase-first-")
    shutil.rmtree(kit.volume.root / ".jobs" / job)
    os.kill(pid, signal.SIGKILL)
    held.unlink()
    assert background.join() is None
    assert kit.attempts()["first"] == 2
    kit.assert_tidy()


def test_any_output_of_a_stage_is_handled(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(
        executor,
        "parse",
        lambda lines: iter([{"event": "metrics", "kind": 1, "keep": 2, "step": 3, "self": 4, "time": 5.0}]),
    )
    run = kit.execute(selection=Selection(last="first"))
    heard = [event for event in run.events.read() if event["event"] == "stage-metrics"]
    assert {key: heard[0][key] for key in ("kind", "keep", "stage_step", "self", "step")} == {
        "kind": 1,
        "keep": 2,
        "stage_step": 3,
        "self": 4,
        "step": "first",
    }


def test_a_closed_display_does_not_end_the_run(kit: Kit) -> None:
    launcher = kit.launcher(selection=FIRST)

    def broken(event: dict[str, Any]) -> None:
        raise BrokenPipeError

    launcher._listen = broken
    launcher.execute()
    assert launcher.run.state == "finished"


def test_progress_is_logged_at_intervals(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    run = kit.execute(selection=Selection(last="first"))
    kept = [event["event"] for event in run.events.read()]
    assert kept.count("stage-progress") == 1
    assert "stage-summary" in kept
    assert time.time() - float(run.events.last(("run-finished",))["time"]) < 60  # type: ignore[index]


def test_retries_are_counted_across_launchers(kit: Kit) -> None:
    kit.wish("first", "kill", "kill", "kill")
    launcher = kit.launcher(selection=FIRST)
    forget_after(launcher, "attempt-failed")
    with pytest.raises(Gone):
        launcher.execute()
    with pytest.raises(StepFailed, match="killed"):
        kit.execute(selection=FIRST)
    assert kit.attempts()["first"] == 2
    assert len(kit.runs()) == 1
