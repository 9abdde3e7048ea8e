"""`vasevqa verify` says what changed in artifacts, and `--repair` sets damaged artifacts aside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.pipeline.kit import Kit
from tests.pipeline.test_clean import aged, recorded
from vasevqa import files
from vasevqa.artifacts.lease import Lease
from vasevqa.artifacts.output import StageOutput
from vasevqa.artifacts.volume import Artifact
from vasevqa.cli.verify import verify
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.runs import new_run


def verified(kit: Kit, *words: str) -> tuple[str, str]:
    """Run `vasevqa verify` in this process, and return its output and the sentence of its DataError."""
    result = CliRunner().invoke(verify, [*words, "--volume", str(kit.volume.root)])
    if isinstance(result.exception, DataError):
        return result.output, str(result.exception)
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.output, ""


def made(kit: Kit, step: str, key: str, source: Artifact | None = None) -> Artifact:
    artifact = kit.volume.artifact(step, key)
    output = StageOutput(artifact.partial)
    for name in ("one.txt", "two.txt"):
        if source is None:
            output.write_text(name, f"{step} {name}")
        else:
            output.place(source.path / name, name)
    inputs = {} if source is None else {"words": {"key": source.key}}
    output.seal({"step": step, "key": key, "inputs": inputs})
    artifact.commit("test")
    return artifact


def damage(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("x" * path.stat().st_size)


def test_a_volume_without_artifacts_is_named(kit: Kit) -> None:
    assert kit.call("verify").stdout == f"There is no artifact on {kit.volume.root}.\n"


def test_undamaged_artifacts_are_listed(kit: Kit) -> None:
    first = made(kit, "first", "a" * 32)
    made(kit, "left", "b" * 32, first)
    said, error = verified(kit)
    assert error == ""
    assert re.search(r"^ok +first/a{10}  2 files, 26 bytes$", said, re.MULTILINE)
    assert said.endswith("2 artifacts are as their steps wrote them.\n")


def test_each_changed_file_is_named_and_the_exit_code_is_3(kit: Kit) -> None:
    first, right = made(kit, "first", "a" * 32), made(kit, "right", "c" * 32)
    made(kit, "left", "b" * 32, first)
    damage(first.path / "one.txt")
    (right.path / "two.txt").unlink()
    (right.path / "three.txt").touch()
    said, error = verified(kit)
    assert re.findall(r"^changed +(.*)$", said, re.MULTILINE) == [
        "first/aaaaaaaaaa  one.txt has other content",
        "left/bbbbbbbbbb  one.txt has other content",  # a hard link to the same file
        "right/cccccccccc  three.txt was added",
        "right/cccccccccc  two.txt is missing",
    ]
    assert "was read by left/bbbbbbbbbb; --refresh makes these again too" in said
    assert error == (
        f"3 of 3 artifacts on {kit.volume.root} are damaged; set them aside with --repair, and run the recipe again to"
        " make them anew."
    )
    assert kit.call("verify", check=3).stderr == f"error: {error}\n"


@pytest.mark.parametrize("text", ["", "{}", None])
def test_an_artifact_with_a_damaged_record_is_named_and_set_aside(kit: Kit, text: str | None) -> None:
    first = made(kit, "first", "a" * 32)
    if text is None:
        (first.path / "artifact.json").unlink()
    else:
        files.write_text(first.path / "artifact.json", text)
    said, error = verified(kit, "first")
    assert "changed  first/aaaaaaaaaa  artifact.json is missing or damaged" in said
    assert error
    assert verified(kit, "first", "--repair")[1] == ""
    assert not first.path.exists()


def test_repair_sets_only_damaged_artifacts_aside_and_the_next_run_makes_them_anew(kit: Kit) -> None:
    kit.run("--to", "left")
    [run], before = kit.runs(), kit.contents()
    [first], [left] = kit.volume.complete("first"), kit.volume.complete("left")
    damage(first.path / "words-alpha.txt")
    said, error = verified(kit, run.name, "--repair")
    assert error == ""
    assert re.search(r"aside +first/\w{10} is now artifacts/first/\w+\.\w+\.aside", said)
    assert "1 of 2 artifacts were set aside; run the recipe again to make them anew." in said
    assert left.complete
    kit.run("--to", "left")
    assert kit.contents() == before
    assert kit.attempts() == {"first": 2, "left": 1}


def test_an_artifact_that_a_running_run_uses_is_not_set_aside(kit: Kit) -> None:
    first = made(kit, "first", "a" * 32)
    run = new_run(kit.volume, "words", "{}", [{"step": "first", "key": first.key}])  # type: ignore[typeddict-item]
    lease = Lease.acquire(run.lease, "launcher")
    damage(first.path / "one.txt")
    said, error = verified(kit, "--repair")
    assert "kept     first/aaaaaaaaaa: a running run uses it; repair it after the run." in said
    assert "repeat the command when no run uses them" in error
    assert first.path.is_dir()
    lease.release()
    assert verified(kit, "--repair")[1] == ""


def test_a_run_or_a_step_is_verified_alone(kit: Kit) -> None:
    first, right = made(kit, "first", "a" * 32), made(kit, "right", "c" * 32)
    damage(first.path / "one.txt")
    run = recorded(kit, "words", right)
    assert verified(kit, "right") == verified(kit, run.name)
    assert verified(kit, "right")[1] == ""
    assert verified(kit, "first")[1] != ""
    with pytest.raises(ConfigError, match="no run and no step 'rihgt'. Did you mean 'right'?"):  # noqa: RUF043
        verified(kit, "rihgt")


def test_a_set_aside_artifact_is_removed_by_clean(kit: Kit) -> None:
    first = made(kit, "first", "a" * 32)
    damage(first.path / "one.txt")
    verified(kit, "--repair")
    [aside] = (kit.volume.artifacts / "first").glob("*.aside")
    assert "kept" in kit.call("clean", "--yes").stdout
    aged(aside)
    assert "replaced artifact" in kit.call("clean", "--yes").stdout
    assert not aside.exists()
