"""Restarts of a launcher by the cluster: resume after a crash, but don't repeat a final failure."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from vasevqa import files
from vasevqa.errors import ClusterError, StorageError, VaseError, storage_error
from vasevqa.pipeline.launcher import StepFailed

CANCELLED = 130  # the exit code after `vasevqa cancel`
BROKEN_DOWN = 70  # sysexits' EX_SOFTWARE
KNOWN = (BrokenPipeError, click.ClickException, click.exceptions.Exit)  # errors that the command line handles


def once(launch: str, volume: Path, work: Callable[[], int]) -> int:
    """Return the exit code of `work`; raise StepFailed if an earlier start ended for good.

    `launch` names the Job that restarts this process. A crash, a drained node or an unreachable API server justify
    another start. A failed step does not: its retries are used up, and each further one costs GPU hours.
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
        # A bug or a faulty volume: the Job starts again. Exit code 1 would tell followers that the run has ended.
        return BROKEN_DOWN
    if code == CANCELLED:
        files.write_json(record, {"exit_code": code, "message": "The run was cancelled; submit it again to resume."})
    return code
