"""A launcher that the cluster restarts: it goes on after a crash, and does not begin anew what failed for good."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from vasevqa import files
from vasevqa.errors import ClusterError, StorageError, VaseError, storage_error
from vasevqa.pipeline.launcher import StepFailed

CANCELLED = 130  # somebody asked for it by `vasevqa cancel`
BROKEN_DOWN = 70  # sysexits' EX_SOFTWARE
KNOWN = (BrokenPipeError, click.ClickException, click.exceptions.Exit)  # what the command line has an answer to


def once(launch: str, volume: Path, work: Callable[[], int]) -> int:
    """The exit code of `work`, or of what it ended with the last time if that was for good.

    `launch` names the Job that restarts this process: a crash, a drained node or an API server that is away are worth
    another start, a failed step is not (its retries have been spent, and each further one costs GPU hours).
    """
    record = volume / "runs" / ".launches" / f"{launch}.json"
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before is not None:
        raise StepFailed(before["message"], before["exit_code"])
    try:
        code = work()
    except VaseError as error:
        if isinstance(error, StepFailed) or not (error.retry or isinstance(error, (ClusterError, StorageError))):
            files.write_json(record, {"exit_code": getattr(error, "code", error.exit_code), "message": str(error)})
        raise
    except Exception as error:
        if isinstance(error, KNOWN) or (
            isinstance(error, OSError) and storage_error(error, "write or read") is not None
        ):
            raise
        traceback.print_exc()
        # a bug, or a volume that is ill: another start goes on, which code 1 would not tell those who follow
        return BROKEN_DOWN
    if code == CANCELLED:
        files.write_json(
            record, {"exit_code": code, "message": "The run was cancelled; submit it again to go on where it was."}
        )
    return code
