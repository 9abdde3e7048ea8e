"""The command of a stage: flags, errors and exit codes on a command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline import plain_stage
from vasevqa.artifacts.keys import artifact_key
from vasevqa.artifacts.volume import Volume
from vasevqa.errors import Interrupted, LeaseLost, TransientStorageError
from vasevqa.runtime.flags import argv
from vasevqa.runtime.progress import make_progress
from vasevqa.runtime.task import run_task
from vasevqa.spec import StageCall

ROOT = Path(__file__).parent.parent.parent


def call(*words: str | Path, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.plain_stage", *map(str, words)], capture_output=True, text=True, cwd=ROOT
    )
    if check is not None:
        assert result.returncode == check, result.stdout + result.stderr
    assert check == 1 or "Traceback" not in result.stderr
    return result


def result_of(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / "result.json").read_text())
    return loaded


def test_flags_come_from_the_fields_and_underscores_work(tmp_path: Path) -> None:
    call(
        "--input_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "out",
        "--upper_limit",
        "3",
        "--kind",
        "with_underscore",
        "--word",
        "a_b",
        "--word",
        "c",
        "--table",
        '{"x": 1}',
    )
    assert result_of(tmp_path / "out") == {
        "upper_limit": 3.0,
        "kind": "with_underscore",
        "word": ["a_b", "c"],
        "table": {"x": 1},
        "loud": False,
    }


def test_rendered_arguments_give_the_same_parameters(tmp_path: Path) -> None:
    params = plain_stage.Params(upper_limit=2.5, kind="with_underscore", word=["-x", "y z"], table={"k": 2}, loud=True)
    words = argv(plain_stage.STAGE, params, plain_stage.Options(), {"images": str(tmp_path)}, str(tmp_path / "out"))
    call(*words)
    assert result_of(tmp_path / "out") == params.model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--input-dir", "missing-folder"], 2, "missing-folder does not exist"),
        (["--upper-limit", "9"], 2, "--upper-limit"),
        (["--upper-limt", "1"], 2, "Did you mean '--upper-limit'"),
        (["--kind", "other"], 2, "with_underscore"),
        (["--table", "{"], 2, "--table takes JSON"),
        (["--fail", "data"], 3, "no usable image"),
        (["--fail", "gate"], 6, "not good enough"),
        (["--fail", "full"], 74, "the disk is full"),
        (["--fail", "passing"], 75, "Could not write or read /volume/x.jpg: the storage gave an input/output error"),
        (["--fail", "host"], 71, "The memory does not suffice for plain-stage; lower its batch size"),
        (["--fail", "memory"], 4, "lower its batch size"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence_with_its_exit_code(
    tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    given = ["--output-dir", str(tmp_path / "out")] + ([] if "--input-dir" in words else ["--input-dir", str(tmp_path)])
    result = call(*given, *words, check=code)
    assert says in result.stderr


def test_a_bug_ends_with_exit_code_1_and_a_traceback(tmp_path: Path) -> None:
    result = call("--input-dir", tmp_path, "--output-dir", tmp_path / "out", "--fail", "bug", check=1)
    assert "this is a bug" in result.stderr
    assert "Traceback" in result.stderr


def test_an_output_folder_is_needed(tmp_path: Path) -> None:
    assert "--output-dir" in call("--input-dir", tmp_path, check=2).stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_the_stage_with_the_exit_code_of_the_signal(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words = ["--input-dir", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--fail", "hang", "--json-events"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.plain_stage", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as stage:
        assert stage.stdout is not None
        for line in stage.stdout:
            if json.loads(line)["event"] == "phase":
                break
        stage.send_signal(number)
        _, errors = stage.communicate(timeout=30)
    assert stage.returncode == code
    assert "the same" in errors


def test_json_events_contain_all_progress_of_the_stage(tmp_path: Path) -> None:
    lines = call("--input-dir", tmp_path, "--output-dir", tmp_path / "out", "--json-events").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["started", "phase", "progress", "summary"]
    assert events[2]["done"] == events[2]["total"] == 3
    assert events[3]["figures"] == {"count": 3}


def test_a_task_is_sealed_with_its_provenance(tmp_path: Path, volume_root: Path) -> None:
    params = plain_stage.Params(upper_limit=2)
    key = artifact_key(plain_stage.STAGE, params, {"images": "digest-of-images"})
    artifact = Volume(volume_root).artifact("plain", key)
    task = tmp_path / "task.json"
    inputs = {"images": {"key": "digest-of-images", "path": str(tmp_path)}}
    task.write_text(
        json.dumps(
            {
                "step": "plain",
                "stage": "plain-stage",
                "key": key,
                "attempt": "a1",
                "run": "r1",
                "volume": str(volume_root),
                "inputs": inputs,
            }
        )
    )
    words = [
        *argv(plain_stage.STAGE, params, plain_stage.Options(), {"images": str(tmp_path)}, str(artifact.partial)),
        "--task",
        str(task),
        "--json-events",
    ]
    events = [json.loads(line) for line in call(*words).stdout.splitlines()]
    assert events[-1]["event"] == "sealed"
    assert artifact.sealed
    assert not artifact.lease.exists()
    artifact.commit("test")
    record = artifact.record()
    assert record["params"]["upper_limit"] == 2
    assert record["inputs"] == inputs
    assert record["attempt"] == "a1"
    assert record["versions"]["python"]
    assert record["summary"] == "3 things"
    assert record["usage"]["cpu_seconds"] > 0
    assert 2**20 < record["usage"]["memory"] < 2**36  # bytes
    assert set(record["files"]) == {"result.json"}
    # A second call doesn't repeat a complete artifact.
    assert json.loads(call(*words).stdout.splitlines()[-1]) | {"time": 0} == {
        "event": "sealed",
        "time": 0,
        "already": True,
    }


@pytest.mark.parametrize(("error", "kind"), [("", "LeaseLost"), ("Input/output error", "TransientStorageError")])
def test_a_stage_without_its_lease_ends_with_the_class_of_the_reason(error: str, kind: str) -> None:
    program = (
        "import sys; from pathlib import Path; from vasevqa.artifacts.lease import Loss;"
        " from vasevqa.runtime.progress import make_progress; from vasevqa.runtime.task import _die_without_lease;"
        " _die_without_lease(make_progress('s', json_events=True), Loss('a1', Path('/v/k.lease'), 30, sys.argv[1]))"
    )
    ended = subprocess.run([sys.executable, "-c", program, error], capture_output=True, text=True, check=False)
    assert ended.returncode == 75, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert (told["event"], told["class"], told["exit_code"]) == ("error", kind, 75)
    assert ("check the volume" in told["message"]) == bool(error)


@pytest.mark.parametrize(("taken_over", "kind"), [(True, LeaseLost), (False, TransientStorageError)])
def test_a_write_without_the_lease_ends_with_the_class_of_the_reason(
    tmp_path: Path, volume_root: Path, taken_over: bool, kind: type[Exception]
) -> None:
    def lose(call: StageCall[plain_stage.Params, plain_stage.Options]) -> None:
        raise LeaseLost("The lease is lost.", taken_over)

    params = plain_stage.Params()
    key = artifact_key(plain_stage.STAGE, params, {"images": "d"})
    artifact = Volume(volume_root).artifact("plain", key)
    task = {"step": "plain", "key": key, "attempt": "a", "run": "r", "volume": str(volume_root)}
    (tmp_path / "task.json").write_text(json.dumps({**task, "inputs": {"images": {"key": "d", "path": "p"}}}))
    with pytest.raises(Interrupted, match="The lease is lost") as caught:
        run_task(
            replace(plain_stage.STAGE, run=lose),
            params,
            plain_stage.Options(),
            {},
            artifact.partial,
            tmp_path / "task.json",
            make_progress("plain-stage", json_events=True),
        )
    assert type(caught.value) is kind
    assert not artifact.lease.exists()


def test_a_task_of_another_version_is_refused(tmp_path: Path, volume_root: Path) -> None:
    task = tmp_path / "task.json"
    task.write_text(
        json.dumps(
            {
                "step": "plain",
                "key": "0" * 32,
                "attempt": "a",
                "run": "r",
                "volume": str(volume_root),
                "inputs": {"images": {"key": "d", "path": "p"}},
            }
        )
    )
    result = call(
        "--input-dir", tmp_path, "--output-dir", volume_root / "artifacts/plain/x.partial", "--task", task, check=2
    )
    assert "use the launcher's version" in result.stderr


def test_a_message_names_the_flag_in_a_call_and_the_key_in_a_run(tmp_path: Path) -> None:
    words = ("--input-dir", tmp_path, "--output-dir", tmp_path / "out", "--upper-limit", "9")
    assert "--upper-limit: Input should be less than" in call(*words, check=2).stderr
    (tmp_path / "task.json").write_text("{}")
    in_a_run = call(*words, "--task", tmp_path / "task.json", check=2).stderr
    assert "`upper_limit`: Input should be less than" in in_a_run
    assert "--" not in in_a_run
