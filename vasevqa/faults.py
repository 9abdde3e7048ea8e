"""The moments between which everything of note happens: a crash drill kills the launcher at each."""

from __future__ import annotations

import os
import signal
from enum import Enum


class FaultPoint(Enum):
    """Where a launcher can be killed on purpose."""

    RUN_OPENED = "run-opened"  # the run's folder exists, nothing else happened
    BEFORE_SUBMIT = "before-submit"
    IN_SUBMIT = "in-submit"  # the job exists, its process doesn't
    AFTER_SUBMIT = "after-submit"  # the process exists, the event log knows nothing of it
    WHILE_RUNNING = "while-running"
    DURING_RETRY = "during-retry"
    BEFORE_COMMIT = "before-commit"
    AFTER_COMMIT = "after-commit"  # the artifact is there, the event log knows nothing of it
    BETWEEN_STEPS = "between-steps"
    BEFORE_END = "before-end"  # all steps are done, the run isn't ended


def fault(point: FaultPoint, step: str = "") -> None:
    """Die here by SIGKILL if VASEVQA_FAULT says so (`point`, or `point:step`)."""
    asked = os.environ.get("VASEVQA_FAULT")
    if asked is not None and asked in (point.value, f"{point.value}:{step}"):
        os.kill(os.getpid(), signal.SIGKILL)
