"""Runs one stage as a child and writes down how it ended, so that a launcher that isn't its parent can know.

Called as `python supervise.py JOB LOG COMMAND...`. Imports the standard library only: it starts in milliseconds.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

RECORD_SIZE = 128


def die_with_parent() -> None:
    """In the child: SIGKILL when the supervisor dies, so that no stage runs on unseen (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main(job: Path, log: str, command: list[str]) -> None:
    """Run `command`, its output in `log`, its end in `job`/exit."""
    # Written in full now and overwritten in place at the end: that works on a full disk too.
    with open(job / "exit", "wb") as stream:
        stream.write(b" " * RECORD_SIZE)
    with open(log, "ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent)  # noqa: PLW1509
    signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(signal.SIGTERM))
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (job / "pid.new").write_text(json.dumps({"pid": os.getpid(), "started": started, "child": child.pid}))
    (job / "pid.new").rename(job / "pid")
    code = child.wait()
    record = json.dumps({"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None})
    with open(job / "exit", "r+b") as stream:
        stream.write(record.encode().ljust(RECORD_SIZE))
        stream.flush()
        os.fsync(stream.fileno())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
