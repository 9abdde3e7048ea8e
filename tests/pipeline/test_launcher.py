"""Running a recipe: order, caching, selections, failures and retries."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.pipeline.kit import FIRST, STEPS, Background, Kit, of, wait_for
from vasevqa.artifacts.volume import Artifact
from vasevqa.pipeline import executor, failures
from vasevqa.pipeline.launcher import StepFailed
from vasevqa.pipeline.selection import Selection


def test_steps_run_after_the_steps_that_they_read_and_leave_their_artifacts(kit: Kit) -> None:
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


def test_the_artifact_records_its_origin(kit: Kit) -> None:
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


def test_with_parallel_1_steps_run_one_after_the_other(kit: Kit) -> None:
    kit.execute(parallel=1)
    order = [
        line.split()[:2]
        for line in (kit.control / "attempts.log").read_text().splitlines()
        if line.split()[1] in ("begins", "ends")
    ]
    assert order == [[step, what] for step in STEPS for what in ("begins", "ends")]


def test_independent_steps_run_at_the_same_time(kit: Kit) -> None:
    held = [kit.hold("left"), kit.hold("right")]
    background = Background(kit.launcher(parallel=2))
    kit.wait_until_held("left")
    kit.wait_until_held("right")
    for path in held:
        path.unlink()
    assert background.join() is None


def test_a_changed_parameter_reruns_its_step_and_all_dependent_steps(kit: Kit) -> None:
    kit.execute()
    kit.execute(overrides=["left.ending=-other"])
    assert kit.attempts() == {"first": 1, "left": 2, "right": 1, "last": 2}
    hits = {event["step"]: event["hit"] for event in of(kit, "step-done")[4:]}
    assert hits == {"first": True, "left": False, "right": True, "last": False}


def test_an_option_reruns_no_step(kit: Kit) -> None:
    kit.execute()
    (kit.root / "elsewhere").mkdir()
    kit.execute(overrides=[f"left.control={kit.root / 'elsewhere'}"])
    assert kit.attempts() == dict.fromkeys(STEPS, 1)


def test_a_changed_input_reruns_the_steps_that_read_it(kit: Kit) -> None:
    kit.execute()
    (kit.root / "words" / "gamma.txt").write_text("gamma")
    kit.execute()
    assert kit.attempts() == dict.fromkeys(STEPS, 2)
    assert [len(artifact.record()["files"]) for artifact in kit.volume.complete("first")] == [2, 3]


def test_refresh_repeats_a_step_and_replaces_the_old_artifact(kit: Kit) -> None:
    kit.execute()
    before = kit.contents()
    kit.execute(selection=Selection(refresh=("left",)))
    assert kit.attempts() == {"first": 1, "left": 2, "right": 1, "last": 1}
    assert kit.contents() == before
    kit.assert_tidy()


def test_a_refresh_that_fails_keeps_the_old_artifact(kit: Kit) -> None:
    kit.execute()
    before = kit.contents()
    kit.wish("left", "data")
    with pytest.raises(StepFailed, match="No word can be read"):
        kit.execute(selection=Selection(refresh=("left",)))
    assert kit.contents() == before


def test_a_selection_uses_the_existing_artifacts_of_other_steps(kit: Kit) -> None:
    kit.execute(selection=Selection(last="first"))
    assert kit.attempts() == {"first": 1}
    run = kit.execute(selection=Selection(only=("left",)))
    assert kit.attempts() == {"first": 1, "left": 1}
    assert set(run.artifacts()) == {"first", "left"}


@pytest.mark.parametrize(
    ("wish", "code", "says"),
    [("data", 3, "No word can be read"), (2, 2, "left"), (5, 5, "left"), (6, 6, "left"), ("full", 74, "disk is full")],
)
def test_a_users_mistake_stops_the_run_at_once(kit: Kit, wish: int | str, code: int, says: str) -> None:
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


def test_a_bug_or_a_missing_artifact_is_a_failure(kit: Kit) -> None:
    kit.wish("first", "silent")
    with pytest.raises(StepFailed, match="it left no complete artifact") as failed:
        kit.execute(selection=FIRST)
    assert failed.value.code == 1


def test_after_a_failure_running_steps_finish_and_no_new_steps_start(kit: Kit) -> None:
    held = kit.hold("right")
    kit.wish("left", "data")
    background = Background(kit.launcher())
    kit.wait_until_held("right")
    wait_for(lambda: of(kit, "step-failed"), "left to fail")
    held.unlink()
    assert isinstance(background.join(), StepFailed)
    assert [artifact.step for artifact in kit.artifacts()] == ["first", "right"]
    assert kit.attempts()["last"] == 0


def test_an_interrupted_stage_resumes_from_its_files(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LONGEST_PAUSE", 0.01)
    kit.wish("first", "again", "again", 143)
    kit.execute(selection=FIRST)
    assert kit.attempts()["first"] == 4
    assert kit.attempts("wrote:words-alpha.txt")["first"] == 1
    failed = of(kit, "attempt-failed", "first")
    assert [event["failure"] for event in failed] == ["transient"] * 3
    assert failed[0]["message"] == "The machine is needed for other work."
    kit.assert_tidy()


def test_the_number_of_retries_after_interruptions_is_limited(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LONGEST_PAUSE", 0.01)
    monkeypatch.setitem(failures.RETRIES, failures.Kind.TRANSIENT, 2)
    kit.wish("first", *["again"] * 9)
    with pytest.raises(StepFailed) as failed:
        kit.execute(selection=FIRST)
    assert failed.value.code == 75
    assert kit.attempts()["first"] == 3


def test_an_unexplained_kill_is_retried_once(kit: Kit) -> None:
    kit.wish("first", "kill")
    kit.execute()
    assert kit.attempts()["first"] == 2
    kit.wish("left", "kill", "kill", "kill")
    with pytest.raises(StepFailed, match="killed") as failed:
        kit.execute(overrides=["left.ending=x"])
    assert failed.value.code == 137


def test_a_retry_waits_without_polling_until_it_may_start(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --parallel 1, the retry of one step waits for the first attempt of another step. The launcher doesn't poll
    in the meantime.
    """
    kit.wish("left", "again")
    held = kit.hold("right")
    launcher = kit.launcher(parallel=1)
    rounds = 0
    heed = launcher._handle_stop_requests

    def counted() -> bool:
        nonlocal rounds
        rounds += 1
        return heed()

    monkeypatch.setattr(launcher, "_handle_stop_requests", counted)
    monkeypatch.setattr(executor, "pause", lambda kind, tries: 0.01)
    background = Background(launcher)
    kit.wait_until_held("right")
    before = rounds
    wait_for(lambda: rounds > before, "another round")
    assert launcher._step_runs["left"].status.value in ("waiting", "done")
    held.unlink()
    assert background.join() is None
    assert rounds < 200


def ill(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the storage refuse the next commits, a number of times, and let the launcher not pause."""
    left, commit = [times], Artifact.commit

    def failing(artifact: Artifact, attempt: str) -> bool:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error", str(artifact.partial))
        return commit(artifact, attempt)

    monkeypatch.setattr(Artifact, "commit", failing)
    monkeypatch.setattr("vasevqa.pipeline.executor.pause", lambda kind, tries: 0.0)


def test_what_the_storage_refuses_the_launcher_is_done_again(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    ill(monkeypatch, 2)
    kit.execute(selection=FIRST)
    assert [artifact.step for artifact in kit.artifacts()] == ["first"]
    assert sum("(EIO); another attempt" in event["message"] for event in of(kit, "step-waiting", "first")) == 2
    assert kit.attempts() == {"first": 1}


def test_a_storage_that_stays_ill_ends_the_run_with_74(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    ill(monkeypatch, 1000)
    with pytest.raises(StepFailed, match="input/output error") as failed:
        kit.execute(selection=FIRST)
    assert failed.value.code == 74
    monkeypatch.undo()
    kit.execute(selection=FIRST)
    assert kit.attempts() == {"first": 1}
