"""Running a recipe: order, caching, retries, attaching to others, stopping."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.kit import STEPS, Kit, wait_for
from vasevqa.backends import failures
from vasevqa.backends.base import State
from vasevqa.errors import Interrupted
from vasevqa.pipeline import making
from vasevqa.pipeline.launcher import Cancelled, Launcher, StepFailed
from vasevqa.pipeline.lease import Lease, LeaseHeld
from vasevqa.pipeline.plan import Selection

FIRST = Selection(last="first")


def of(kit: Kit, kind: str, step: str | None = None) -> list[dict[str, Any]]:
    return [event for event in kit.events if event["event"] == kind and step in (None, event.get("step"))]


class Background:
    """A launcher at work in a thread."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._execute, daemon=True)
        self.thread.start()

    def _execute(self) -> None:
        try:
            self.launcher.execute()
        except BaseException as error:
            self.error = error

    def join(self) -> BaseException | None:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.error


def test_steps_run_after_what_they_read_and_leave_their_artifacts(kit: Kit) -> None:
    run = kit.execute()
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    done = [event["step"] for event in of(kit, "step-done")]
    assert done[0] == "first"
    assert done[-1] == "last"
    [last] = kit.volume.complete("last")
    assert {path.name: path.read_text() for path in last.path.glob("*.txt")} == {
        "words-words-words-alpha.txt": "alpha-left",
        "words-words-words-beta.txt": "beta-left",
        "more-words-words-alpha.txt": "alpha-right",
        "more-words-words-beta.txt": "beta-right",
    }
    assert {step: path.name for step, path in run.artifacts().items()} == run.keys()
    assert str((run.path / "steps" / "last").readlink()) == f"../../../artifacts/last/{last.key}"
    assert run.state == "finished"
    kit.assert_tidy()


def test_the_artifact_remembers_where_it_came_from(kit: Kit) -> None:
    run = kit.execute()
    [left] = kit.volume.complete("left")
    record = left.record()
    [first] = kit.volume.complete("first")
    assert record["params"] == {"ending": "-left"}
    assert record["inputs"]["words"]["key"] == first.key
    assert record["run"] == run.name
    assert record["attempt"] == f"vase-left-{left.key[:10]}-1"
    assert set(record["files"]) == {"words-words-alpha.txt", "words-words-beta.txt"}
    assert {"started", "finished", "host", "versions", "seed", "summary"} <= set(record)


def test_one_after_the_other_where_only_one_may_run(kit: Kit) -> None:
    kit.execute(parallel=1)
    order = [line.split()[:2] for line in (kit.control / "attempts.log").read_text().splitlines() if line.split()[1] in ("begins", "ends")]
    assert order == [[step, what] for step in STEPS for what in ("begins", "ends")]


def test_independent_steps_run_side_by_side(kit: Kit) -> None:
    held = [kit.hold("left"), kit.hold("right")]
    background = Background(kit.launcher(parallel=2))
    kit.wait_until_held("left")
    kit.wait_until_held("right")
    for path in held:
        path.unlink()
    assert background.join() is None


def test_a_changed_parameter_reruns_its_step_and_what_depends_on_it(kit: Kit) -> None:
    kit.execute()
    kit.execute(overrides=["left.ending=-other"])
    assert kit.attempts() == {"first": 1, "left": 2, "right": 1, "last": 2}
    hits = {event["step"]: event["hit"] for event in of(kit, "step-done")[4:]}
    assert hits == {"first": True, "left": False, "right": True, "last": False}


def test_an_option_changes_no_result(kit: Kit) -> None:
    kit.execute()
    (kit.root / "elsewhere").mkdir()
    kit.execute(overrides=[f"left.control={kit.root / 'elsewhere'}"])
    assert kit.attempts() == dict.fromkeys(STEPS, 1)


def test_a_changed_input_reruns_what_reads_it(kit: Kit) -> None:
    kit.execute()
    (kit.root / "words" / "gamma.txt").write_text("gamma")
    kit.execute()
    assert kit.attempts() == dict.fromkeys(STEPS, 2)
    assert [len(artifact.record()["files"]) for artifact in kit.volume.complete("first")] == [2, 3]


def test_refresh_makes_a_step_anew_and_replaces_the_old_artifact(kit: Kit) -> None:
    kit.execute()
    before = kit.contents()
    kit.execute(selection=Selection(refresh=("left",)))
    assert kit.attempts() == {"first": 1, "left": 2, "right": 1, "last": 1}
    assert kit.contents() == before
    kit.assert_tidy()


def test_a_refresh_that_fails_leaves_the_old_artifact(kit: Kit) -> None:
    kit.execute()
    before = kit.contents()
    kit.wish("left", "data")
    with pytest.raises(StepFailed, match="No word can be read"):
        kit.execute(selection=Selection(refresh=("left",)))
    assert kit.contents() == before


def test_a_selection_takes_what_exists_for_the_rest(kit: Kit) -> None:
    kit.execute(selection=Selection(last="first"))
    assert kit.attempts() == {"first": 1}
    run = kit.execute(selection=Selection(only=("left",)))
    assert kit.attempts() == {"first": 1, "left": 1}
    assert set(run.artifacts()) == {"first", "left"}


@pytest.mark.parametrize(
    ("wish", "code", "says"), [("data", 3, "No word can be read"), (2, 2, "left"), (5, 5, "left"), (6, 6, "left"), ("full", 74, "disk is full")]
)
def test_what_the_user_must_mend_stops_at_once(kit: Kit, wish: int | str, code: int, says: str) -> None:
    kit.wish("left", wish)
    with pytest.raises(StepFailed, match=says) as failed:
        kit.execute(parallel=1)
    assert failed.value.code == code
    assert kit.attempts() == {"first": 1, "left": 1}
    assert of(kit, "run-failed")[0]["exit_code"] == code
    assert Path(of(kit, "step-failed")[0]["log"]).exists()
    assert kit.runs()[0].state == "failed"
    kit.execute()
    assert kit.attempts() == {"first": 1, "left": 2, "right": 1, "last": 1}
    kit.assert_tidy()


def test_a_bug_and_a_missing_artifact_are_not_success(kit: Kit) -> None:
    kit.wish("first", "silent")
    with pytest.raises(StepFailed, match="without its artifact") as failed:
        kit.execute(selection=FIRST)
    assert failed.value.code == 1


def test_running_steps_finish_when_another_fails_and_no_new_ones_begin(kit: Kit) -> None:
    held = kit.hold("right")
    kit.wish("left", "data")
    background = Background(kit.launcher())
    kit.wait_until_held("right")
    wait_for(lambda: of(kit, "step-failed"), "left to fail")
    held.unlink()
    assert isinstance(background.join(), StepFailed)
    assert [artifact.step for artifact in kit.artifacts()] == ["first", "right"]
    assert kit.attempts()["last"] == 0


def test_an_interrupted_stage_goes_on_from_what_it_has(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LONGEST_PAUSE", 0.01)
    kit.wish("first", "again", "again", 143)
    kit.execute(selection=FIRST)
    assert kit.attempts()["first"] == 4
    assert kit.attempts("wrote:words-alpha.txt")["first"] == 1
    failed = of(kit, "attempt-failed", "first")
    assert [event["failure"] for event in failed] == ["transient"] * 3
    assert failed[0]["message"] == "The machine is wanted for something else."
    kit.assert_tidy()


def test_interruptions_have_an_end(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LONGEST_PAUSE", 0.01)
    monkeypatch.setitem(failures.RETRIES, failures.Kind.TRANSIENT, 2)
    kit.wish("first", *["again"] * 9)
    with pytest.raises(StepFailed) as failed:
        kit.execute(selection=FIRST)
    assert failed.value.code == 75
    assert kit.attempts()["first"] == 3


def test_an_unexplained_kill_is_tried_once_more(kit: Kit) -> None:
    kit.wish("first", "kill")
    kit.execute()
    assert kit.attempts()["first"] == 2
    kit.wish("left", "kill", "kill", "kill")
    with pytest.raises(StepFailed, match="killed") as failed:
        kit.execute(overrides=["left.ending=x"])
    assert failed.value.code == 137


def test_a_retry_that_has_no_place_yet_waits_quietly(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one place only, the retry of one step and the first attempt of another compete; nobody spins meanwhile."""
    kit.wish("left", "again")
    held = kit.hold("right")
    launcher = kit.launcher(parallel=1)
    rounds = 0
    heed = launcher._heed

    def counted() -> bool:
        nonlocal rounds
        rounds += 1
        return heed()

    monkeypatch.setattr(launcher, "_heed", counted)
    monkeypatch.setattr(making, "pause", lambda kind, tries: 0.01)
    background = Background(launcher)
    kit.wait_until_held("right")
    before = rounds
    wait_for(lambda: rounds > before, "another round")
    assert launcher._work["left"].standing.value in ("waiting", "done")
    held.unlink()
    assert background.join() is None
    assert rounds < 200


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


class Gone(BaseException):
    """Stands for the end of a launcher at this point."""


def forget_after(launcher: Launcher, kind: str) -> None:
    """The launcher is gone once it has logged such an event."""

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == kind:
            raise Gone

    launcher._listen = listen


def test_a_failure_while_no_launcher_was_there_is_seen_by_the_next(kit: Kit) -> None:
    kit.wish("first", "data")
    held = kit.hold("first", "hold-begin")
    launcher = kit.launcher(selection=FIRST)
    forget_after(launcher, "step-started")
    with pytest.raises(Gone):
        launcher.execute()
    held.unlink()
    [job] = kit.backend.existing("vase-first-")
    wait_for(lambda: kit.backend.state(job) is State.FINISHED, "the job to end")
    with pytest.raises(StepFailed, match="No word can be read"):
        kit.execute(selection=FIRST)
    assert kit.attempts() == {"first": 1}


def test_a_sealed_result_is_committed_without_another_run(kit: Kit) -> None:
    held = kit.hold("first")
    launcher = kit.launcher(selection=FIRST)
    forget_after(launcher, "step-started")
    with pytest.raises(Gone):
        launcher.execute()
    held.unlink()
    [job] = kit.backend.existing("vase-first-")
    wait_for(lambda: kit.backend.state(job) is State.FINISHED, "the job to end")
    kit.backend.remove(job)
    kit.execute(selection=FIRST)
    assert kit.attempts()["first"] == 1
    assert len(kit.contents()) == 1


def test_a_damaged_sealed_result_is_not_taken(kit: Kit) -> None:
    kit.execute()
    [left] = kit.volume.complete("left")
    left.path.rename(left.partial)
    (left.partial / "words-words-alpha.txt").write_text("alphx-left")
    with pytest.raises(StepFailed, match="differs from what its step wrote"):
        kit.execute()
    assert kit.volume.complete("left") == []


def test_an_input_that_changes_while_it_is_read_spoils_the_result(kit: Kit) -> None:
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


def test_a_result_sealed_from_an_input_that_changed_unseen_is_made_anew(kit: Kit) -> None:
    """The launcher was killed, the input was edited and edited back: the key is the old one, the content may be a mixture."""
    held = kit.hold("first")
    launcher = kit.launcher(selection=FIRST)
    forget_after(launcher, "step-started")
    with pytest.raises(Gone):
        launcher.execute()
    kit.wait_until_held("first")
    (kit.root / "words" / "beta.txt").write_text("changed")
    held.unlink()
    [job] = kit.backend.existing("vase-first-")
    wait_for(lambda: kit.backend.state(job) is State.FINISHED, "the job to end")
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


def test_someone_elses_writer_is_waited_for(kit: Kit) -> None:
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
    assert isinstance(background.join(), Interrupted)
    assert launcher.run.events.path.read_text() == before
    successor.release()
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
    assert kit.attempts("wrote:words-alpha.txt")["first"] == 0  # it was there already


def test_a_job_that_another_live_run_submitted_is_not_ours_to_stop(kit: Kit) -> None:
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


def test_whatever_a_stage_prints_is_no_reason_to_stumble(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(making, "parse", lambda lines: iter([{"event": "metrics", "kind": 1, "keep": 2, "step": 3, "self": 4, "time": 5.0}]))
    run = kit.execute(selection=Selection(last="first"))
    heard = [event for event in run.events.read() if event["event"] == "stage-metrics"]
    assert {key: heard[0][key] for key in ("kind", "keep", "stage_step", "self", "step")} == {"kind": 1, "keep": 2, "stage_step": 3, "self": 4, "step": "first"}


def test_a_display_that_breaks_off_does_not_end_the_run(kit: Kit) -> None:
    launcher = kit.launcher(selection=FIRST)

    def broken(event: dict[str, Any]) -> None:
        raise BrokenPipeError

    launcher._listen = broken
    launcher.execute()
    assert launcher.run.state == "finished"


def test_progress_reaches_the_log_now_and_then(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    run = kit.execute(selection=Selection(last="first"))
    kept = [event["event"] for event in run.events.read()]
    assert kept.count("stage-progress") == 1
    assert "stage-summary" in kept
    assert time.time() - float(run.events.last(("run-finished",))["time"]) < 60  # type: ignore[index]
