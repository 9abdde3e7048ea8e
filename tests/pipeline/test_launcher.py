"""Running a recipe: order, caching, selections, failures and retries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.kit import FIRST, STEPS, Background, Kit, of, wait_for
from vasevqa.pipeline import executor, failures
from vasevqa.pipeline.launcher import StepFailed
from vasevqa.pipeline.selection import Selection


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
    order = [
        line.split()[:2]
        for line in (kit.control / "attempts.log").read_text().splitlines()
        if line.split()[1] in ("begins", "ends")
    ]
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
    ("wish", "code", "says"),
    [("data", 3, "No word can be read"), (2, 2, "left"), (5, 5, "left"), (6, 6, "left"), ("full", 74, "disk is full")],
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
    assert launcher._work["left"].status.value in ("waiting", "done")
    held.unlink()
    assert background.join() is None
    assert rounds < 200
