"""Resume a run in the cluster after its launcher crashed, but not after the run has failed for good."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from vasevqa import files
from vasevqa.errors import ClusterError, HostMemoryError, StorageError, VaseError, storage_error
from vasevqa.pipeline.launcher import StepFailed

CANCELLED = 130  # the exit code after `vasevqa cancel`
BROKEN_DOWN = 70  # sysexits' EX_SOFTWARE
KNOWN = (BrokenPipeError, click.ClickException, click.exceptions.Exit)  # errors that the command line reports


def once(launch: str, volume: Path, work: Callable[[], int]) -> int:
    """Call `work` and return its exit code. Raise StepFailed if an earlier call failed for good or was cancelled.

    A Job in the cluster starts this process again after a failure; `launch` is the name of the Job. A new start can
    help after a crash, after a node was drained, or if the API server did not answer. A new start can't help after a
    failed step: the step has no retries left, and each further attempt costs GPU hours.
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
        if isinstance(error, StepFailed) or not (
            error.retry or isinstance(error, (ClusterError, StorageError, HostMemoryError))
        ):
            files.write_json(record, {"exit_code": getattr(error, "code", error.exit_code), "message": str(error)})
        raise
    except Exception as error:
        if isinstance(error, KNOWN) or (
            isinstance(error, OSError) and storage_error(error, "write or read") is not None
        ):
            raise
        traceback.print_exc()
        # A bug or a faulty volume: the Job starts again. Exit code 1 would mean that the run has ended.
        return BROKEN_DOWN
    if code == CANCELLED:
        files.write_json(record, {"exit_code": code, "message": "The run was cancelled; submit it again to resume."})
    return code
