"""`vasevqa clean` removes what no run uses, says how much each item frees, and keeps what can be resumed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.pipeline.drive import make_backend
from tests.pipeline.kit import ROOT, Kit
from tests.pipeline.stages.copying import PIPELINE
from vasevqa.artifacts.contents import verify
from vasevqa.artifacts.lease import Lease
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Artifact
from vasevqa.cli.clean import Asked, clean
from vasevqa.cli.context import Context
from vasevqa.errors import ConfigError
from vasevqa.pipeline.plan import plan_rows
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.runs import Run, new_run

PAST = 1_600_000_000
MIB = 1 << 20


def cleaned(kit: Kit, *words: str) -> str:
    """Run `vasevqa clean` in this process, and return its output."""
    context = Context(PIPELINE, make_backend)
    result = CliRunner().invoke(clean, [*words, "--volume", str(kit.volume.root)], obj=context)
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.output


def made(kit: Kit, step: str, key: str, *, old: bool = True) -> Artifact:
    """Make an artifact of one mebibyte. An old artifact is older than the grace time of `clean`."""
    artifact = kit.volume.artifact(step, key)
    output = StageOutput(artifact.partial)
    with output.writing("data") as stream:
        stream.write(os.urandom(MIB))
    output.seal({"step": step, "key": key})
    artifact.commit("test")
    if old:
        aged(artifact.path)
    return artifact


def aged(path: Path) -> None:
    for each in (*path.glob("*"), path):
        os.utime(each, (PAST, PAST))


def recorded(kit: Kit, name: str, *artifacts: Artifact, end: str = "run-finished") -> Run:
    """Make a run that used the artifacts, and has ended."""
    run = new_run(kit.volume, name, "{}", [{"step": it.step, "key": it.key} for it in artifacts])  # type: ignore[typeddict-item]
    run.events.append("run-started", steps=[it.step for it in artifacts])
    for artifact in artifacts:
        run.link(artifact)
    run.events.append(end)
    return run


def test_an_artifact_of_no_run_is_removed_after_the_grace_time(kit: Kit) -> None:
    old, new = made(kit, "first", "a" * 32), made(kit, "first", "b" * 32, old=False)
    listed = cleaned(kit)
    assert re.search(rf"would remove +1\.0 MiB  artifact that no run uses: artifacts/first/{old.key}", listed)
    assert re.search(rf"kept +1\.0 MiB  artifacts/first/{new.key}: changed or used 0 min ago", listed)
    assert old.complete
    assert "1.0 MiB freed." in cleaned(kit, "--yes")
    assert not old.path.exists()
    assert new.complete


def test_an_artifact_in_the_plan_of_a_run_is_kept_even_without_a_link(kit: Kit) -> None:
    artifact = made(kit, "first", "a" * 32)
    new_run(kit.volume, "words", "{}", [{"step": "first", "key": artifact.key}])  # type: ignore[typeddict-item]
    assert cleaned(kit, "--yes") == "Nothing to clean.\n"
    assert artifact.complete


def test_what_a_run_began_to_use_after_the_scan_is_kept(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, other = made(kit, "first", "a" * 32), made(kit, "left", "b" * 32)
    acquire = Lease.acquire.__func__  # type: ignore[attr-defined]

    def late(cls: type[Lease], path: Path, attempt: str, ttl: float | None = None) -> Lease:
        if attempt.startswith("clean"):
            new_run(kit.volume, "words", "{}", [{"step": "first", "key": artifact.key}])  # type: ignore[typeddict-item]
            other.mark_used()
        lease: Lease = acquire(cls, path, attempt, ttl)
        return lease

    monkeypatch.setattr(Lease, "acquire", classmethod(late))
    said = cleaned(kit, "--yes")
    assert re.search(rf"kept .*{artifact.key}: a run uses it", said)
    assert re.search(rf"kept .*{other.key}: changed or used", said)
    assert artifact.complete
    assert other.complete


def test_a_named_run_keeps_the_artifact_that_another_run_marked_a_moment_ago(kit: Kit) -> None:
    artifact = made(kit, "first", "a" * 32, old=False)
    run = recorded(kit, "one", artifact)
    artifact.mark_used()  # as a run that starts now does before it writes its plan
    assert "a run began to use it a moment ago" in cleaned(kit, run.name, "--yes")
    assert artifact.complete
    assert kit.runs() == []


def test_unfinished_work_is_removed_only_with_partial(kit: Kit) -> None:
    for end in ("run-failed", "run-cancelled", "run-started"):
        key = files_key(end)
        artifact = kit.volume.artifact("first", key)
        StageOutput(artifact.partial).write_text("checkpoint/state", "x" * MIB)
        run = new_run(kit.volume, end, "{}", [{"step": "first", "key": key}])  # type: ignore[typeddict-item]
        run.events.append("run-started", steps=["first"])
        run.events.append(end)
    for words in ([], ["--older-than", "0m"], ["--keep-last", "0"], [run.name]):
        said = cleaned(kit, *words, "--yes")
        assert said.count("unfinished work that can be resumed; --partial also removes it") == 3
        assert len(list(kit.volume.artifacts.glob("first/*.partial/checkpoint/state"))) == 3
    said = cleaned(kit, "--partial", "--yes")
    assert "3.0 MiB freed." in said
    assert not list(kit.volume.artifacts.glob("first/*.partial"))


def files_key(text: str) -> str:
    return text.encode().hex().ljust(32, "0")[:32]


def test_partial_keeps_the_work_of_a_running_run(kit: Kit) -> None:
    artifact = kit.volume.artifact("first", "c" * 32)
    StageOutput(artifact.partial).write_text("state", "x")
    run = new_run(kit.volume, "words", "{}", [{"step": "first", "key": artifact.key}])  # type: ignore[typeddict-item]
    run.events.append("run-started", steps=["first"])
    lease = Lease.acquire(run.lease, "launcher")
    assert cleaned(kit, "--partial", "--yes") == "Nothing to clean.\n"
    assert (artifact.partial / "state").exists()
    lease.release()
    assert "removed" in cleaned(kit, "--partial", "--yes")


def test_each_item_says_what_its_removal_frees_with_hard_links(kit: Kit) -> None:
    one = made(kit, "first", "a" * 32)
    two = kit.volume.artifact("left", "b" * 32)
    output = StageOutput(two.partial)
    assert output.place(one.path / "data", "data") == "link"
    output.seal({})
    two.commit("test")
    aged(two.path)
    for words in ([], ["--yes"]):
        said = cleaned(kit, *words)
        assert re.search(r"remove\w* +0\.0 MiB  artifact that no run uses: artifacts/first", said)
        assert re.search(r"remove\w* +1\.0 MiB  artifact that no run uses: artifacts/left", said)
        assert re.search(r"^1\.0 MiB", said, re.MULTILINE)


def test_old_runs_and_all_but_the_last_runs_can_be_selected(kit: Kit) -> None:
    artifacts = [made(kit, "first", letter * 32) for letter in "abcd"]
    runs = [recorded(kit, f"run-{number}", artifact) for number, artifact in enumerate(artifacts)]
    failed = recorded(kit, "failed", made(kit, "first", "e" * 32), end="run-failed")
    for run in (*runs[:3], failed):
        os.utime(run.events.path, (PAST, PAST))
    listed = cleaned(kit, "--older-than", "30d", "--keep-last", "3")
    assert re.findall(r"run: runs/(\S+)", listed) == [run.name for run in runs[:2]]
    cleaned(kit, "--older-than", "30d", "--keep-last", "3", "--yes")
    assert [artifact.complete for artifact in artifacts] == [False, False, True, True]
    cleaned(kit, "--older-than", "30d", "--yes")
    assert {run.name for run in kit.runs()} == {runs[3].name, failed.name}
    assert len(kit.volume.complete("first")) == 2
    cleaned(kit, "--keep-last", "0", "--yes", "--partial")
    assert kit.runs() == []
    assert kit.volume.complete("first") == []


def test_one_step_of_old_runs_can_be_removed_and_the_runs_stay(kit: Kit) -> None:
    first, left = made(kit, "first", "a" * 32), made(kit, "left", "b" * 32)
    run = recorded(kit, "words", first, left)
    said = cleaned(kit, run.name, "--step", "left", "--yes")
    assert said.count("removed") == 1
    assert first.complete
    assert not left.path.exists()
    assert [run.name for run in kit.runs()] == [run.name]
    with pytest.raises(ConfigError, match="no step 'lefft'"):
        cleaned(kit, "--step", "lefft")


@pytest.mark.parametrize("words", [["x", "--keep-last", "1"], ["x", "--older-than", "1d"]])
def test_runs_are_named_or_selected_but_not_both(kit: Kit, words: list[str]) -> None:
    with pytest.raises(ConfigError, match="but not both"):
        cleaned(kit, *words)


def test_a_wrong_age_shows_how_to_write_it(kit: Kit) -> None:
    assert "such as 30d" in kit.call("clean", "--older-than", "month", check=2).stderr


def test_a_run_whose_folder_clean_removed_before_its_launcher_began_gets_a_new_folder(kit: Kit) -> None:
    launcher = kit.launcher(selection=None)
    text = load_recipe(kit.recipe, PIPELINE, ()).text
    cleaned(kit, launcher.run.name, "--yes")
    assert kit.runs() == []
    kit.run("--to", "first")
    [run] = kit.runs()
    assert run.name != launcher.run.name
    assert run.keys() != {row["step"]: row["key"] for row in plan_rows(launcher.plan)}
    assert run.recipe.read_text() == text


def test_what_a_killed_clean_left_is_removed_later(kit: Kit) -> None:
    hidden, begun = kit.volume.runs / ".20200101-000000000-words-ab12.c0ffee", kit.volume.runs / "20200101-words"
    users = kit.volume.runs / "notes"
    for folder in (hidden, begun, users):
        folder.mkdir(parents=True)
    (users / "plan.txt").touch()
    (begun / "plan.json").write_text("[]")
    said = cleaned(kit, "--yes")
    assert said.count("kept") == 2
    for folder in (hidden, begun, users):
        aged(folder)
    said = cleaned(kit, "--yes")
    assert "removed run: runs/.20200101" in said
    assert "run that never began: runs/20200101" in said
    assert list(kit.volume.runs.iterdir()) == [users]


def test_nothing_that_a_run_uses_is_lost_when_runs_start_beside_clean(kit: Kit) -> None:
    """In each round, four runs start while two processes remove all finished runs and their artifacts."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.racing", kit.recipe, "4", "4"],
        cwd=ROOT,
        env={**os.environ, "VASEVQA_VOLUME": str(kit.volume.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ended.stdout)
    assert [entry for entry in told if entry[0]] == []
    assert any("removed" in said for _, words, said in told if words[0] == "clean")
    for run in kit.runs():
        assert run.state == "finished"
        assert set(run.artifacts()) == {"first", "left"}
        for path in run.artifacts().values():
            verify(path)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["one", "two", "--yes", "--partial"],
        ["--older-than", "30d", "--keep-last", "0"],
        ["--step", "first", "--step", "left"],
    ],
)
def test_a_pod_gets_the_same_request(words: list[str]) -> None:
    def read(given: list[str]) -> Asked:
        values = clean.make_context("clean", list(given)).params
        return Asked(**{name: values[name] for name in Asked.__dataclass_fields__})

    assert read(read(words).to_args()) == read(words)
