"""Fault points: places in the code at which a crash test can kill the launcher."""

from __future__ import annotations

import os
import signal
from enum import Enum


class FaultPoint(Enum):
    """A place in the code at which a crash test can kill the launcher."""

    RUN_OPENED = "run-opened"  # the run's folder exists, and nothing else happened
    BEFORE_SUBMIT = "before-submit"
    IN_SUBMIT = "in-submit"  # the job exists, but its process doesn't
    AFTER_SUBMIT = "after-submit"  # the process exists but isn't in the event log yet
    WHILE_RUNNING = "while-running"
    DURING_RETRY = "during-retry"
    BEFORE_COMMIT = "before-commit"
    AFTER_COMMIT = "after-commit"  # the artifact exists but isn't in the event log yet
    BETWEEN_STEPS = "between-steps"
    BEFORE_END = "before-end"  # all steps are done, but the run hasn't ended


def fault(point: FaultPoint, step: str = "") -> None:
    """Kill this process with SIGKILL if the variable VASEVQA_FAULT is `<point>` or `<point>:<step>`."""
    asked = os.environ.get("VASEVQA_FAULT")
    if asked is not None and asked in (point.value, f"{point.value}:{step}"):
        os.kill(os.getpid(), signal.SIGKILL)
