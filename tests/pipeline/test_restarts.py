"""A launcher that the cluster restarts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.pipeline.kit import Kit
from vasevqa.errors import ClusterUnreachable, ConfigError, HostMemoryError, Terminated
from vasevqa.pipeline.launcher import StepFailed
from vasevqa.pipeline.restarts import once


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path / "kit")


def test_a_final_failure_is_reported_again_and_the_run_is_not_repeated(kit: Kit) -> None:
    kit.wish("left", "data", "no")
    env = {"VASEVQA_LAUNCH": "job-1"}
    assert "No word can be read." in kit.run(check=3, env=env).stderr
    again = kit.run(check=3, env=env)
    assert again.stderr == "error: No word can be read.\n"
    assert kit.attempts()["left"] == 1
    kit.run(env={"VASEVQA_LAUNCH": "job-2"})  # the user submits the launch again
    assert kit.attempts()["left"] == 2


def test_a_temporary_failure_is_retried(tmp_path: Path) -> None:
    def fails(error: BaseException) -> int:
        raise error

    for error in (ClusterUnreachable("away"), HostMemoryError("no memory for a call"), Terminated()):
        with pytest.raises(type(error)):
            once("job", tmp_path, lambda error=error: fails(error))  # type: ignore[misc]
        assert once("job", tmp_path, lambda: 0) == 0
    with pytest.raises(ConfigError):
        once("job", tmp_path, lambda: fails(ConfigError("wrong")))
    with pytest.raises(StepFailed, match="wrong") as caught:
        once("job", tmp_path, lambda: 0)
    assert caught.value.code == 2


def test_a_bug_or_a_faulty_volume_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: Exception) -> int:
        raise error

    assert once("job", tmp_path, lambda: fails(KeyError("surprise"))) == 70
    assert "surprise" in capsys.readouterr().err
    with pytest.raises(OSError, match="Stale file handle"):  # the command line explains this error
        once("job", tmp_path, lambda: fails(OSError(errno.ESTALE, "Stale file handle", "/data/x")))
    assert once("job", tmp_path, lambda: 0) == 0
    with pytest.raises(OSError, match="No space left"):  # the command line explains this error
        once("job", tmp_path, lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))


def test_a_cancelled_launch_stays_cancelled(tmp_path: Path) -> None:
    assert once("job", tmp_path, lambda: 130) == 130
    with pytest.raises(StepFailed, match="cancelled") as caught:
        once("job", tmp_path, lambda: 0)
    assert caught.value.code == 130
